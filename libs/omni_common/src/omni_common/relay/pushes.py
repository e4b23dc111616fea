"""The pushes that a process has asked its relay for and that have not ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from omni_common.errors import OmniError, Reason


@dataclass(frozen=True, slots=True)
class PushResult:
    """How a push ended: `error` is None when the consumer has the tensor, `transport` as metrics name it. Not `quiet`:
    the line was lost, and a relay that lives on without it may still read the slot."""

    error: OmniError | None
    transport: str = ""
    quiet: bool = True


Ended = Callable[[PushResult], None]


@dataclass(frozen=True, slots=True)
class _Push:
    ended: Ended
    overdue: float


class PushesUnderWay:
    """By their numbers. Each ends once."""

    def __init__(self) -> None:
        self._pushes: dict[int, _Push] = {}

    def __contains__(self, number: int) -> bool:
        return number in self._pushes

    def begin(self, number: int, ended: Ended, *, overdue: float) -> None:
        """At `overdue` it ought to have ended."""
        self._pushes[number] = _Push(ended, overdue)

    def end(self, number: int, result: PushResult) -> None:
        push = self._pushes.pop(number, None)
        if push is not None:
            push.ended(result)

    def refuse(self, number: int) -> None:
        """There is no relay just now, and none has heard of it."""
        self.end(number, PushResult(_relay_gone()))

    def lose(self) -> None:
        """The line is lost, and all of them with it."""
        for number in list(self._pushes):
            self.end(number, PushResult(_relay_gone(), quiet=False))

    def any_overdue(self, now: float) -> bool:
        return any(push.overdue < now for push in self._pushes.values())


def _relay_gone() -> OmniError:
    return OmniError(Reason.STAGE_UNAVAILABLE, "The relay of this pod cannot be reached.")
