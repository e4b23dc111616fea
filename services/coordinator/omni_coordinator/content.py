"""What a caller has asked, for as long as it may have to be sent to an entry stage."""

from __future__ import annotations

from omni_common.request import Envelope, GenerationRequest, Media, Text
from omni_coordinator.core.admission import MediaBudget
from omni_coordinator.link import StageLink


class Content:
    """One request's messages and media. Its media count against the budget while they are sent; all of it counts as
    kept after that, until it is let go or the request is over."""

    def __init__(self, request: GenerationRequest, budget: MediaBudget, *, keep: bool) -> None:
        """Its media are taken from the budget."""
        self._request: GenerationRequest | None = request
        self._budget = budget
        self._keep = keep
        self._media = media_size(request)
        self._sending = 0
        self._is_taken = True

    @property
    def is_here(self) -> bool:
        """Whether it can be sent, again."""
        return self._request is not None

    def send(self, link: StageLink, envelope: Envelope) -> None:
        """Raises OmniError as the link does."""
        if self._request is None:
            raise RuntimeError("the request was let go")
        self._budget.drop(self)
        if not self._is_taken:
            self._budget.held += self._media  # no more than it has just given up
            self._is_taken = True
        self._sending += 1
        link.dispatch(envelope, self._request, self._sent)

    def close(self) -> None:
        """The request is over."""
        self._request, self._keep = None, False
        self._budget.drop(self)

    def _sent(self) -> None:
        self._sending -= 1
        if self._sending:
            return
        self._budget.give_back(self._media)
        self._is_taken = False
        if self._keep and self._request is not None:
            self._budget.keep(self, self._media + _text_size(self._request), self._let_go)
        else:
            self._let_go()

    def _let_go(self) -> None:
        self._request = None


def media_size(request: GenerationRequest) -> int:
    return sum(len(part.data) for message in request.messages for part in message.parts if isinstance(part, Media))


def _text_size(request: GenerationRequest) -> int:
    """About as many bytes as it takes."""
    return sum(len(part.text) for message in request.messages for part in message.parts if isinstance(part, Text))
