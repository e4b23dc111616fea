"""What a stage remembers of requests that are over."""

from __future__ import annotations

from omni_common.request import RequestKey
from omni_stage.core.tombstones import KEEP_SECONDS, Tombstones

FIRST, SECOND = RequestKey("req_1"), RequestKey("req_1", 1)


def test_the_end_of_one_attempt_is_not_that_of_the_next() -> None:
    tombstones = Tombstones()
    tombstones.bury(FIRST, 0.0)
    assert (FIRST in tombstones, tombstones.has_lane(FIRST.lane)) == (True, True)
    assert (SECOND in tombstones, tombstones.has_lane(SECOND.lane)) == (False, False)


def test_an_attempt_is_forgotten_when_nothing_of_it_can_be_under_way() -> None:
    tombstones = Tombstones()
    tombstones.bury(FIRST, 0.0)
    tombstones.bury(SECOND, KEEP_SECONDS)
    assert (FIRST in tombstones, tombstones.has_lane(FIRST.lane)) == (False, False)
    assert (SECOND in tombstones, tombstones.has_lane(SECOND.lane)) == (True, True)
