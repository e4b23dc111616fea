"""What the relay counts of its transfers. What is counted of each is looked up once: prometheus_client takes longer to
find a series by its labels than to count."""

from __future__ import annotations

from functools import cache

from prometheus_client import Counter, Histogram

from omni_common.errors import OmniError
from omni_common.telemetry import names
from omni_common.telemetry.names import COMPLETED, Transport, outcome_of

OUT, IN = "out", "in"


def count(edge: str, direction: str, transport: Transport, length: int, error: OmniError | None) -> None:
    """One transfer that ended. `edge` is "" at the receiving relay, which is not told of it."""
    if error is None:
        transfers, moved = _completed(edge, direction, transport)
        transfers.inc()
        moved.inc(length)
    else:
        names.RELAY_TRANSFERS.labels(edge, direction, transport, outcome_of(error.reason)).inc()


# Sessions bound the number of edges, so these are bounded, too.


@cache
def waited(edge: str) -> Histogram:
    return names.RELAY_WAIT_SECONDS.labels(edge)


@cache
def took(edge: str, transport: Transport) -> Histogram:
    return names.RELAY_SECONDS.labels(edge, transport)


@cache
def _completed(edge: str, direction: str, transport: Transport) -> tuple[Counter, Counter]:
    transfers = names.RELAY_TRANSFERS.labels(edge, direction, transport, COMPLETED)
    return transfers, names.RELAY_BYTES.labels(edge, direction, transport)
