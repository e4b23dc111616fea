"""Who gets which part of the arena, told as stories."""

from __future__ import annotations

import pytest
from tests.unit.relay.extents_world import LEAST, World, peer, stage

from omni_common.arena.extents import Extent
from omni_common.arena.holds import SETTLE
from omni_common.arena.layout import EXTENTS, SlotHead
from omni_relay.core.extents import CLAIM_TIME
from omni_relay.core.holders import Freed, Kind, Refused
from omni_relay.core.shares import Bounds
from omni_relay.core.waiting import MAX_PASSED

ECHO, SPEAK, THINK, FAR, FARTHER = stage("echo"), stage("speak"), stage("think"), peer("1"), peer("2")


@pytest.fixture
def world() -> World:
    """Eight extents of the least size for stages, eight for peers."""
    return World()


def test_who_wants_gets_a_multiple_of_the_least_size_at_once_under_an_epoch_of_its_own(world: World) -> None:
    world.join(ECHO)
    small, large = world.want(ECHO, 1), world.want(ECHO, LEAST + 1)
    assert small is not None
    assert large is not None
    assert (small.size, large.size) == (LEAST, 2 * LEAST)
    assert small.epoch != large.epoch
    assert world.table[small.index] == small.epoch


def test_stages_are_placed_from_the_low_end_and_peers_from_the_high_end(world: World) -> None:
    for holder in (ECHO, FAR):
        world.join(holder)
    low, high = world.want(ECHO), world.want(FAR)
    assert low is not None
    assert high is not None
    assert (low.offset, high.end) == (EXTENTS, world.bounds.size)


def test_who_has_not_joined_gets_nothing(world: World) -> None:
    world.has[ECHO] = {}
    assert world.want(ECHO) is None
    assert world.ledger == {}


def test_what_can_never_come_in_one_piece_is_refused_and_nobody_waits_for_it(world: World) -> None:
    world.join(ECHO)
    assert world.want(ECHO, 8 * LEAST + 1) is None
    assert world.refused == [Refused(ECHO, 8 * LEAST + 1)]
    assert world.want(ECHO, 8 * LEAST) is not None


def test_a_want_that_another_stages_coming_makes_impossible_is_refused_then(world: World) -> None:
    for holder in (ECHO, SPEAK):
        world.join(holder)
    assert world.want(SPEAK) is not None
    assert world.want(SPEAK) is not None
    assert world.want(ECHO, 7 * LEAST) is None
    assert world.refused == []
    world.join(THINK)
    assert world.refused == [Refused(ECHO, 7 * LEAST)]


def test_peers_cannot_take_the_stages_share_nor_stages_theirs(world: World) -> None:
    for holder in (ECHO, FAR):
        world.join(holder)
        while world.want(holder):
            pass
    usage = world.core.usage()
    assert usage == {"stage": 8 * LEAST, "peer": 7 * LEAST, "parked": 0, "revoked": 0, "free": LEAST}


