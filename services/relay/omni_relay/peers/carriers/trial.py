"""Whose failure it was: the carrier's or the peer's."""

from __future__ import annotations

from omni_relay.peers.carriers.carrier import CarrierFailed
from omni_relay.wire.record import ChannelLost


class Trial:
    """A carrier that has never brought a piece to this peer does not work between the two: a port that is closed, a
    network without a way. One that has did work: the peer is lost, and the next connection may try it again."""

    def __init__(self) -> None:
        self._passed = False

    def passed(self) -> None:
        """A piece has crossed."""
        self._passed = True

    def failure(self, why: str) -> CarrierFailed | ChannelLost:
        """What to raise; `why` is a sentence without its end."""
        return ChannelLost(f"{why}.") if self._passed else CarrierFailed(f"does not work: {why}")
