"""Tensors of torch where they lie, as `omni_common.tensor.DeviceMemory` shows them."""

from __future__ import annotations

import threading
from functools import cache

import torch

from omni_common.telemetry import names
from omni_stage.components import pinned


class TorchMemory:
    """A dense tensor on its device, from any thread.

    Whoever made it does not write to it any more: it is read for as long as this object lives, by other streams and
    perhaps other processes. `foreign`: the memory is another process's.
    """

    def __init__(self, dense: torch.Tensor, *, foreign: bool = False) -> None:
        """The tensor is made once all that is on the current stream has been done."""
        self.foreign = foreign
        self._tensor = dense
        self._stream = torch.cuda.current_stream(dense.device) if dense.device.type == "cuda" else None
        self._made = None if self._stream is None else self._stream.record_event()
        self._host: memoryview | None = None
        self._copying = threading.Lock()

    @property
    def device(self) -> str:
        return name_of(self._tensor.device)

    @property
    def nbytes(self) -> int:
        return self._tensor.nbytes

    def tensor(self) -> torch.Tensor:
        """It, for the current stream: what is launched there from now on finds it made, and its memory is not used for
        anything else before that is done. To be read only."""
        if self._stream is not None and self._made is not None:
            current = torch.cuda.current_stream(self._tensor.device)
            if current != self._stream:
                current.wait_event(self._made)
                self._tensor.record_stream(current)
        return self._tensor

    def host(self) -> memoryview:
        with self._copying:
            if self._host is None:
                names.TENSOR_COPIES.labels("device").inc()
                data = memoryview(bytearray(self.nbytes))
                self.copy_to(data)
                self._host = data.toreadonly()
            return self._host

    def copy_to(self, into: memoryview) -> None:
        pinned.download(bytes_of(self._tensor), into, self._made)


def bytes_of(dense: torch.Tensor) -> torch.Tensor:
    """The same memory in one dimension, as uint8."""
    return dense.reshape(-1).view(torch.uint8)


@cache
def name_of(device: torch.device) -> str:
    """What the device is called in every process."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}" if device.type == "cuda" else device.type


def device_of(name: str) -> torch.device | None:
    """The device of that name, if this process sees it."""
    seen = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return next((device for device in [*seen, torch.device("cpu")] if name_of(device) == name), None)
