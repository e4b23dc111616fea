"""What stages ask of their relay, and what it hands them, without other pods: pushes come back (see relay_loopback).

The relay's clockwork is turned by the tests, on a clock of their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from tests.relay_client import StageClient
from tests.relay_loopback import Loopback

from omni.common.v1.failure_pb2 import Reason
from omni.common.v1.request_pb2 import RequestKey as KeyMessage
from omni.common.v1.tensor_pb2 import ArenaSlot
from omni.relay.v1 import pod_pb2 as pb
from omni_common.arena import Arena, ArenaReader, ArenaWriter, HoldTable, HoldTables
from omni_common.arena.extents import Extent
from omni_common.arena.layout import EXTENTS
from omni_common.deadline import Deadline
from omni_common.errors import LeaseLost
from omni_common.request import RequestKey
from omni_common.settings import ByteSize
from omni_common.tensor import DType, Tensor
from omni_common.testing.clock import ManualClock
from omni_common.testing.mail import PATIENCE
from omni_relay.ports import Consumers, Space
from omni_relay.relay import Relay
from omni_relay.settings import RelaySettings
from omni_relay.stages.line import MAX_BACKLOG, STALLED

EXTENT = 64 << 10
FOREVER = float("inf")


class Pod:
    """A relay in this process, its clock, and what goes out of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock(100.0)
        self.live_again()

    def live_again(self) -> None:
        def dial(arena: Arena, space: Space, consumers: Consumers) -> Loopback:
            self.out = Loopback(arena, space, consumers)
            return self.out

        settings = RelaySettings(
            folder=self.folder, arena_size=ByteSize(32 * EXTENT + EXTENTS), extent_size=ByteSize(EXTENT)
        )
        self.relay = Relay(settings, dial, self.clock)
        self.relay.start()

    def die(self) -> None:
        """With stages connected: it leaves what a death leaves."""
        self.relay.stop(Deadline.after(PATIENCE))

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.25)):
            self.clock.advance(0.25)
            self.relay.tick()

    def until(self, condition: Callable[[], bool]) -> None:
        """What other threads do shows; the relay's clock stands still meanwhile."""
        deadline = Deadline.after(PATIENCE)
        while not condition():
            assert not deadline.passed
            self.relay.tick()


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    pod = Pod(tmp_path)
    yield pod
    pod.die()


def metered(holder: str) -> float | None:
    return REGISTRY.get_sample_value("omni_relay_arena_bytes", {"holder": holder})


class Stage:
    """A stage with a line, the arena, and an extent of its own."""

    def __init__(self, pod: Pod, name: str) -> None:
        self.line = StageClient(pod.folder)
        self.arena = Arena.open(pod.folder, self.line.hello(name).arena_epoch)
        self.holds = HoldTable.create(pod.folder, name)
        self.writer = ArenaWriter(self.arena, self.holds, HoldTables(pod.folder), pod.clock)
        self.reader = ArenaReader(self.arena, self.holds, pod.clock)
        self.extent = self.line.get(1)
        assert self.writer.grant(self.extent)

    def put(self, pattern: int, length: int = 4096) -> ArenaSlot:
        tensor = Tensor(DType.UINT8, (length,), memoryview(bytes([pattern]) * length))
        slot = self.writer.put(tensor, RequestKey("req_1", 1), FOREVER)
        assert slot is not None
        return slot

    def view(self, slot: ArenaSlot, length: int = 4096) -> memoryview:
        return self.reader.lend(slot, length, lambda slot: None)

    def dies(self) -> None:
        """All of it."""
        self.line.close()
        for extent in self.writer.extents:
            self.writer.revoke(extent.index)


@pytest.fixture
def speak(pod: Pod) -> Iterator[Stage]:
    stage = Stage(pod, "speak")
    yield stage
    stage.dies()


@pytest.fixture
def echo(pod: Pod) -> Iterator[Stage]:
    stage = Stage(pod, "echo")
    yield stage
    stage.dies()


# From stage to stage


def test_a_pushed_tensor_arrives_then_the_push_ends_and_its_release_frees_the_space(
    pod: Pod, speak: Stage, echo: Stage
) -> None:
    speak.line.push(1, speak.put(7), 4096, "echo")
    arrived = echo.line.hear("arrived").arrived
    assert arrived.transfer.number == 1
    assert arrived.length == 4096
    assert arrived.key == KeyMessage(request_id="req_1", attempt=1)
    assert echo.view(arrived.slot) == bytes([7]) * 4096
    ended = speak.line.hear("ended").ended
    assert ended.transfer.number == 1
    assert not ended.HasField("failure")
    assert ended.transport == "tcp"
    echo.line.release(arrived.slot)
    pod.until(lambda: pod.out.freed_slots == [(arrived.slot.extent, arrived.slot.offset)])
    with pytest.raises(LeaseLost):
        echo.view(arrived.slot)


