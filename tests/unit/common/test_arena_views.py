"""How long a view lives, who may write to it, and what other processes see of an arena."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.common.arena_refs import FOREVER, put, ref_to

from omni.common.v1.tensor_pb2 import ArenaSlot
from omni_common.arena import ArenaReader, ArenaWriter
from omni_common.tensor import DType, Tensor

NUMBERS = np.arange(1000, dtype=np.float32)
TENSOR = Tensor(DType.FLOAT32, (1000,), NUMBERS.data.cast("B"))

# torch says so of every read-only buffer; what follows from it is tested below.
pytestmark = pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[ArenaWriter]:
    with ArenaWriter(tmp_path, "thinker-0", 64 * 1024) as made:
        yield made


def _lend(writer: ArenaWriter, folder: Path, released: Callable[[ArenaSlot], None]) -> Tensor:
    slot = writer.put(TENSOR, "r", FOREVER)
    assert slot is not None
    return ArenaReader(folder).view(ref_to(TENSOR, slot), released)


def _numpy(tensor: Tensor) -> Any:
    return np.frombuffer(tensor.data, dtype=np.float32)


def _torch(tensor: Tensor) -> Any:
    return torch.frombuffer(tensor.data, dtype=torch.float32)


@pytest.mark.parametrize("wrap", [_numpy, _torch], ids=["numpy", "torch"])
def test_the_slot_is_released_once_and_only_when_the_last_derived_array_is_gone(
    tmp_path: Path, writer: ArenaWriter, wrap: Callable[[Tensor], Any]
) -> None:
    released: list[ArenaSlot] = []
    tensor = _lend(writer, tmp_path, released.append)
    whole = wrap(tensor)
    del tensor
    part = whole[10:20].reshape(2, 5)[1]
    del whole
    gc.collect()
    assert released == []
    assert part.tolist() == [15, 16, 17, 18, 19]
    del part
    gc.collect()
    assert [slot.generation for slot in released] == [1]
    writer.release(released[0])
    assert writer.in_use == 0


def test_each_view_of_a_slot_is_released_by_itself(tmp_path: Path, writer: ArenaWriter) -> None:
    released: list[ArenaSlot] = []
    reader = ArenaReader(tmp_path)
    ref = put(writer, b"abc")
    first, second = reader.view(ref, released.append), reader.view(ref, released.append)
    del first
    assert len(released) == 1
    assert bytes(second.data) == b"abc"
    del second
    assert len(released) == 2


def test_a_view_outlives_its_reader_its_writer_and_the_file(tmp_path: Path) -> None:
    released: list[ArenaSlot] = []
    with ArenaWriter(tmp_path, "gone", 64 * 1024) as writer:
        reader = ArenaReader(tmp_path)
        slot = writer.put(TENSOR, "r", FOREVER)
        assert slot is not None
        array = _numpy(reader.view(ref_to(TENSOR, slot), released.append))
        reader.close()
        del reader
    assert list(tmp_path.iterdir()) == []
    gc.collect()
    assert (array == NUMBERS).all()
    del array
    assert len(released) == 1


def test_the_release_runs_in_the_thread_that_drops_the_last_view(tmp_path: Path, writer: ArenaWriter) -> None:
    threads: list[int] = []
    held = [_torch(_lend(writer, tmp_path, lambda slot: threads.append(threading.get_ident())))]
    thread = threading.Thread(target=held.clear)
    thread.start()
    ident = thread.ident
    thread.join()
    assert threads == [ident]


def test_numpy_cannot_write_to_a_view(tmp_path: Path, writer: ArenaWriter) -> None:
    array = _numpy(_lend(writer, tmp_path, lambda slot: None))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True


_READ = """
import sys
from pathlib import Path
from omni.common.v1.tensor_pb2 import DataRef
from omni_common.arena import ArenaReader
ref = DataRef.FromString(sys.stdin.buffer.read())
tensor = ArenaReader(Path(sys.argv[1])).view(ref, lambda slot: print("released", slot.generation))
print(sum(tensor.data.cast("f")))
del tensor
"""

_WRITE = """
import ctypes, sys
from pathlib import Path
from omni.common.v1.tensor_pb2 import DataRef
from omni_common.arena import ArenaReader
ref = DataRef.FromString(sys.stdin.buffer.read())
tensor = ArenaReader(Path(sys.argv[1])).view(ref, lambda slot: None)
ctypes.memset(tensor.data.obj, 1, 1)
print("written")
"""

_PRODUCE = """
import sys
from pathlib import Path
from omni_common.arena import ArenaWriter
writer = ArenaWriter(Path(sys.argv[1]), "killed", 65536)
print(writer.segment, flush=True)
sys.stdin.read()
"""


def _python(script: str, folder: Path, stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", script, str(folder)], input=stdin, stdout=subprocess.PIPE, timeout=50, check=False
    )


def test_another_process_maps_the_segment_and_reads_it(tmp_path: Path, writer: ArenaWriter) -> None:
    slot = writer.put(TENSOR, "r", FOREVER)
    assert slot is not None
    done = _python(_READ, tmp_path, ref_to(TENSOR, slot).SerializeToString())
    assert done.stdout.decode().split() == [str(float(NUMBERS.sum())), "released", "1"]


def test_a_consumer_that_writes_past_all_guards_dies_and_changes_nothing(tmp_path: Path, writer: ArenaWriter) -> None:
    slot = writer.put(TENSOR, "r", FOREVER)
    assert slot is not None
    done = _python(_WRITE, tmp_path, ref_to(TENSOR, slot).SerializeToString())
    assert (done.returncode, done.stdout) == (-signal.SIGSEGV, b"")
    array = _numpy(ArenaReader(tmp_path).view(ref_to(TENSOR, slot), lambda slot: None))
    assert (array == NUMBERS).all()


def test_a_new_writer_removes_the_segments_of_killed_ones_and_no_other(tmp_path: Path, writer: ArenaWriter) -> None:
    command = [sys.executable, "-c", _PRODUCE, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as producer:
        assert producer.stdout is not None
        segment = producer.stdout.readline().decode().strip()
        with ArenaWriter(tmp_path, "second", 4096) as second:
            assert {path.name for path in tmp_path.iterdir()} == {segment, writer.segment, second.segment}
        producer.kill()
    with ArenaWriter(tmp_path, "third", 4096) as third:
        assert {path.name for path in tmp_path.iterdir()} == {writer.segment, third.segment}
