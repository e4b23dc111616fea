"""Which way a tensor takes that lies on a device, when its receiver is in the same pod."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class DeviceWay(Enum):
    SHARED = auto()
    """The receiver looks at it where it is: CUDA IPC."""
    PAIR = auto()
    """From one GPU to another: NCCL."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What a process can get at: `device` is the GPU that it computes on. Processes of one `realm`, if it is not empty,
    can open each other's memory there; `pairs` can meet in a communicator."""

    device: str
    realm: str
    pairs: bool


def way_between(device: str, here: Reach, there: Reach) -> DeviceWay | None:
    """For a tensor on `device`; None for the ways that go through the host."""
    if device != here.device or not there.device:
        return None
    if device == there.device:
        return DeviceWay.SHARED if here.realm and here.realm == there.realm else None
    return DeviceWay.PAIR if here.pairs and there.pairs else None
