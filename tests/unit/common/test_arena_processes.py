"""Real processes that share an arena, are killed, and fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.lab.readable import readable
from tests.unit.common.arena_refs import FOREVER, KEY, Pod, noise, octets, put, ref_to

from omni.common.v1.tensor_pb2 import DataRef
from omni_common.arena import ArenaWriter, Extent, HoldTables
from omni_common.arena.extents import render_extent
from omni_common.arena.holds import SETTLE
from omni_common.deadline import Deadline
from omni_common.request import RequestKey
from omni_common.testing.clock import ManualClock

DATA = noise(5000)

_PROLOGUE = """
import ctypes, gc, os, sys, threading, time
from pathlib import Path
from omni.common.v1.tensor_pb2 import DataRef
from omni_common.arena import Arena, ArenaReader, ArenaWriter, Extent, HoldTable, HoldTables
from omni_common.data_ref import checksum
folder, epoch = Path(sys.argv[1]), int(sys.argv[2])
arena = Arena.open(folder, epoch)
table = HoldTable.create(folder, "child")
reader = ArenaReader(arena, table)

def line():
    return sys.stdin.readline().strip()

def say(*words):  # whole lines, whoever else writes
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def view():
    return reader.view(DataRef.FromString(bytes.fromhex(line())), lambda slot: None)
"""


class Child:
    """A process that runs a script and talks in lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> int:
        return self.process.wait(30)

    def kill(self) -> None:
        self.process.kill()
        self.end()


