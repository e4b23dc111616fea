"""What a stage sends over an edge, before it is known how it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from omni.common.v1.payload_pb2 import Payload
from omni.stage.v1 import stage_pb2
from omni_common.errors import OmniError
from omni_common.request import Envelope, RequestKey
from omni_stage.stage import Stage, Upstream


class Sender(Protocol):
    """Who hears what the downstream replicas answer, and what becomes of what was sent: the stage."""

    def grant(self, key: RequestKey, target: str, chunks: int) -> None: ...
    def fail(self, key: RequestKey, error: OmniError) -> None: ...
    def delivered(self, key: RequestKey) -> None: ...
    def lost(self, key: RequestKey, error: OmniError) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Departure:
    """An event to be sent. `since` is when the stage wanted it sent.

    To another process, `render` makes it of the payload that `value`, in a 1-tuple, is encoded as; without a value, of
    an empty one. To a stage of this process, `hand_over` gives it the value itself, and who is paid for it.
    """

    envelope: Envelope
    since: float
    render: Callable[[Payload], stage_pb2.DeliverEvent]
    hand_over: Callable[[Stage, Upstream], None]
    value: tuple[object] | None = None

    @property
    def key(self) -> RequestKey:
        return self.envelope.key