def test_the_order_of_a_push_says_what_the_stage_said(pod: Pod, speak: Stage) -> None:
    pod.out.paused = True
    speak.line.push(3, speak.put(1), 4096, "echo", seconds=30)
    pod.until(lambda: bool(pod.out.under_way))
    (order,) = [push.order for push in pod.out.under_way.values()]
    assert (order.to, order.consumer, order.edge, order.deadline) == ("other:7080", "echo", "here>there", 130.0)
    assert order.key == RequestKey("req_1", 1)
    assert order.data == bytes([1]) * 4096
    assert order.data.readonly


def test_a_push_for_a_stage_that_is_not_there_fails(pod: Pod, speak: Stage) -> None:
    speak.line.push(1, speak.put(7), 4096, "nobody")
    ended = speak.line.hear("ended").ended
    assert ended.failure.reason == Reason.REASON_STAGE_UNAVAILABLE


def test_a_cancelled_push_ends_so_and_its_number_may_not_come_again_before(pod: Pod, speak: Stage) -> None:
    pod.out.paused = True
    slot = speak.put(7)
    speak.line.push(1, slot, 4096, "echo")
    pod.until(lambda: bool(pod.out.under_way))
    pod.out.paused = False
    speak.line.cancel(2)
    speak.line.cancel(1)
    assert speak.line.hear("ended").ended.failure.reason == Reason.REASON_CANCELLED
    speak.line.push(1, slot, 4096, "nobody")
    speak.line.hear("ended")
    speak.line.cancel(1)
    assert speak.line.get(1).size == EXTENT


def test_a_push_of_a_slot_that_is_no_longer_leased_ends_as_lost(pod: Pod, speak: Stage) -> None:
    slot = speak.put(7)
    speak.writer.release(slot)
    speak.line.push(1, slot, 4096, "echo")
    assert speak.line.hear("ended").ended.failure.reason == Reason.REASON_LEASE_LOST
    assert pod.relay.idle


def test_what_has_arrived_for_a_stage_that_dies_is_freed_but_not_while_somebody_looks(
    pod: Pod, speak: Stage, echo: Stage
) -> None:
    speak.line.push(1, speak.put(7), 4096, "echo")
    arrived = echo.line.hear("arrived").arrived
    view = speak.view(arrived.slot)
    echo.line.close()
    pod.until(lambda: speak.arena.view[arrived.slot.offset - 64] == 0)
    pod.wait(5)
    assert pod.out.freed_slots == []
    assert view == bytes([7]) * 4096
    del view
    pod.wait(0.5)
    assert pod.out.freed_slots == [(arrived.slot.extent, arrived.slot.offset)]


def test_a_slot_that_nobody_releases_comes_back_when_its_lease_is_over(pod: Pod, speak: Stage, echo: Stage) -> None:
    pod.out.lease = 110.0
    speak.line.push(1, speak.put(7), 4096, "echo")
    arrived = echo.line.hear("arrived").arrived
    pod.wait(9)
    assert pod.out.freed_slots == []
    pod.wait(2)
    assert pod.out.freed_slots == [(arrived.slot.extent, arrived.slot.offset)]
    echo.line.release(arrived.slot)  # late, and no lie
    assert echo.line.get(1).size == EXTENT


# A producer's death


def test_a_dead_stages_bytes_are_not_reused_while_a_push_still_reads_them(pod: Pod, speak: Stage) -> None:
    pod.out.paused = True
    speak.line.push(1, speak.put(7), 4096, "echo")
    pod.until(lambda: bool(pod.out.under_way))
    speak.dies()
    pod.until(lambda: speak.arena.extent_epoch(speak.extent.index) == 0)
    pod.wait(5)
    assert metered("revoked") == EXTENT
    assert [bytes(push.order.data) for push in pod.out.under_way.values()] == [bytes([7]) * 4096]
    pod.out.cancel_all()
    pod.wait(0.5)
    assert metered("revoked") == 0
    assert metered("free") == 32 * EXTENT


def test_a_cut_stages_slot_is_not_reused_while_a_push_still_reads_it(pod: Pod, speak: Stage) -> None:
    pod.out.paused = True
    slot = speak.put(7)
    speak.line.push(1, slot, 4096, "echo")
    pod.until(lambda: bool(pod.out.under_way))
    speak.line.close()
    speak.writer.lose(slot)
    pod.wait(5)
    speak.writer.reclaim(pod.clock())
    assert speak.writer.leases == 1
    pod.out.cancel_all()
    speak.writer.reclaim(pod.clock())
    assert speak.writer.leases == 0


