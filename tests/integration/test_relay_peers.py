"""Tensors from one pod's arena to another's, over loopback TCP."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.lab.pods import KIB, MIB, TOKEN, Pod, Pushed, Shape, counted, eventually, memory_folder, noise, two_pods
from tests.lab.proxy import proxy
from tests.unit.relay.wire.authority import Authority

from omni_common.arena.layout import SlotHead
from omni_relay.core.allotment import IDLE
from omni_relay.peers import outbound
from omni_relay.wire.credentials import Credentials, Mode
from omni_relay.wire.sockets import Link


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder in memory, as a pod's is."""
    with memory_folder() as folder:
        yield folder


@pytest.fixture
def pods(shared: Path) -> Iterator[tuple[Pod, Pod]]:
    with two_pods(shared) as both:
        yield both


@pytest.fixture(params=["none", "token", "tls", "aead"])
def guarded(request: pytest.FixtureRequest, shared: Path) -> Iterator[tuple[Pod, Pod]]:
    """Two pods, in each way in which what they send can be guarded."""
    match request.param:
        case "none":
            credentials = Credentials()
        case "token":
            credentials = Credentials(token=TOKEN)
        case mode:
            credentials = Authority(shared, "ca").issue("relay").credentials(Mode(mode))
    with two_pods(shared, Shape(size=MIB, credentials=credentials), Shape(48 * MIB, credentials=credentials)) as both:
        yield both


def damaged() -> float:
    return counted("omni_relay_checksum_failures_total", transport="tcp")


@pytest.mark.parametrize("size", [0, 1, 64 * KIB, MIB - 1, MIB, MIB + 1, 33 * MIB])
def test_a_tensor_of_any_size_arrives_as_it_was_sent(guarded: tuple[Pod, Pod], size: int) -> None:
    sender, receiver = guarded
    data = noise(size)
    sent = bytes(data)
    pushed = sender.push(receiver.address, data)
    assert pushed.reason is None
    assert receiver.stage.seen[pushed.transfer] == sent
    assert pushed.verdicts[0].transport in {"tcp", "tls", "aead"}


def test_a_large_tensor_arrives_as_it_was_sent(shared: Path) -> None:
    with two_pods(shared, Shape(size=MIB), Shape(size=256 * MIB)) as (sender, receiver):
        data = noise(200 * MIB)
        sent = bytes(data)
        pushed = sender.push(receiver.address, data)
        assert pushed.reason is None
        assert receiver.stage.seen[pushed.transfer] == sent


def test_the_consumer_finds_a_leased_slot(pods: tuple[Pod, Pod]) -> None:
    sender, receiver = pods
    receiver.stage.keeps = True
    for length in (1000, 2000):
        sender.push(receiver.address, noise(length)).wait()
    first, second = receiver.stage.wait_for(2)
    for slot, length in ((first, 1000), (second, 2000)):
        head = SlotHead.parse(receiver.arena.view[slot.offset - SlotHead.SIZE : slot.offset])
        assert head is not None
        assert (head.epoch, head.generation, head.length) == (slot.extent.epoch, slot.generation, length)
    assert (first.generation, second.generation) == (1, 2)


