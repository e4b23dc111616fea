"""Who is who in the mesh."""

from __future__ import annotations

from enum import StrEnum


class Component(StrEnum):
    """A kind of service, by the DNS name in its certificate."""

    GATEWAY = "omni-gateway"
    COORDINATOR = "omni-coordinator"
    STAGE = "omni-stage"
    RELAY = "omni-relay"
