"""What the metrics say of an edge: how its tensors travel, and why so."""

from __future__ import annotations

from collections import Counter

from omni_common.telemetry import names
from omni_common.telemetry.names import Transport
from omni_common.transfer import Sent, Why

_Choice = tuple[str, str, str]


class EdgeTransports:
    """Which transports the edges of this process use for large tensors. The replicas of one stage may be in several
    pods, so that an edge has several at a time."""

    def __init__(self) -> None:
        self._links: Counter[_Choice] = Counter()

    def add(self, choice: _Choice) -> None:
        self._links[choice] += 1
        names.EDGE_TRANSPORT.labels(*choice).set(1)

    def remove(self, choice: _Choice) -> None:
        self._links[choice] -= 1
        if not self._links[choice]:
            del self._links[choice]
            names.EDGE_TRANSPORT.remove(*choice)


class EdgeMeter:
    """One link's part in the metrics of its edge. `name` is "from>to"."""

    def __init__(self, name: str, transports: EdgeTransports) -> None:
        self.name = name
        self._transports = transports
        self._choice: _Choice | None = None

    def sent(self, sent: Sent) -> None:
        names.EDGE_TRANSFERS.labels(self.name, sent.transport).inc()
        names.EDGE_BYTES.labels(self.name, sent.transport).inc(sent.length)
        if sent.why is not None:
            self._choose((self.name, sent.transport, sent.why))

    def pushed(self, transport: str, length: int, seconds: float) -> None:
        """The relays have moved a tensor; `transport` is theirs."""
        self.moved(transport, length, seconds, Why.OTHER_POD)

    def moved(self, transport: str, length: int, seconds: float, why: Why) -> None:
        """A tensor has come to the other end, so many seconds after it was handed over."""
        names.EDGE_TRANSFERS.labels(self.name, transport).inc()
        names.EDGE_BYTES.labels(self.name, transport).inc(length)
        names.EDGE_SECONDS.labels(self.name, transport).observe(seconds)
        self._choose((self.name, transport, why))

    def sent_again(self, length: int) -> None:
        """The better way has failed; the bytes follow beside the frames."""
        names.EDGE_RETRIES.labels(self.name, Transport.GRPC).inc()
        self.sent(Sent(Transport.GRPC, length, Why.FALLBACK))

    def waited(self, seconds: float) -> None:
        names.EDGE_WAIT_SECONDS.labels(self.name).observe(seconds)

    def close(self) -> None:
        self._choose(None)

    def _choose(self, choice: _Choice | None) -> None:
        if choice == self._choice:
            return
        before, self._choice = self._choice, choice
        if choice is not None:
            self._transports.add(choice)
        if before is not None:
            self._transports.remove(before)
