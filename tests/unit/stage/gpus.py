"""Processes with a GPU, where there is none: gloo stands in for NCCL, and files for memory that two processes open.

What is between those two and the model is the very code that runs on GPUs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch

from omni_common.tensor import DType, Tensor
from omni_stage.components.cuda_ipc import CannotShare, IpcHandle, Shares
from omni_stage.components.device_memory import TorchMemory
from omni_stage.components.device_side import GpuSide, Ipc, Pairs
from omni_stage.components.pair_group import GlooGroup, MakeGroup

HERE, THERE = "GPU-here", "GPU-there"
REALM = "realm"


class OnGpu(TorchMemory):
    """A tensor of the CPU that says it is on a GPU."""

    def __init__(self, dense: torch.Tensor, gpu: str = HERE, *, foreign: bool = False) -> None:
        super().__init__(dense, foreign=foreign)
        self._gpu = gpu

    @property
    def device(self) -> str:
        return self._gpu


def on_gpu(data: bytes, gpu: str = HERE) -> Tensor:
    return Tensor(DType.UINT8, (len(data),), OnGpu(torch.frombuffer(bytearray(data), dtype=torch.uint8), gpu))


class Files:
    """The driver's part in CUDA IPC: a file is memory that somebody has open, or may open yet."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._numbers = count()

    def ipc(self, realm: str = REALM) -> Ipc:
        return Ipc(realm, Shares(self.share, self.count_down), self.open, self.count_down)

    @property
    def counted(self) -> int:
        return len(list(self._folder.iterdir()))

    def share(self, memory: TorchMemory) -> IpcHandle:
        if memory.foreign:
            raise CannotShare("is another process's")
        file = self._folder / f"{id(self):x}-{next(self._numbers)}"
        file.write_bytes(memory.host())
        return IpcHandle(memory.device, bytes(file), 0, memory.nbytes, 0, memory.nbytes, b"", b"", 0)

    def open(self, handle: IpcHandle, released: Callable[[], None]) -> TorchMemory:
        try:
            data = bytearray(Path(handle.memory.decode()).read_bytes())
        except OSError as error:
            raise CannotShare("cannot be opened here") from error
        flat = torch.frombuffer(data, dtype=torch.uint8)

        def gone() -> None:
            self.count_down(handle)
            released()

        weakref.finalize(flat.untyped_storage(), gone).atexit = False
        return OnGpu(flat, handle.device, foreign=True)

    def count_down(self, handle: IpcHandle) -> None:
        Path(handle.memory.decode()).unlink(missing_ok=True)


def gpu_side(
    folder: Path, owner: int, gpu: str = HERE, *, make: MakeGroup = GlooGroup, realm: str = REALM
) -> tuple[GpuSide, Files]:
    """A process's, in the pod of that folder."""
    files = Files(folder / "gpu")
    return GpuSide(gpu, files.ipc(realm), Pairs(folder, owner, make)), files
