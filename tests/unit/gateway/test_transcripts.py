"""What was said is remembered for a while, in bounded room."""

from __future__ import annotations

from omni_common.testing.clock import ManualClock
from omni_gateway.chat.transcripts import Transcripts


def test_a_transcript_is_found_until_it_expires() -> None:
    clock = ManualClock(5)
    transcripts = Transcripts(clock=clock, lifetime=10)
    transcripts.put("a", "hello")
    clock.advance(9.9)
    assert transcripts.get("a") == "hello"
    clock.advance(0.1)
    assert transcripts.get("a") is None


def test_an_unknown_id_is_not_found() -> None:
    assert Transcripts(clock=ManualClock(), lifetime=10).get("a") is None


def test_a_full_store_forgets_its_oldest() -> None:
    transcripts = Transcripts(clock=ManualClock(), lifetime=10, max_entries=2)
    for name in "abc":
        transcripts.put(name, name)
    assert [transcripts.get(name) for name in "abc"] == [None, "b", "c"]


def test_long_transcripts_count_for_what_they_are() -> None:
    transcripts = Transcripts(clock=ManualClock(), lifetime=10, max_chars=10)
    transcripts.put("a", "x" * 6)
    transcripts.put("b", "x" * 6)
    assert transcripts.get("a") is None
    assert transcripts.get("b") == "x" * 6
    transcripts.put("c", "x" * 11)
    assert transcripts.get("c") is None


def test_what_has_expired_makes_room_by_itself() -> None:
    clock = ManualClock()
    transcripts = Transcripts(clock=clock, lifetime=10, max_chars=10)
    transcripts.put("a", "x" * 10)
    clock.advance(10)
    transcripts.put("b", "x" * 10)
    assert transcripts.get("b") == "x" * 10