def test_what_is_left_of_a_share_is_granted_when_it_is_less_than_the_least_size() -> None:
    world = World(3, inbound=0.5)
    world.join(ECHO)
    first, rest = world.want(ECHO), world.want(ECHO, 64)
    assert first is not None
    assert rest is not None
    assert (first.size, rest.size) == (LEAST, LEAST // 2)


def test_space_that_comes_back_goes_to_who_waited_first(world: World) -> None:
    for holder in (ECHO, SPEAK, THINK):
        world.join(holder)
    extents = [world.want(holder, 2 * LEAST) for holder in (ECHO, ECHO, SPEAK, THINK)]
    assert all(extents)
    assert world.want(SPEAK, 2 * LEAST) is None
    assert world.want(THINK, 2 * LEAST) is None
    assert extents[0] is not None
    world.give_back(ECHO, extents[0])
    world.settle()
    assert (len(world.has[SPEAK]), len(world.has[THINK])) == (2, 1)


def test_every_stage_finds_room_for_its_first_extent_however_much_another_takes(world: World) -> None:
    for holder in (ECHO, SPEAK, THINK):
        world.join(holder)
    while world.want(ECHO):
        pass
    assert len(world.has[ECHO]) == 6
    assert world.want(SPEAK) is not None
    assert world.want(THINK) is not None


def test_a_first_extent_that_is_larger_than_the_least_leaves_room_for_the_others_first(world: World) -> None:
    for holder in (ECHO, SPEAK):
        world.join(holder)
    assert world.want(ECHO, 7 * LEAST + 1) is None
    assert world.refused == [Refused(ECHO, 7 * LEAST + 1)]
    assert world.want(ECHO, 7 * LEAST) is not None
    assert world.want(SPEAK) is not None


def test_the_next_peer_to_come_finds_room_too(world: World) -> None:
    world.join(FAR)
    while world.want(FAR):
        pass
    world.join(FARTHER)
    assert len(world.has[FAR]) == 7
    assert world.want(FARTHER) is not None


def test_small_wants_pass_a_large_one_that_waits_but_not_for_ever(world: World) -> None:
    for holder in (ECHO, SPEAK):
        world.join(holder)
    for holder in (SPEAK, SPEAK, ECHO):
        assert world.want(holder) is not None
    assert world.want(ECHO, 6 * LEAST) is None
    passed = 0
    while world.want(SPEAK) is not None:
        passed += 1
    assert passed == MAX_PASSED
    for extent in list(world.has[SPEAK].values())[1:]:
        world.give_back(SPEAK, extent)
    world.settle()
    assert [extent.size for extent in world.has[ECHO].values()] == [LEAST, 6 * LEAST]


def test_an_extent_that_is_given_back_serves_again_only_after_the_wipe_has_settled_and_nobody_looks(
    world: World,
) -> None:
    world.join(ECHO)
    extent = world.want(ECHO)
    assert extent is not None
    world.held.add(extent.offset + 64)
    world.give_back(ECHO, extent)
    assert world.table[extent.index] == 0
    world.wait(10)
    assert world.free() == world.room - LEAST
    world.held.clear()
    world.tick()
    assert world.free() == world.room
    assert world.lost == 0


def test_what_a_peer_gives_back_serves_another_at_once(world: World) -> None:
    for holder in (FAR, FARTHER):
        world.join(holder)
    extent = world.want(FAR, 7 * LEAST)
    assert extent is not None
    assert world.want(FARTHER, 2 * LEAST) is None
    world.give_back(FAR, extent)
    assert [extent.size for extent in world.has[FARTHER].values()] == [2 * LEAST]
    assert world.lost == 0


@pytest.mark.parametrize("other", [SPEAK, FAR])
def test_nobody_can_give_back_what_is_anothers(world: World, other: object) -> None:
    for holder in (ECHO, SPEAK, FAR):
        world.join(holder)
    extent = world.want(ECHO)
    assert extent is not None
    assert world.core.give_back(SPEAK if other is SPEAK else FAR, extent.index, world.now) is None
    assert world.core.give_back(ECHO, extent.index + 1, world.now) is None
    assert world.table[extent.index] == extent.epoch


def test_a_stages_death_revokes_its_extents_at_once_and_its_space_is_back_within_5_s(world: World) -> None:
    for holder in (ECHO, SPEAK):
        world.join(holder)
    extents = [world.want(ECHO), world.want(ECHO)]
    world.leave(ECHO)
    assert [world.table[extent.index] for extent in extents if extent] == [0, 0]
    assert world.core.usage()["revoked"] == 2 * LEAST
    world.wait(5)
    assert world.free() == world.room
    assert world.lost == 2 * LEAST


def test_a_dead_stages_want_is_forgotten(world: World) -> None:
    for holder in (ECHO, SPEAK):
        world.join(holder)
    large = world.want(ECHO, 7 * LEAST)
    assert large is not None
    assert world.want(SPEAK, 2 * LEAST) is None
    world.leave(SPEAK)
    world.give_back(ECHO, large)
    world.settle()
    assert world.free() == world.room


def test_what_is_freed_in_a_peers_extent_is_told_to_it(world: World) -> None:
    for holder in (ECHO, FAR):
        world.join(holder)
    extent = world.want(FAR)
    assert extent is not None
    slot = world.deliver(extent, "echo")
    world.release("echo", slot)
    assert world.wiped == [slot]
    assert world.freed == [Freed("1", extent.index, slot.offset)]
    world.release("echo", slot)
    assert len(world.freed) == 1


def test_a_stage_cannot_release_what_another_was_handed(world: World) -> None:
    for holder in (ECHO, SPEAK, FAR):
        world.join(holder)
    extent = world.want(FAR)
    assert extent is not None
    slot = world.deliver(extent, "echo")
    assert world.core.release("speak", slot, world.now) is None
    assert world.freed == []


def test_nothing_is_delivered_to_a_stage_that_is_gone_nor_from_a_peer_that_is(world: World) -> None:
    for holder in (ECHO, FAR):
        world.join(holder)
    extent = world.want(FAR)
    assert extent is not None
    first = extent.offset + SlotHead.SIZE
    assert not world.core.deliver(world.arrival(extent, first, 64, "speak"))
    assert not world.core.deliver(world.arrival(extent, extent.offset, 64, "echo"))
    assert not world.core.deliver(world.arrival(extent, first, LEAST, "echo"))
    world.deliver(extent, "echo")
    assert not world.core.deliver(world.arrival(extent, first, 64, "echo"))
    world.leave(FAR)
    assert not world.core.deliver(world.arrival(extent, first + 128, 64, "echo"))


def test_what_could_not_be_handed_over_is_the_peers_again(world: World) -> None:
    for holder in (ECHO, FAR):
        world.join(holder)
    extent = world.want(FAR)
    assert extent is not None
    slot = world.deliver(extent, "echo")
    assert world.core.withdraw(slot, world.now) == []
    assert world.core.withdraw(slot, world.now) is None
    world.give_back(FAR, extent)


def test_a_peers_extents_stay_until_the_last_of_their_tensors_is_released(world: World) -> None:
    for holder in (ECHO, FAR):
        world.join(holder)
    used, empty = world.want(FAR), world.want(FAR)
    assert used is not None
    assert empty is not None
    slot = world.deliver(used, "echo")
    world.leave(FAR)
    world.wait(100)
    assert world.core.usage()["parked"] == LEAST
    assert world.free() == world.room - LEAST
    assert world.table[used.index] == used.epoch
    world.release("echo", slot)
    world.settle()
    assert world.free() == world.room
    assert world.freed == []


def test_what_had_arrived_for_a_stage_that_died_is_freed_when_no_view_of_it_is_left(world: World) -> None:
    for holder in (ECHO, FAR):
        world.join(holder)
    extent = world.want(FAR)
    assert extent is not None
    slot = world.deliver(extent, "echo")
    world.held.add(extent.offset)
    world.leave(ECHO)
    assert world.wiped == [slot]
    world.wait(10)
    assert world.freed == []
    world.held.clear()
    world.wait(5)
    assert world.freed == [Freed("1", extent.index, slot.offset)]


def test_a_slot_whose_release_never_comes_is_taken_back_after_its_lease(world: World) -> None:
    for holder in (ECHO, FAR):
        world.join(holder)
    extent = world.want(FAR)
    assert extent is not None
    slot = world.deliver(extent, "echo", lease=20)
    world.wait(19)
    assert world.wiped == []
    world.wait(1 + SETTLE + 0.25)
    assert world.wiped == [slot]
    assert world.freed == [Freed("1", extent.index, slot.offset)]


def test_a_stage_that_comes_back_while_its_old_line_stands_keeps_what_it_names_and_loses_the_rest(
    world: World,
) -> None:
    for holder in (ECHO, FAR):
        world.join(holder)
    one, two, far = world.want(ECHO), world.want(ECHO), world.want(FAR)
    assert one is not None
    assert two is not None
    assert far is not None
    slot = world.deliver(far, "echo")
    world.come_back("echo", [two], [])
    assert world.has[ECHO] == {two.index: two}
    assert world.table[one.index] == 0
    assert world.wiped == [slot]


def test_a_stage_cannot_claim_anothers_extent_nor_a_peers(world: World) -> None:
    for holder in (ECHO, SPEAK, FAR):
        world.join(holder)
    one, two, far = world.want(ECHO), world.want(SPEAK), world.want(FAR)
    assert one is not None
    assert two is not None
    assert far is not None
    world.come_back("speak", [one, far, two, Extent(two.index, two.epoch, two.offset, two.size + 64)])
    assert world.has[SPEAK] == {two.index: two}
    assert world.core.extent_of("speak", one.index, one.epoch) is None
    assert world.core.extent_of("echo", one.index, one.epoch) == one
    assert world.core.extent_of("echo", one.index, one.epoch + 1) is None


# After a restart of the relay


def test_after_a_restart_stages_keep_what_they_claim_and_the_rest_is_revoked_after_5_s(world: World) -> None:
    for holder in (ECHO, SPEAK):
        world.join(holder)
    mine, dropped, others = world.want(ECHO), world.want(ECHO), world.want(SPEAK)
    assert mine is not None
    assert dropped is not None
    assert others is not None
    world.restart()
    world.come_back("echo", [mine])
    assert world.has[ECHO] == {mine.index: mine}
    world.wait(CLAIM_TIME - 0.5)
    assert world.table[others.index] == others.epoch
    world.wait(1)
    assert [world.table[e.index] for e in (mine, dropped, others)] == [mine.epoch, 0, 0]
    world.settle()
    assert world.free() == world.room - LEAST


def test_after_a_restart_free_space_is_granted_at_once_and_never_what_somebody_may_claim(world: World) -> None:
    world.join(ECHO)
    mine = world.want(ECHO)
    world.restart()
    world.join(SPEAK)
    while world.want(SPEAK):
        pass
    assert mine is not None
    world.come_back("echo", [mine])
    assert world.has[ECHO] == {mine.index: mine}


def test_after_a_restart_tensors_that_had_arrived_keep_their_extent_until_they_are_released(world: World) -> None:
    for holder in (ECHO, FAR, FARTHER):
        world.join(holder)
    used, empty = world.want(FAR), world.want(FARTHER)
    assert used is not None
    assert empty is not None
    slot = world.deliver(used, "echo")
    world.restart()
    world.come_back("echo", [], [slot])
    arrival = world.arrival(used, slot.offset, 64, "echo")
    arrival.slot = slot
    assert world.core.resume(arrival)
    assert not world.core.resume(arrival)
    world.wait(CLAIM_TIME + 1)
    assert world.core.usage()["parked"] == LEAST
    assert world.free() == world.room - LEAST
    world.release("echo", slot)
    world.settle()
    assert world.free() == world.room


def test_a_tensor_released_soon_after_a_restart_does_not_free_what_another_stage_has_yet_to_name(world: World) -> None:
    for holder in (ECHO, SPEAK, FAR):
        world.join(holder)
    extent = world.want(FAR)
    assert extent is not None
    slot = world.deliver(extent, "echo")
    second = world.arrival(extent, slot.offset + 192, 64, "speak")
    assert world.core.deliver(second)
    world.restart()
    world.come_back("echo", [], [slot])
    first = world.arrival(extent, slot.offset, 64, "echo")
    first.slot = slot
    assert world.core.resume(first)
    world.release("echo", slot)
    world.wait(1)
    world.come_back("speak", [], [second.slot])
    assert world.core.resume(second)
    world.wait(CLAIM_TIME)
    assert world.table[extent.index] == extent.epoch


def test_what_was_granted_since_a_restart_comes_back_without_waiting_for_claims(world: World) -> None:
    world.join(ECHO)
    world.restart()
    for holder in (ECHO, FAR):
        world.join(holder)
    extent = world.want(FAR)
    assert extent is not None
    slot = world.deliver(extent, "echo")
    world.leave(FAR)
    world.release("echo", slot)
    world.settle()
    assert world.free() == world.room


def test_what_was_revoked_when_the_relay_died_is_revoked_still(world: World) -> None:
    world.join(ECHO)
    extent = world.want(ECHO)
    assert extent is not None
    world.held.add(extent.offset)
    world.leave(ECHO)
    world.restart()
    world.come_back("echo", [extent])
    assert world.has[ECHO] == {}
    world.wait(1)
    assert world.free() == world.room - LEAST
    world.held.clear()
    world.settle()
    assert world.free() == world.room


@pytest.mark.parametrize(
    "found",
    [
        pytest.param([Extent(0, 1, EXTENTS, 128), Extent(1, 2, EXTENTS + 64, 128)], id="two overlap"),
        pytest.param([Extent(0, 1, EXTENTS, 128), Extent(0, 2, EXTENTS + 128, 128)], id="two in one place"),
        pytest.param([Extent(0, 1, EXTENTS, 1 << 40)], id="beyond the end"),
        pytest.param([Extent(0, 1, 64, 128)], id="in the table"),
        pytest.param([Extent(0, 1, EXTENTS, 0)], id="nothing"),
    ],
)
def test_a_ledger_that_cannot_be_true_is_not_taken_up(world: World, found: list[Extent]) -> None:
    with pytest.raises(ValueError, match=r"overlap|one place"):
        world.core.adopt([(extent, Kind.STAGE, True) for extent in found], world.now)
    assert world.free() == world.room


def test_shares_fill_the_arena() -> None:
    bounds = Bounds(EXTENTS + 1000, 64, 0.3)
    assert bounds.share(Kind.PEER) == 300
    assert bounds.share(Kind.STAGE) == 700
