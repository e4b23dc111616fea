"""One request under way: order, credits, exactly one end."""

from __future__ import annotations

import anyio
import pytest

from omni_common.deadline import Deadline
from omni_common.errors import Cancelled, DeadlineExceeded, OmniError, Reason, StageFailed
from omni_common.request import AudioOutput, FinishReason, TextOutput, Usage
from omni_common.testing.clock import ManualClock
from omni_gateway.call import Admitted, Call, Finished

pytestmark = pytest.mark.anyio

END = Finished(FinishReason.STOP, Usage())


class Given:
    """A call, and the credits that it has returned."""

    def __init__(self, credits: int = 8) -> None:
        self.clock = ManualClock()
        self.credits: list[tuple[int, int]] = []
        self.call = Call(
            1,
            deadline=Deadline(60, self.clock),
            credits=credits,
            give_credit=lambda text, audio: self.credits.append((text, audio)),
        )


async def test_events_are_read_in_order_and_all_at_once() -> None:
    call = Given().call
    for event in (Admitted("r"), TextOutput("a"), END):
        call.arrive(event)
    assert await call.read() == [Admitted("r"), TextOutput("a"), END]
    assert call.over


async def test_a_failure_is_raised_after_every_event_before_it() -> None:
    call = Given().call
    call.arrive(TextOutput("a"))
    call.fail(StageFailed("thinker"))
    assert await call.read() == [TextOutput("a")]
    for _ in range(2):
        with pytest.raises(OmniError) as caught:
            await call.read()
        assert caught.value.reason is Reason.STAGE_FAILED


async def test_what_comes_after_the_end_changes_nothing() -> None:
    call = Given().call
    call.arrive(END)
    call.arrive(TextOutput("late"))
    call.fail(Cancelled())
    assert await call.read() == [END]


async def test_credit_goes_back_only_when_the_reader_comes_for_more() -> None:
    given = Given(credits=8)
    for _ in range(3):
        given.call.arrive(TextOutput("a"))
    given.call.arrive(AudioOutput(b"", 24_000))
    await given.call.read()
    assert given.credits == []
    given.call.arrive(TextOutput("b"))
    await given.call.read()
    # Speech stays below a quarter of the window, so its credit waits for more.
    assert given.credits == [(3, 0)]


async def test_the_window_can_be_refilled_for_ever() -> None:
    given = Given(credits=4)
    for _ in range(100):
        given.call.arrive(TextOutput("a"))
        await given.call.read()
    assert sum(text for text, _ in given.credits) == 99


async def test_a_coordinator_that_ignores_the_credits_fails_the_request() -> None:
    call = Given(credits=4).call
    for _ in range(5):
        call.arrive(TextOutput("a"))
    assert len(await call.read()) == 4
    with pytest.raises(OmniError) as caught:
        await call.read()
    assert caught.value.reason is Reason.INTERNAL
    assert call.cut


async def test_a_silent_call_gives_an_empty_list_after_a_while() -> None:
    assert await Given().call.read(within=0.01) == []


async def test_a_call_ends_at_its_deadline_though_the_coordinator_says_nothing() -> None:
    given = Given()
    given.clock.advance(60)
    with pytest.raises(DeadlineExceeded):
        await given.call.read()


async def test_a_waiting_reader_hears_of_what_arrives() -> None:
    call = Given().call
    read: list[object] = []

    async def reader() -> None:
        read.extend(await call.read())

    with anyio.fail_after(1):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader)
            await anyio.lowlevel.checkpoint()
            call.arrive(TextOutput("a"))
    assert read == [TextOutput("a")]
