"""What the relay counts of its transfers."""

from __future__ import annotations

from dataclasses import dataclass

from omni_common.errors import OmniError
from omni_common.telemetry import names
from omni_common.telemetry.names import Transport, outcome_of

OUT, IN = "out", "in"


@dataclass(frozen=True, slots=True)
class Moved:
    """One transfer that ended. `edge` is "" at the receiving relay, which is not told of it."""

    edge: str
    direction: str
    transport: Transport
    length: int
    error: OmniError | None

    def count(self) -> None:
        outcome = outcome_of(None if self.error is None else self.error.reason)
        names.RELAY_TRANSFERS.labels(self.edge, self.direction, self.transport, outcome).inc()
        if self.error is None:
            names.RELAY_BYTES.labels(self.edge, self.direction, self.transport).inc(self.length)