@contextmanager
def running(script: str, pod: Pod) -> Iterator[Child]:
    command = [sys.executable, "-c", _PROLOGUE + script, str(pod.folder), str(pod.arena.epoch)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Child(process)
        finally:
            process.kill()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def pod(tmp_path: Path, clock: ManualClock) -> Pod:
    return Pod(tmp_path, clock)


@pytest.fixture
def writer(pod: Pod) -> ArenaWriter:
    return pod.writer()


def _hex(ref: DataRef) -> str:
    return ref.SerializeToString().hex()


def _reclaimed(writer: ArenaWriter, clock: ManualClock) -> int:
    clock.advance(SETTLE)
    return writer.reclaim(clock())


_CONSUME = """
tensor = view()
say("viewing")
line()
say(checksum(tensor.data))
del tensor
say("dropped")
line()
"""


def test_what_another_process_views_stays_until_it_drops_it(pod: Pod, writer: ArenaWriter, clock: ManualClock) -> None:
    ref = put(writer, DATA)
    with running(_CONSUME, pod) as child:
        child.say(_hex(ref))
        assert child.hear() == "viewing"
        writer.release_request(KEY)
        assert _reclaimed(writer, clock) == 0
        put(writer, noise(5000, 1))
        child.say("go on")
        assert child.hear() == str(ref.checksum)
        assert child.hear() == "dropped"
        assert _reclaimed(writer, clock) == 1


def test_what_a_killed_consumer_viewed_comes_back_and_its_table_is_removed(
    pod: Pod, writer: ArenaWriter, clock: ManualClock
) -> None:
    ref = put(writer, DATA)
    with running(_CONSUME, pod) as child:
        child.say(_hex(ref))
        assert child.hear() == "viewing"
        writer.release_request(KEY)
        assert _reclaimed(writer, clock) == 0
        assert pod.tables.remove_dead() == 0
        child.kill()
    assert _reclaimed(writer, clock) == 1
    assert pod.tables.remove_dead() == 1
    assert len(list((pod.folder / "holds").iterdir())) == 1, "the writer's own"


_WRITE_TO_A_VIEW = """
tensor = view()
ctypes.memset(tensor.data.obj, 1, 1)
say("written")
"""


def test_a_consumer_that_writes_past_all_guards_dies_and_changes_nothing(pod: Pod, writer: ArenaWriter) -> None:
    ref = put(writer, DATA)
    with running(_WRITE_TO_A_VIEW, pod) as child:
        child.say(_hex(ref))
        assert child.hear() == ""
        assert child.end() == -signal.SIGSEGV
    assert bytes(pod.reader().view(ref, lambda slot: None).data) == DATA


_PRODUCE = """
from omni_common.arena.extents import parse_extent
from omni.relay.v1.pod_pb2 import Extent as Message
from omni_common.data_ref import describe
from omni_common.tensor import DType, Tensor
writer = ArenaWriter(arena, table, HoldTables(folder))
granted = writer.grant(parse_extent(Message.FromString(bytes.fromhex(line()))))
place = writer.allocate(5000, None, float("inf"))
place[:] = bytes.fromhex(line())
tensor = Tensor(DType.UINT8, (5000,), place)
ref = describe(tensor)
ref.arena.CopyFrom(writer.slot_of(tensor))
say(ref.SerializeToString().hex())
while line():
    writer.allocate(100, None, float("inf"))[:] = bytes(100)
    say("written")
"""


@contextmanager
def producing(pod: Pod, extent: Extent) -> Iterator[tuple[Child, DataRef]]:
    with running(_PRODUCE, pod) as child:
        child.say(render_extent(extent).SerializeToString().hex())
        child.say(DATA.hex())
        yield child, DataRef.FromString(bytes.fromhex(child.hear()))


def test_a_dead_producers_extent_is_free_when_nobody_looks_at_it_and_views_of_it_stay(
    pod: Pod, clock: ManualClock
) -> None:
    extent = pod.grant(1)
    with producing(pod, extent) as (child, ref):
        view = pod.reader().view(ref, lambda slot: None)
        assert pod.tables.held(extent.offset, extent.end)
        child.kill()
    pod.revoke(extent)
    assert bytes(view.data) == DATA
    assert pod.tables.held(extent.offset, extent.end), "somebody looks at it"
    del view
    assert not pod.tables.held(extent.offset, extent.end)


def test_an_extent_revoked_from_a_living_producer_is_not_free(pod: Pod) -> None:
    extent = pod.grant(1)
    with producing(pod, extent) as (child, _):
        pod.revoke(extent)
        child.say("write on")
        assert child.hear() == "written"
        assert pod.tables.held(extent.offset, extent.end)
        child.kill()
    assert not pod.tables.held(extent.offset, extent.end)


_FORK = """
tensor = view()
pid = os.fork()
if not pid:
    say("forked")
    line()
    try:
        reader.view(DataRef(), print)
    except Exception as error:
        say(type(error).__name__)
    line()
    del tensor
    gc.collect()
    say("dropped")
    line()
    ctypes.string_at(arena.readonly.address, 1)
    say("read")
say(pid)
threading.Event().wait()
"""


@contextmanager
def forked(pod: Pod, ref: DataRef) -> Iterator[tuple[Child, int]]:
    """A consumer with a view of the reference, and the process that it forks, which reads the lines from then on."""
    with running(_FORK, pod) as child:
        child.say(_hex(ref))
        pid, said = sorted([child.hear(), child.hear()])
        assert said == "forked"
        try:
            yield child, int(pid)
        finally:
            _kill(int(pid))


def _kill(pid: int) -> None:
    """Returns when it is dead, and with it its locks."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        assert readable(handle, 30), "a killed process lives on"
    finally:
        os.close(handle)


def test_a_dead_consumer_holds_nothing_even_if_a_child_that_it_forked_lives_on(
    pod: Pod, writer: ArenaWriter, clock: ManualClock
) -> None:
    with forked(pod, put(writer, DATA)) as (child, _):
        writer.release_request(KEY)
        assert _reclaimed(writer, clock) == 0
        child.kill()
        assert _reclaimed(writer, clock) == 1
        child.say("try to view")
        assert child.hear() == "LeaseLost", "it lives"


def test_a_forked_child_neither_drops_its_parents_holds_nor_reads_what_it_does_not_hold(
    pod: Pod, writer: ArenaWriter, clock: ManualClock
) -> None:
    ref = put(writer, DATA)
    with forked(pod, ref) as (child, pid):
        writer.release_request(KEY)
        child.say("try to view")
        assert child.hear() == "LeaseLost"
        child.say("drop the view")
        assert child.hear() == "dropped"
        assert _reclaimed(writer, clock) == 0
        handle = os.pidfd_open(pid)
        child.say("read")
        assert readable(handle, 30), "it reads on"
        os.close(handle)
        assert _reclaimed(writer, clock) == 0
        child.kill()
    assert _reclaimed(writer, clock) == 1


_NURSERY = """
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while data := line():
    if not (pid := os.fork()):
        own = ArenaReader(Arena.open(folder, epoch), HoldTable.create(folder, "grandchild"))
        tensor = own.view(DataRef.FromString(bytes.fromhex(data)), print)
        say(os.getpid())
        threading.Event().wait()
"""


def test_a_hundred_killed_consumers_leave_nothing(pod: Pod, writer: ArenaWriter, clock: ManualClock) -> None:
    descriptors: list[int] = []
    with running(_NURSERY, pod) as child:
        for number in range(100):
            child.say(_hex(put(writer, noise(500, number), RequestKey(str(number)))))
            pid = int(child.hear())
            writer.release_request(RequestKey(str(number)))
            assert _reclaimed(writer, clock) == 0
            _kill(pid)
            assert _reclaimed(writer, clock) == 1
            descriptors.append(len(os.listdir("/proc/self/fd")))
        assert pod.tables.remove_dead() == 100
    assert (writer.leases, writer.in_use) == (0, 0)
    assert pod.tables.look().slots == []
    assert descriptors[-1] <= descriptors[0]


_WATCH = """
from collections import deque
from omni_common.errors import LeaseLost

held = deque()

def check_oldest():
    tensor, before = held.popleft()
    assert tensor.data == before and len(set(before)) == 1, "bytes changed under a view"

seen = lost = 0
while data := line():
    if data == "wait":
        time.sleep(0.02)
        say("waited")
        continue
    try:
        tensor = reader.view(DataRef.FromString(bytes.fromhex(data)), lambda slot: None)
    except LeaseLost:
        lost += 1
        say("lost")
        continue
    say("seen")
    held.append((tensor, bytes(tensor.data)))
    del tensor
    seen += 1
    if len(held) > 20:
        check_oldest()
while held:
    check_oldest()
say(seen, lost)
"""


def test_bytes_stay_under_views_while_their_producer_aborts_and_reuses_in_haste(pod: Pod) -> None:
    """In real time: the producer waits no longer than SETTLE, and the consumer comes too late or just in time."""
    writer = ArenaWriter(pod.arena, pod.table("hasty"), HoldTables(pod.folder))
    assert writer.grant(pod.grant(0))
    deadline = Deadline.after(1.5)
    sent = reclaimed = 0
    with running(_WATCH, pod) as child:
        while not deadline.passed:
            key = RequestKey(str(sent))
            tensor = octets(bytes([sent % 256]) * 1500)
            if (slot := writer.put(tensor, key, FOREVER)) is None:
                child.say("wait")
                assert child.hear() == "waited"
            else:
                sent += 1
                child.say(_hex(ref_to(tensor, slot, checked=False)))
                if sent % 2:
                    writer.release_request(key)
                    assert child.hear() in {"seen", "lost"}
                else:
                    assert child.hear() == "seen"
                    writer.release_request(key)
            reclaimed += writer.reclaim(time.monotonic())
        child.say("")
        seen, lost = map(int, child.hear().split())
    assert seen + lost == sent
    assert reclaimed > 40, "more than the extent has room for"
