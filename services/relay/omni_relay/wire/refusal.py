"""Why two relays do not come together."""

from __future__ import annotations

from enum import StrEnum

from omni_relay.wire.record import ChannelLost


class Refusal(StrEnum):
    """Why no connection came to be; a label of metrics."""

    UNREACHABLE = "unreachable"
    LOST = "lost"
    DEADLINE = "deadline"
    PROTOCOL = "protocol"
    MODE = "mode"
    CERTIFICATE = "certificate"
    PROOF = "proof"
    FULL = "full"


class HandshakeFailed(ChannelLost):
    """No connection came to be; its socket is closed."""

    def __init__(self, refusal: Refusal, message: str) -> None:
        super().__init__(message)
        self.refusal = refusal