# Liars


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        pytest.param(
            lambda liar, other: liar.line.push(1, other.put(1), 4096, "echo"),
            "it pushes out of an extent that is not its own",
            id="pushes another's slot",
        ),
        pytest.param(
            lambda liar, other: liar.line.push(1, liar.put(1), EXTENT, "echo"),
            "it pushes out of an extent that is not its own",
            id="pushes more than its extent",
        ),
        pytest.param(
            lambda liar, other: liar.line.give_back(other.extent),
            "it gives back an extent that is not its own",
            id="gives back another's extent",
        ),
        pytest.param(
            lambda liar, other: liar.line.give_back(Extent(900, 1, EXTENTS, 64)),
            "it gives back an extent that is not its own",
            id="gives back what is nobody's",
        ),
        pytest.param(lambda liar, other: liar.line.say(hello=pb.StageHello()), "it says hello twice", id="two hellos"),
        pytest.param(lambda liar, other: liar.line.say(push=pb.Push()), "it pushes for no request", id="empty push"),
    ],
)
def test_a_stage_that_lies_is_cut_off_and_another_is_not(
    pod: Pod,
    speak: Stage,
    echo: Stage,
    caplog: pytest.LogCaptureFixture,
    lie: Callable[[Stage, Stage], None],
    why: str,
) -> None:
    lie(speak, echo)
    speak.line.ends()
    pod.until(lambda: echo.arena.extent_epoch(speak.extent.index) == 0)
    assert why in [getattr(record, "why", None) for record in caplog.records]
    assert echo.line.get(1).size == EXTENT


def test_a_stage_that_pushes_one_transfer_twice_is_cut_off(pod: Pod, speak: Stage, echo: Stage) -> None:
    pod.out.paused = True
    speak.line.push(1, speak.put(1), 4096, "echo")
    pod.until(lambda: bool(pod.out.under_way))
    echo.line.push(1, echo.put(1), 4096, "speak")
    echo.line.ends()


def test_a_stage_that_releases_what_another_was_handed_is_cut_off(pod: Pod, speak: Stage, echo: Stage) -> None:
    speak.line.push(1, speak.put(7), 4096, "echo")
    arrived = echo.line.hear("arrived").arrived
    speak.line.release(arrived.slot)
    speak.line.ends()
    assert echo.view(arrived.slot) == bytes([7]) * 4096
    assert pod.out.freed_slots == []


# A stage that does not read


def fill(speak: Stage, count: int) -> None:
    """As many messages for it: each of these pushes fails at once."""
    slot = speak.put(1)
    for number in range(1, count + 1):
        speak.line.push(number, slot, 4096, "nobody")


def test_a_stage_that_is_slow_to_read_misses_nothing_and_reads_it_in_order(pod: Pod, speak: Stage, echo: Stage) -> None:
    fill(speak, 1000)
    assert echo.line.get(1).size == EXTENT
    assert [speak.line.hear("ended").ended.transfer.number for _ in range(1000)] == list(range(1, 1001))


def test_a_stage_that_leaves_too_much_unread_is_cut_off(
    pod: Pod, speak: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it is cut while it talks
        fill(speak, MAX_BACKLOG + 1000)
    speak.line.ends()
    assert "it has left too much unread" in [getattr(record, "why", None) for record in caplog.records]


def test_a_stage_that_has_not_read_for_long_is_cut_off(
    pod: Pod, speak: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    fill(speak, 1000)

    def is_cut() -> bool:
        pod.wait(STALLED / 4)
        return "it has not read for a while" in [getattr(record, "why", None) for record in caplog.records]

    pod.until(is_cut)
    speak.line.ends()


# Coming back


def test_a_stage_that_comes_back_keeps_the_tensors_that_had_arrived(pod: Pod, speak: Stage, echo: Stage) -> None:
    speak.line.push(1, speak.put(7), 4096, "echo")
    arrived = echo.line.hear("arrived").arrived
    with StageClient(pod.folder) as again:
        again.hello("echo", echo.arena.epoch, [echo.extent], [arrived.slot])
        echo.line.ends()
        assert echo.view(arrived.slot) == bytes([7]) * 4096
        again.release(arrived.slot)
        pod.until(lambda: pod.out.freed_slots == [(arrived.slot.extent, arrived.slot.offset)])


def test_tensors_that_had_arrived_outlive_the_relay(pod: Pod, speak: Stage, echo: Stage) -> None:
    speak.line.push(1, speak.put(7), 4096, "echo")
    arrived = echo.line.hear("arrived").arrived
    pod.die()
    assert echo.view(arrived.slot) == bytes([7]) * 4096
    pod.live_again()
    with StageClient(pod.folder) as again:
        again.hello("echo", echo.arena.epoch, [echo.extent], [arrived.slot])
        pod.wait(10)
        assert metered("peers") == EXTENT
        assert echo.view(arrived.slot) == bytes([7]) * 4096
        again.release(arrived.slot)
        assert again.get(1).size == EXTENT  # it has read the release, which comes first
        pod.wait(0.5)
        assert metered("peers") == 0


# The end


def test_a_relay_that_drains_takes_no_push_and_lets_those_under_way_end(pod: Pod, speak: Stage, echo: Stage) -> None:
    pod.out.paused = True
    slot = speak.put(7)
    speak.line.push(1, slot, 4096, "echo")
    pod.until(lambda: bool(pod.out.under_way))
    pod.relay.drain()
    speak.line.push(2, slot, 4096, "echo")
    ended = speak.line.hear("ended").ended
    assert ended.transfer.number == 2
    assert ended.failure.reason == Reason.REASON_STAGE_UNAVAILABLE
    assert not pod.relay.idle
    pod.out.go_on()
    assert not speak.line.hear("ended").ended.HasField("failure")
    assert pod.relay.idle