def test_many_at_once_all_arrive(pods: tuple[Pod, Pod]) -> None:
    sender, receiver = pods
    tensors = [noise(size, seed) for seed, size in enumerate([100, 70 * KIB, MIB, 3 * MIB] * 20)]
    sent = [bytes(data) for data in tensors]
    found: list[Pushed] = []
    lock = threading.Lock()

    def push(part: int) -> None:
        for number in range(part, len(tensors), 4):
            pushed = sender.push(receiver.address, tensors[number], f"r{number % 7}")
            with lock:
                found.append(pushed)

    threads = [threading.Thread(target=push, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {pushed.reason for pushed in found} == {None}
    assert sorted(receiver.stage.seen[pushed.transfer] for pushed in found) == sorted(sent)


def test_each_pushes_to_the_other_at_once(pods: tuple[Pod, Pod]) -> None:
    one, other = pods
    out = [one.push(other.address, noise(MIB, seed), f"r{seed}") for seed in range(10)]
    back = [other.push(one.address, noise(MIB, seed), f"r{seed}") for seed in range(10)]
    assert {pushed.reason for pushed in out + back} == {None}


def test_a_small_tensor_of_another_request_does_not_wait_for_a_large_one(shared: Path) -> None:
    with (
        two_pods(shared, Shape(size=MIB), Shape(size=600 * MIB)) as (sender, receiver),
        proxy(receiver.address) as line,
    ):
        sender.push(line.address, noise(1)).wait()
        line.up.rate = 1_000_000_000
        large = sender.push(line.address, bytearray(512 * MIB), "large")
        eventually(lambda: line.up.passed > 8 * MIB, "the large one does not move")
        small = sender.push(line.address, noise(100_000), "small")
        assert small.reason is None
        assert line.up.passed < 128 * MIB
        sender.peers.cancel(large.transfer)
        assert large.reason == "CANCELLED"
        assert sender.ended[-2:] == [small, large]


def test_a_large_tensor_that_waits_for_room_does_not_hold_up_a_small_one(shared: Path) -> None:
    with two_pods(shared, Shape(size=MIB), Shape(size=64 * MIB)) as (sender, receiver):
        receiver.stage.keeps = True
        sender.push(receiver.address, bytearray(30 * MIB), "first").wait()
        waiting = sender.push(receiver.address, bytearray(30 * MIB), "large")
        small = sender.push(receiver.address, noise(100_000), "small")
        assert small.reason is None
        assert not waiting.over
        receiver.stage.release(receiver.stage.wait_for(1)[0])
        assert waiting.reason is None


def test_a_full_arena_holds_up_pushes_until_there_is_room(shared: Path) -> None:
    with two_pods(shared, Shape(size=MIB), Shape(size=12 * MIB)) as (sender, receiver):
        receiver.stage.keeps = True
        pushes = [sender.push(receiver.address, noise(MIB, seed), f"r{seed}") for seed in range(24)]
        for number in range(24):
            receiver.stage.release(receiver.stage.wait_for(number + 1)[number])
        assert {pushed.reason for pushed in pushes} == {None}


def test_pushes_go_another_way_when_nothing_comes_free(shared: Path) -> None:
    with two_pods(shared, Shape(size=MIB), Shape(size=12 * MIB)) as (sender, receiver):
        receiver.stage.keeps = True
        pushes = [sender.push(receiver.address, noise(MIB, seed), f"r{seed}") for seed in range(24)]
        reasons = [pushed.reason for pushed in pushes]
        assert set(reasons) == {None, "OVERLOADED"}
        assert reasons.count(None) == len(receiver.stage.arrivals)


def test_what_can_never_fit_is_refused_at_once(pods: tuple[Pod, Pod]) -> None:
    sender, receiver = pods
    assert sender.push(receiver.address, bytearray(80 * MIB)).reason == "OVERLOADED"
    assert sender.push(receiver.address, noise(1000)).reason is None


def test_a_consumer_that_is_not_there_fails_its_pushes_alone(pods: tuple[Pod, Pod]) -> None:
    sender, receiver = pods
    lost = [sender.push(receiver.address, noise(3 * MIB), "a", consumer="nobody") for _ in range(3)]
    found = sender.push(receiver.address, noise(3 * MIB), "b")
    assert found.reason is None
    assert {pushed.reason for pushed in lost} == {"STAGE_UNAVAILABLE"}
    eventually(lambda: sender.pass_time(IDLE + 1) or receiver.granted == 0, "space is not given back")


def test_a_push_ends_at_its_deadline_and_its_space_comes_back(shared: Path) -> None:
    with two_pods(shared) as (sender, receiver), proxy(receiver.address) as line:
        sender.push(line.address, noise(1)).wait()
        line.up.rate = 1_000_000
        late = sender.push(line.address, noise(8 * MIB), seconds=0.5)
        assert late.reason == "DEADLINE_EXCEEDED"
        line.up.rate = 0
        assert sender.push(line.address, noise(8 * MIB)).reason is None
        eventually(lambda: sender.pass_time(IDLE + 1) or receiver.granted == 0, "space is not given back")


def test_one_that_is_late_before_it_begins_is_not_even_tried(pods: tuple[Pod, Pod]) -> None:
    sender, receiver = pods
    assert sender.push(receiver.address, noise(10), seconds=0.0).reason == "DEADLINE_EXCEEDED"


def test_a_cancelled_push_ends_and_is_not_read_any_more(shared: Path) -> None:
    before = damaged()
    with two_pods(shared) as (sender, receiver), proxy(receiver.address) as line:
        sender.push(line.address, noise(1)).wait()
        line.up.rate = 50_000_000
        pushes = [sender.push(line.address, noise(5 * MIB), f"r{number}") for number in range(6)]
        passed = line.up.passed
        eventually(lambda: line.up.passed > passed + MIB, "nothing moves")
        for pushed in pushes[::2]:
            sender.peers.cancel(pushed.transfer)
        reasons = [pushed.reason for pushed in pushes]
        assert set(reasons[::2]) <= {"CANCELLED", None}
        assert "CANCELLED" in reasons
        assert reasons[1::2] == [None] * 3
        assert damaged() == before, "bytes were read that were the stage's again"


def test_nothing_is_left_of_ten_thousand_aborted_transfers(pods: tuple[Pod, Pod]) -> None:
    sender, receiver = pods
    process = psutil.Process()
    assert sender.push(receiver.address, noise(10)).reason is None
    before = damaged()
    files, threads = process.num_fds(), process.num_threads()
    reasons: set[str | None] = set()
    for batch in range(100):
        pushes = [sender.push(receiver.address, bytearray(2000), f"r{number % 9}") for number in range(100)]
        for pushed in pushes:
            sender.peers.cancel(pushed.transfer)
        reasons |= {pushed.reason for pushed in pushes}
        assert reasons <= {"CANCELLED", None}, batch
        assert {len(pushed.verdicts) for pushed in pushes} == {1}
    assert "CANCELLED" in reasons
    assert sender.peers.pushes == 0
    eventually(lambda: process.num_fds() <= files and process.num_threads() <= threads, "something leaked")
    assert damaged() == before
    assert sender.push(receiver.address, noise(10)).reason is None
    eventually(lambda: sender.pass_time(IDLE + 1) or receiver.granted == 0, "space is not given back")


def test_an_idle_connection_gives_everything_back_and_comes_again(pods: tuple[Pod, Pod]) -> None:
    sender, receiver = pods
    files, threads = psutil.Process().num_fds(), threading.active_count()
    assert sender.push(receiver.address, noise(10)).reason is None
    assert receiver.peers.connections == 2
    sender.pass_time(outbound.IDLE + 1)
    eventually(lambda: receiver.peers.connections == 0, "the connection stays")
    eventually(lambda: psutil.Process().num_fds() <= files, "descriptors stay open")
    eventually(lambda: threading.active_count() <= threads, "threads stay")
    assert sender.push(receiver.address, noise(10)).reason is None


def test_a_relay_that_is_not_there_refuses_at_once_until_it_is_back(shared: Path) -> None:
    with two_pods(shared) as (sender, receiver), proxy(receiver.address) as line:
        target, line.target = line.target, "127.0.0.1:1"
        assert sender.push(line.address, noise(10)).reason == "STAGE_UNAVAILABLE"
        assert sender.push(line.address, noise(10)).reason == "STAGE_UNAVAILABLE"
        line.target = target
        eventually(lambda: sender.push(line.address, noise(10)).reason is None, "it is not found again")


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:1", "127.0.0.1:99999", "no.such.host.invalid:7080", ""])
def test_addresses_that_lead_nowhere(pods: tuple[Pod, Pod], address: str) -> None:
    sender, _ = pods
    assert sender.push(address, noise(10)).reason == "STAGE_UNAVAILABLE"


def test_a_relay_with_another_token_gets_nothing(shared: Path) -> None:
    stranger = Shape(credentials=Credentials(token=b"another release's own token"))
    with two_pods(shared, stranger, Shape()) as (sender, receiver):
        assert sender.push(receiver.address, noise(10)).reason == "STAGE_UNAVAILABLE"
        assert receiver.stage.seen == {}
        eventually(lambda: receiver.peers.connections == 0, "the stranger stays")


def test_random_bytes_are_shown_the_door(pods: tuple[Pod, Pod]) -> None:
    sender, receiver = pods
    host, _, port = receiver.address.rpartition(":")
    before = psutil.Process().memory_info().rss
    for number in range(50):
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(os.urandom(1000) if number % 2 else noise(1000, number))
    eventually(lambda: receiver.peers.connections == 0, "they stay")
    assert psutil.Process().memory_info().rss - before < 32 * MIB
    assert sender.push(receiver.address, noise(10)).reason is None


def test_the_arena_beyond_the_grants_is_never_touched(pods: tuple[Pod, Pod]) -> None:
    sender, receiver = pods
    marked = receiver.arena.view[8192:]
    marked[:] = b"\x5a" * len(marked)
    touched: list[tuple[int, int]] = []
    for size in (0, 100, MIB, 5 * MIB):
        sender.push(receiver.address, noise(size)).wait()
        slot = receiver.stage.arrivals[-1]
        touched.append((slot.offset - 64, slot.offset + -(-slot.length // 64) * 64))
    for start, end in touched:
        receiver.arena.view[start:end] = b"\x5a" * (end - start)
    assert bytes(marked).count(b"\x5a") == len(marked)


def test_shutting_down_ends_what_is_under_way(shared: Path) -> None:
    with two_pods(shared, Shape(link=Link(timeout=2.0))) as (sender, receiver), proxy(receiver.address) as line:
        sender.push(line.address, noise(1)).wait()
        line.up.stall()
        pushes = [sender.push(line.address, noise(8 * MIB), f"r{number}") for number in range(3)]
        sender.close()
        assert {pushed.reason for pushed in pushes} == {"STAGE_UNAVAILABLE"}
        assert sender.push(line.address, noise(8)).reason == "STAGE_UNAVAILABLE"
