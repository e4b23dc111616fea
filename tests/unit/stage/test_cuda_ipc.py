"""Tensors on a GPU, lent from process to process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.unit.stage.ipc_process import from_line, to_line

from omni_stage.components.cuda_ipc import CannotShare, IpcHandle, Shares, count_down, open_shared, realm
from omni_stage.components.device_memory import TorchMemory

HANDLE = IpcHandle("GPU-of-another-machine", b"m" * 64, 512, 4096, 64, 128, b"", b"/torch_1", 3)
MANY = 1 << 22


class Consumer:
    def __init__(self) -> None:
        script = Path(__file__).with_name("ipc_process.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.hear("ready")

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)

    def hear(self, line: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == line

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def consumer() -> Iterator[Consumer]:
    consumer = Consumer()
    yield consumer
    consumer.end()


def _slow() -> torch.Tensor:
    """Numbers that the GPU takes a while to make, after this has returned."""
    torch.cuda._sleep(200_000_000)  # type: ignore[no-untyped-call]  # cycles: about 0.1 s
    return torch.arange(MANY, dtype=torch.int32, device="cuda")


def test_a_handle_is_plain_fields() -> None:
    assert from_line(to_line(HANDLE)) == HANDLE


def test_what_lies_on_no_gpu_is_not_lent() -> None:
    shares = Shares()
    with pytest.raises(CannotShare, match="lies on no GPU"):
        shares.share(1, TorchMemory(torch.zeros(4)))
    assert (len(shares), shares.release(1), shares.lose(1)) == (0, False, False)


def test_what_is_another_processs_is_not_lent_on() -> None:
    with pytest.raises(CannotShare, match="another process's"):
        Shares().share(1, TorchMemory(torch.zeros(4), foreign=True))


@pytest.mark.parametrize("device", ["GPU-of-another-machine", "cpu"])
def test_a_gpu_that_is_not_seen_here_is_refused(device: str) -> None:
    with pytest.raises(CannotShare, match="does not see"):
        open_shared(replace(HANDLE, device=device), lambda: None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_a_process_shares_a_realm_with_nobody() -> None:
    assert realm() == ""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
class TestOnAGpu:
    def test_a_tensor_is_seen_by_another_process_when_it_is_made_and_given_back(self, consumer: Consumer) -> None:
        shares = Shares()
        consumer.say(to_line(shares.share(1, TorchMemory(_slow()))))
        consumer.hear("again refused")
        consumer.hear(f"sum {MANY * (MANY - 1) // 2}")
        consumer.say("drop it")
        consumer.hear("released")
        assert (shares.release(1), shares.release(1), len(shares)) == (True, False, 0)

    def test_a_part_of_a_tensor_is_found_in_its_place(self, consumer: Consumer) -> None:
        shares = Shares()
        consumer.say(to_line(shares.share(1, TorchMemory(_slow()[1000:3000]))))
        consumer.hear("again refused")
        consumer.hear(f"sum {sum(range(1000, 3000))}")

    def test_memory_comes_back_from_a_consumer_that_was_killed(self, consumer: Consumer) -> None:
        shares = Shares()
        before = torch.cuda.memory_allocated()
        consumer.say(to_line(shares.share(1, TorchMemory(_slow()))))
        consumer.hear("again refused")
        consumer.hear(f"sum {MANY * (MANY - 1) // 2}")
        consumer.end()
        assert shares.lose(1)
        torch.cuda.ipc_collect()  # type: ignore[no-untyped-call]
        assert torch.cuda.memory_allocated() == before

    def test_memory_comes_back_from_a_consumer_that_never_opened_it(self) -> None:
        shares = Shares()
        before = torch.cuda.memory_allocated()
        count_down(shares.share(1, TorchMemory(_slow())))
        assert shares.release(1)
        torch.cuda.ipc_collect()  # type: ignore[no-untyped-call]
        assert torch.cuda.memory_allocated() == before

    def test_a_handle_that_reaches_beyond_its_storage_is_refused(self) -> None:
        shares = Shares()
        handle = shares.share(1, TorchMemory(_slow()))
        with pytest.raises(CannotShare, match="does not lie within"):
            open_shared(replace(handle, start=handle.size - handle.length + 1), lambda: None)

    def test_processes_of_one_pod_share_a_realm(self) -> None:
        script = "from omni_stage.components.cuda_ipc import realm; print(realm())"
        theirs = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert theirs.stdout.strip() == realm() != ""
