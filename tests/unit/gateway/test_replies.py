"""Failures as callers see them: the table of reasons decides, this only renders it."""

from __future__ import annotations

from datetime import timedelta

import orjson
import pytest

from omni_common.errors import SURFACE, OmniError, Reason
from omni_gateway.replies import error_reply, json_path


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_reply_of_openais_form(reason: Reason) -> None:
    reply = error_reply(OmniError(reason, "It broke.", param="messages[0]"))
    surface = SURFACE[reason]
    assert reply.status_code == (surface.http or 499)
    assert orjson.loads(bytes(reply.body)) == {
        "error": {"message": "It broke.", "type": surface.type, "param": "messages[0]", "code": surface.code}
    }
    assert reply.headers["x-should-retry"] == str(surface.retry).lower()
    assert ("retry-after" in reply.headers) == surface.retry


@pytest.mark.parametrize(
    ("given", "seconds", "milliseconds"),
    [
        (None, "1", "1000"),
        (timedelta(0), "1", "1"),
        (timedelta(milliseconds=2500), "3", "2500"),
        (timedelta(hours=1), "120", "120000"),
    ],
)
def test_the_wait_is_one_that_the_official_clients_obey(
    given: timedelta | None, seconds: str, milliseconds: str
) -> None:
    headers = error_reply(OmniError(Reason.OVERLOADED, "Full.", retry_after=given)).headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == (seconds, milliseconds)


def test_a_path_leaves_out_the_members_of_unions() -> None:
    assert json_path(("messages", 0, "<user>", "content", "<other>", 1, "<image_url>", "image_url", "url")) == (
        "messages[0].content[1].image_url.url"
    )


def test_a_path_of_the_callers_making_is_cut() -> None:
    assert len(json_path(("metadata", "k" * 10_000))) == 256
