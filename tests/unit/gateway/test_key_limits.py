"""How much a key may ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_gateway.keys.guard import render_reset
from omni_gateway.keys.limits import Allowance, Limits, Refused
from omni_gateway.keys.ring import Key


def key(name: str = "ada", *, minute: int | None = None, live: int | None = None) -> Key:
    return Key(name, name.encode(), minute, live)


def told(allowance: Allowance | Refused | None) -> tuple[int, int, float]:
    assert isinstance(allowance, Allowance)
    return allowance.limit, allowance.remaining, round(allowance.reset, 6)


def refused(limits: Limits, of: Key, now: float) -> Refused:
    answer = limits.enter(of, now)
    assert isinstance(answer, Refused)
    return answer


def test_a_key_without_limits_is_told_of_none() -> None:
    limits = Limits()
    assert all(limits.enter(key(), 0.0) is None for _ in range(1000))


def test_the_minute_may_be_used_at_once_and_comes_back_one_by_one() -> None:
    limits, ada = Limits(), key(minute=60)
    left = [limits.enter(ada, 10.0) for _ in range(60)]
    assert told(left[0]) == (60, 59, 1.0)
    assert told(left[-1]) == (60, 0, 60.0)
    answer = refused(limits, ada, 10.25)
    assert answer.limit == "requests_per_minute"
    assert answer.wait == pytest.approx(0.75)
    assert told(answer.allowance) == (60, 0, 59.75)
    assert told(limits.enter(ada, 10.25 + answer.wait)) == (60, 0, 60.0)
    assert isinstance(limits.enter(ada, 11.0), Refused)
    assert told(limits.enter(ada, 10_000.0)) == (60, 59, 1.0)


def test_what_is_refused_costs_nothing() -> None:
    limits, ada = Limits(), key(minute=1)
    limits.enter(ada, 0.0)
    for now in range(59):
        assert refused(limits, ada, float(now)).wait == pytest.approx(60 - now)
    assert isinstance(limits.enter(ada, 60.0), Allowance)


def test_requests_under_way_are_limited_and_their_end_makes_room() -> None:
    limits, ada = Limits(), key(live=2, minute=100)
    limits.enter(ada, 0.0)
    limits.enter(ada, 0.0)
    answer = refused(limits, ada, 0.0)
    assert answer.limit == "concurrent_requests"
    assert told(answer.allowance) == (100, 98, 1.2)
    limits.leave(ada)
    assert told(limits.enter(ada, 0.0)) == (100, 97, 1.8)


def test_keys_do_not_use_up_each_other() -> None:
    limits = Limits()
    limits.enter(key("ada", minute=1, live=1), 0.0)
    assert isinstance(limits.enter(key("bob", minute=1, live=1), 0.0), Allowance)


def test_limits_that_change_hold_at_once() -> None:
    limits = Limits()
    for _ in range(10):
        limits.enter(key(minute=10, live=10), 0.0)
    assert refused(limits, key(minute=600, live=10), 0.05).limit == "concurrent_requests"
    assert isinstance(limits.enter(key(minute=600), 0.15), Allowance)
    assert told(limits.enter(key(minute=2), 1000.0)) == (2, 1, 30.0)
    assert limits.enter(key(), 1000.0) is None


def test_keys_that_are_gone_are_forgotten_when_their_requests_are() -> None:
    limits, gone, stays = Limits(), key("gone"), key("stays")
    limits.enter(gone, 0.0)
    limits.enter(stays, 0.0)
    limits.leave(stays)
    limits.keep(["stays"])
    assert len(limits) == 2
    limits.leave(gone)
    limits.keep(["stays"])
    assert len(limits) == 1


@given(
    st.integers(1, 50),
    st.integers(1, 5),
    st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=200),
)
def test_however_it_is_asked_the_limits_hold(minute: int, live: int, steps: list[tuple[float, bool]]) -> None:
    limits, ada, now, under_way, admitted = Limits(), key(minute=minute, live=live), 0.0, 0, 0
    for pause, leaves in steps:
        now += pause
        if leaves and under_way:
            limits.leave(ada)
            under_way -= 1
        answer = limits.enter(ada, now)
        if isinstance(answer, Refused):
            assert answer.wait > 0
            continue
        under_way, admitted = under_way + 1, admitted + 1
        assert under_way <= live
        assert answer is not None
        assert 0 <= answer.remaining < minute
        # A full bucket, and what has come back since.
        assert admitted <= minute + now * minute / 60 + 0.01


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0201, "21ms"), (0.02, "20ms"), (1, "1s"), (1.5, "1.5s"), (59.9999, "1m0s"), (360, "6m0s")],
)
def test_the_time_until_a_reset_is_written_as_openai_does(seconds: float, text: str) -> None:
    assert render_reset(seconds) == text
