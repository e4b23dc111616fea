"""Pairs over NCCL, between two GPUs of one process; test_pair.py has their life, over gloo."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from tests.unit.stage.pair_process import made_of
from tests.unit.stage.test_pair import OWNER, Wishes

from omni_stage.components.device_memory import TorchMemory
from omni_stage.components.pair_group import NcclGroup, nccl_is_missing
from omni_stage.components.pair_receiver import PairReceiver
from omni_stage.components.pair_sender import PairSender

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(nccl_is_missing() is not None, reason=f"{nccl_is_missing()}"),
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="NCCL takes two GPUs"),
]

TIMEOUT = 20.0


def test_tensors_come_from_gpu_to_gpu_and_fail_when_their_sender_ends(tmp_path: Path) -> None:
    sender = PairSender(tmp_path, OWNER, NcclGroup, prepare=partial(torch.cuda.set_device, 0), timeout=TIMEOUT)
    receiver = PairReceiver(tmp_path, OWNER, NcclGroup, prepare=partial(torch.cuda.set_device, 1), timeout=TIMEOUT)
    wishes = Wishes(receiver)
    lengths = {number: 1 + number * 100_000 for number in range(20)}
    for number, length in lengths.items():
        sender.offer(number, TorchMemory(made_of(number, length).to("cuda:0")), lambda: None)
        wishes.fetch(number, length)
    for number, length in lengths.items():
        came, memory = wishes.next()
        assert isinstance(memory, TorchMemory), memory
        assert (came, memory.tensor().device) == (number, torch.device("cuda:1"))
        assert torch.equal(memory.tensor().cpu(), made_of(number, length))
    sender.close()
    wishes.fetch(99, 1)
    wishes.failure()
    receiver.close()
