"""What a caller has asked is held while it is sent, kept for another attempt, and let go when it must."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from omni_common.errors import OmniError, Reason
from omni_common.request import (
    Envelope,
    GenerationParams,
    GenerationRequest,
    Media,
    Message,
    Modality,
    RequestKey,
    Role,
    Text,
)
from omni_coordinator.content import Content, media_size
from omni_coordinator.core.admission import MediaBudget
from omni_coordinator.core.bindings import Replica

REQUEST = GenerationRequest(
    "solo", (Message(Role.USER, (Text("look at this"), Media(Modality.IMAGE, bytes(60)))),), GenerationParams()
)
ENVELOPE = Envelope(
    RequestKey("req_1"), "solo", "coord", 1.0, 0.0, {}, frozenset({"echo"}), REQUEST.params, output_credits=1
)


class Link:
    """A StageLink that takes what it is given, and sends it when the test says so."""

    replica = Replica(1, "solo", "echo", "r-0", "nowhere:1", "pod", 1)

    def __init__(self, failure: OmniError | None = None) -> None:
        self.sent: list[Callable[[], None]] = []
        self._failure = failure

    def dispatch(self, envelope: Envelope, request: GenerationRequest, media_sent: Callable[[], None]) -> None:
        assert request is REQUEST
        if self._failure is not None:
            media_sent()
            raise self._failure
        self.sent.append(media_sent)

    def grant(self, key: RequestKey, text: int, audio: int) -> None: ...

    def abort(self, key: RequestKey) -> None: ...

    def dismiss(self) -> None: ...

    def close(self) -> None: ...


def asked(budget: MediaBudget, *, keep: bool = True) -> Content:
    assert budget.try_take(media_size(REQUEST))
    return Content(REQUEST, budget, keep=keep)


def test_media_are_held_while_they_are_sent_and_kept_with_the_text_after_that() -> None:
    budget, link = MediaBudget(200), Link()
    content = asked(budget)
    for _ in range(2):
        content.send(link, ENVELOPE)
        assert (budget.held, budget.kept) == (60, 0)
        link.sent.pop()()
        assert (budget.held, budget.kept) == (0, 72)
    content.close()
    assert (budget.held, budget.kept, content.is_here) == (0, 0, False)


def test_media_that_two_attempts_send_are_held_once_and_until_both_have() -> None:
    budget, link = MediaBudget(200), Link()
    content = asked(budget)
    content.send(link, ENVELOPE)
    content.send(link, ENVELOPE)
    link.sent.pop()()
    assert (budget.held, budget.kept) == (60, 0)
    link.sent.pop()()
    assert (budget.held, budget.kept) == (0, 72)


def test_a_request_that_is_over_gives_its_media_back_when_they_have_left() -> None:
    budget, link = MediaBudget(200), Link()
    content = asked(budget)
    content.send(link, ENVELOPE)
    content.close()
    assert budget.held == 60
    link.sent.pop()()
    assert (budget.held, budget.kept) == (0, 0)


def test_what_gives_way_cannot_be_sent_again() -> None:
    budget, link = MediaBudget(100), Link()
    content = asked(budget)
    content.send(link, ENVELOPE)
    link.sent.pop()()
    assert budget.try_take(50)
    assert (budget.held, budget.kept, content.is_here) == (50, 0, False)
    with pytest.raises(RuntimeError, match="let go"):
        content.send(link, ENVELOPE)


def test_nothing_is_kept_where_there_is_one_attempt_only() -> None:
    budget, link = MediaBudget(100), Link()
    content = asked(budget, keep=False)
    content.send(link, ENVELOPE)
    link.sent.pop()()
    assert (budget.held, budget.kept, content.is_here) == (0, 0, False)


def test_what_can_never_be_sent_is_not_held() -> None:
    budget = MediaBudget(100)
    content = asked(budget)
    with pytest.raises(OmniError):
        content.send(Link(OmniError(Reason.REQUEST_TOO_LARGE, "Too large.")), ENVELOPE)
    content.close()
    assert (budget.held, budget.kept) == (0, 0)
