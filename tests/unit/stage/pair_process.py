"""A process that offers tensors to be fetched, over gloo in the place of NCCL. Run by test_pair.py.

    pair_process.py FOLDER OWNER TIMEOUT

Reads lines "number length number length ...": each is offered, filled with bytes made of its number, and "offered"
answers. A tensor of HANGING bytes is announced and never sent; "hanging" says when.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import torch

from omni_common.deadline import Deadline
from omni_stage.components.device_memory import TorchMemory
from omni_stage.components.pair_group import GlooGroup
from omni_stage.components.pair_sender import PairSender

HANGING = 12_345


def made_of(number: int, length: int) -> torch.Tensor:
    return (torch.arange(length) + number).to(torch.uint8)


class Hanging(GlooGroup):
    def send(self, memory: TorchMemory, deadline: Deadline) -> None:
        if memory.nbytes == HANGING:
            print("hanging", flush=True)
            threading.Event().wait()
        super().send(memory, deadline)


def main() -> None:
    torch.set_num_threads(1)  # more of them would spin against each other
    folder, owner, timeout = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    sender = PairSender(folder, owner, Hanging, timeout=timeout)
    print("ready", flush=True)
    for line in sys.stdin:
        words = [int(word) for word in line.split()]
        for number, length in zip(words[::2], words[1::2], strict=True):
            sender.offer(number, TorchMemory(made_of(number, length)), lambda: None)
        print("offered", flush=True)


if __name__ == "__main__":
    main()
