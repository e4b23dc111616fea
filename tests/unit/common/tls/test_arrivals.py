"""Connections that come to no call."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.unit.common.tls.echo import counted

from omni_common.rpc.door import PROOF, Arrivals
from omni_common.rpc.tls_refusal import SENTENCES, TlsRefusal


class Hands:
    """An event loop whose time a test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, Callable[[int], None], int]] = []

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        callback()

    def call_later(self, delay: float, callback: Callable[[int], None], begun: int) -> None:
        self._due.append((self.now + delay, callback, begun))

    def move(self, seconds: float) -> None:
        self.now += seconds
        for due, callback, begun in [one for one in self._due if one[0] <= self.now]:
            self._due.remove((due, callback, begun))
            callback(begun)


def test_connections_that_come_to_no_call_are_counted_and_those_that_do_are_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hands, before = Hands(), counted(TlsRefusal.UNPROVEN)
    arrivals = Arrivals(hands, clock=lambda: hands.now)
    for peer in ("ipv4:10.0.0.1:1", None, "ipv4:10.0.0.1:2", None):
        arrivals.began()
        if peer is not None:
            arrivals.proven(peer)
            arrivals.proven(peer)
    hands.move(PROOF - 1)
    assert counted(TlsRefusal.UNPROVEN) == before
    hands.move(1)
    assert counted(TlsRefusal.UNPROVEN) == before + 2
    arrivals.began()
    hands.move(PROOF)
    assert counted(TlsRefusal.UNPROVEN) == before + 3
    assert [record.message for record in caplog.records] == [SENTENCES[TlsRefusal.UNPROVEN]]
