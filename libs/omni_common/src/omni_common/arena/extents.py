"""An extent: a stretch of an arena that one producer allocates in, alone, while its grant stands."""

from __future__ import annotations

from dataclasses import dataclass

from omni.relay.v1 import pod_pb2
from omni_common.arena.layout import ALIGNMENT, EXTENTS, MAX_EXTENTS


@dataclass(frozen=True, slots=True)
class Extent:
    """`index` is its place in the arena's table, `epoch` the secret of this grant, never 0; the rest is in bytes."""

    index: int
    epoch: int
    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size


def render_extent(extent: Extent) -> pod_pb2.Extent:
    return pod_pb2.Extent(index=extent.index, epoch=extent.epoch, offset=extent.offset, size=extent.size)


def parse_extent(message: pod_pb2.Extent) -> Extent:
    """Raises ValueError for what no arena could hold; only the arena itself knows whether the grant stands."""
    extent = Extent(message.index, message.epoch, message.offset, message.size)
    if extent.index >= MAX_EXTENTS or extent.epoch == 0:
        raise ValueError(f"no grant stands at place {extent.index} of an arena's table under epoch {extent.epoch:x}")
    if extent.offset < EXTENTS or extent.offset % ALIGNMENT or extent.size % ALIGNMENT or extent.size == 0:
        raise ValueError(f"no extent of an arena has {extent.size} bytes at {extent.offset}")
    return extent
