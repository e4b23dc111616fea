"""The ways that tensors can take from stage to stage, and how a mesh is made to take one of them for every hop."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from omni_common.pipeline import PipelineConfig
from omni_common.telemetry.names import Transport
from omni_relay.peers.carriers.usable import why_not

_USED = re.compile(r'^omni_edge_transfers_total{edge="([^"]+)",transport="([^"]+)"} (\S+)$', re.M)


@dataclass(frozen=True, slots=True)
class Hop:
    """`transport` is the only one that any edge may use; None: as `omni up` has it by itself. `share`: what all stages
    share, or nothing."""

    name: str
    transport: Transport | None = None
    share: Literal["", "pod", "process"] = ""
    wishes: Mapping[str, Any] = field(default_factory=dict)
    carrier: str = ""

    def wishes_for(self, pipeline: PipelineConfig) -> Mapping[str, Any]:
        if self.transport is None:
            return {}
        everything = ([stage.name for stage in pipeline.stages],)
        placed: Mapping[str, Mapping[str, Any]] = {
            "": {"apart": True},
            "pod": {"colocate": everything},
            "process": {"together": everything},
        }
        return {**placed[self.share], **self.wishes}

    @property
    def missing(self) -> str | None:
        """Why it cannot be used here."""
        if not self.carrier:
            return None
        why = why_not(self.carrier)
        return why and f"{why} (`make relay-extras` installs it)"

    @contextmanager
    def forced(self) -> Iterator[None]:
        """While the mesh starts: not even a small tensor rides inside a frame."""
        with pytest.MonkeyPatch.context() as patch:
            if self.transport is not None:
                patch.setenv("OMNI_STAGE_INLINE_LIMIT", "0")
            yield


HOPS = (
    Hop("ordinary"),
    Hop("object", Transport.OBJECT, share="process"),
    Hop("arena", Transport.ARENA, share="pod"),
    Hop("tcp", Transport.TCP, wishes={"transports": ("tcp",)}),
    Hop("tls", Transport.TLS, wishes={"encryption": "tls"}),
    Hop("aead", Transport.AEAD, wishes={"encryption": "aead"}),
    Hop("ucx", Transport.UCX, wishes={"transports": ("ucx",)}, carrier="ucx"),
    Hop("nixl", Transport.NIXL, wishes={"transports": ("nixl",)}, carrier="nixl"),
)


def transports_used(page: str) -> dict[str, set[str]]:
    """By edge, from a stage's page for Prometheus."""
    used: dict[str, set[str]] = {}
    for edge, transport, count in _USED.findall(page):
        if float(count):
            used.setdefault(edge, set()).add(transport)
    return used
