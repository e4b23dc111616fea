"""A stage's tensors on its GPU, for those of its pod that can get at them there: what the stage needs of whoever knows
GPUs. Without one, nothing of it is there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from omni.common.v1.tensor_pb2 import DataRef, DeviceSlot
from omni_common.deadline import Deadline
from omni_common.tensor import DeviceMemory
from omni_stage.core.device_way import DeviceWay, Reach


class Catcher(Protocol):
    """How tensors come from one process. Its calls back are from threads of its own, and must not block."""

    def fetch(
        self,
        ref: DataRef,
        deadline: Deadline,
        ended: Callable[[DeviceMemory | None], None],
        released: Callable[[], None],
    ) -> None:
        """`ended` gets the tensor, or None when it cannot be had. `released` is called when nobody looks any more at
        what was opened; not for what was fetched, which is this process's own."""

    def cancel(self, number: int) -> None:
        """Nobody wants it any more; `ended` is called all the same."""

    def decline(self, slot: DeviceSlot) -> None:
        """Nobody wanted it ever."""

    def close(self) -> None:
        """Ends after what has been asked for."""


class DeviceSide(Protocol):
    """A process that computes on a GPU."""

    @property
    def reach(self) -> Reach: ...

    def lend(self, way: DeviceWay, number: int, memory: DeviceMemory, slot: DeviceSlot) -> bool:
        """Has one other process get at it until it is taken back; `slot` says how. False: not this tensor."""

    def take_back(self, way: DeviceWay, number: int) -> None:
        """The other process has said that it has done with it, or that it never got at it."""

    def lose(self, way: DeviceWay, number: int) -> None:
        """The other process is gone, or never heard of it."""

    def catcher(self, owner: int) -> Catcher:
        """For what comes from the process of that name."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process is: the device that was asked for in its settings, the pod's shared folder, and its own name
    there, as in transfers."""

    device: str
    folder: Path
    owner: int


OpenSide = Callable[[Place], DeviceSide | None]


def open_side(place: Place) -> DeviceSide | None:
    """Once the model is loaded. None where it uses no GPU."""
    if "torch" not in sys.modules:  # a model without torch has no use for it, and its image does not have it
        return None
    from omni_stage.components.device_side import open_gpu

    return open_gpu(place)


@dataclass(slots=True)
class Devices:
    """This process's side, once there is one."""

    side: DeviceSide | None = None
