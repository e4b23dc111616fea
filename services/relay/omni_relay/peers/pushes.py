"""The pushes of one connection and whom to tell of their ends: `core.sending` with its world."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from omni_common.clock import Clock
from omni_common.errors import Internal, OmniError, Overloaded, Reason
from omni_common.telemetry.names import Transport
from omni_relay.core.sending import Sending
from omni_relay.peers import meters
from omni_relay.ports import PushOrder, PushResult, Transfer

logger = logging.getLogger(__name__)

Ended = Callable[[PushResult], None]

# Pushes to one relay that may be under way or wait: each holds a slot of the pod's arena, so more of them mean that
# very small tensors come here.
MAX_PUSHES = 1 << 14


@dataclass(slots=True)
class Asked:
    """One push, and when what happened to it, in seconds on the clock; 0 for what has not."""

    order: PushOrder
    ended: Ended
    asked: float
    placed: float = 0.0
    sent: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """To be told outside of the lock."""

    push: Asked
    error: OmniError | None

    def tell(self, transport: Transport, now: float) -> None:
        order = self.push.order
        self.push.ended(PushResult(self.error, transport))
        meters.count(order.edge, meters.OUT, transport, len(order.data), self.error)
        if self.error is None:
            meters.took(order.edge, transport).observe(now - self.push.asked)
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug("pushed", extra=self._profile(transport, now))
        elif self.error.reason is not Reason.CANCELLED:
            logger.info("a push failed", extra={**self._which(), "reason": self.error.reason.lower()})

    def _which(self) -> dict[str, object]:
        """By which the lines of both relays, and of the request, are found from each other."""
        order = self.push.order
        request = {"request_id": order.key.request_id, "attempt": order.key.attempt}
        return {**request, "edge": order.edge, "source": order.transfer.source, "number": order.transfer.number}

    def _profile(self, transport: Transport, now: float) -> dict[str, object]:
        push = self.push
        about = {"length": len(push.order.data), "transport": transport}
        return {**self._which(), **about, "asked": push.asked, "placed": push.placed, "sent": push.sent, "ended": now}


class Pushes:
    """Every method is called under the lock of its outbound; verdicts are told outside of it."""

    def __init__(self, clock: Clock) -> None:
        self.sending = Sending()
        self._clock = clock
        self._asked: dict[int, Asked] = {}
        self._names: dict[Transfer, int] = {}
        self._refused: list[Verdict] = []
        self._count = 0

    def __getitem__(self, push: int) -> Asked:
        return self._asked[push]

    def add(self, order: PushOrder, ended: Ended) -> None:
        now = self._clock()
        if order.transfer in self._names:
            self.refuse(order, ended, Internal("A tensor was pushed twice."))
        elif self.sending.live >= MAX_PUSHES:
            self.refuse(order, ended, Overloaded("Too many tensors are on their way to another pod."))
        else:
            self._count += 1
            self._asked[self._count] = Asked(order, ended, now)
            self._names[order.transfer] = self._count
            self.sending.submit(self._count, order.key, len(order.data), deadline=order.deadline, now=now)

    def refuse(self, order: PushOrder, ended: Ended, error: OmniError) -> None:
        """Ends a push that is not even tried."""
        self._refused.append(Verdict(Asked(order, ended, self._clock()), error))

    def cancel(self, transfer: Transfer) -> None:
        """Unknown ones are ignored."""
        if (push := self._names.get(transfer)) is not None:
            self.sending.cancel(push)

    def verdicts(self) -> list[Verdict]:
        """Those that have ended since the last call."""
        ended, self._refused = self._refused, []
        for name, error in self.sending.take_ended():
            push = self._asked.pop(name)
            del self._names[push.order.transfer]
            ended.append(Verdict(push, error))
        return ended
