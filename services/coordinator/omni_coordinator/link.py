"""The way to a stage replica, as the rest of the coordinator sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from omni_common.request import Envelope, GenerationRequest, RequestKey
from omni_coordinator.core.bindings import Replica


class StageLink(Protocol):
    """The way to one attached replica. Nothing here waits: a replica that takes nothing is detached."""

    replica: Replica

    def dispatch(self, envelope: Envelope, request: GenerationRequest, media_sent: Callable[[], None]) -> None:
        """Begins the request there; `media_sent` is called once, when its media are no longer held here.

        Raises OmniError when the request can never be sent; `media_sent` is called then as well."""

    def grant(self, key: RequestKey, text: int, audio: int) -> None: ...

    def abort(self, key: RequestKey) -> None: ...

    def dismiss(self) -> None:
        """Tells the replica, which is draining, that no request here needs it any more."""

    def close(self) -> None:
        """Ends the replica's session."""
