"""Networks and relays that fail: what is under way ends cleanly, the rest goes on, nothing leaks."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from tests.lab.pods import MIB, PATIENCE, Pod, Shape, counted, eventually, memory_folder, noise, two_pods
from tests.lab.proxy import Proxy, proxy
from tests.unit.relay.wire.authority import Authority

from omni_relay.core.allotment import IDLE
from omni_relay.wire.credentials import Mode
from omni_relay.wire.sockets import Link

MARK = b"a mark that a proxy finds in a tensor"
TIMEOUT = 1.0


@pytest.fixture
def shared() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


@pytest.fixture
def apart(shared: Path) -> Iterator[tuple[Pod, Pod, Proxy]]:
    """Two pods, and what lies between them. They have a connection."""
    shape = Shape(size=32 * MIB, link=Link(timeout=TIMEOUT))
    with two_pods(shared, shape) as (sender, receiver), proxy(receiver.address) as line:
        assert sender.push(line.address, noise(10)).reason is None
        yield sender, receiver, line


def marked(size: int) -> bytearray:
    """Full of marks, so that one lies in every chunk."""
    return bytearray((MARK * (size // len(MARK) + 1))[:size])


def damaged() -> float:
    return counted("omni_relay_checksum_failures_total", transport="tcp")


def retried() -> float:
    return counted("omni_relay_retries_total", transport="tcp", reason="damaged")


def await_movement(line: Proxy) -> None:
    passed = line.up.passed
    eventually(lambda: line.up.passed > passed + MIB, "nothing moves")


def flip_last_of_a_piece(chunk: bytes) -> bytes:
    return chunk if len(chunk) < 9000 else chunk[:-1] + bytes([chunk[-1] ^ 1])


def everything_came_back(sender: Pod, receiver: Pod) -> None:
    assert sender.peers.pushes == 0
    eventually(lambda: sender.pass_time(IDLE + 1) or receiver.granted == 0, "space is not given back")


@pytest.mark.parametrize("size", [1000, MIB, 5 * MIB])
def test_a_flipped_bit_is_mended_by_sending_its_piece_again(apart: tuple[Pod, Pod, Proxy], size: int) -> None:
    sender, receiver, line = apart
    failures, retries = damaged(), retried()
    data = marked(size)
    sent = bytes(data)
    line.up.damage(MARK)
    pushed = sender.push(line.address, data)
    assert pushed.reason is None
    assert receiver.stage.seen[pushed.transfer] == sent
    assert (damaged(), retried()) == (failures + 1, retries + 1)
    everything_came_back(sender, receiver)


@pytest.mark.parametrize("size", [1000, 5 * MIB])
def test_a_second_flipped_bit_fails_the_tensor_and_no_other(apart: tuple[Pod, Pod, Proxy], size: int) -> None:
    sender, receiver, line = apart
    line.up.damage(MARK, times=2 if size < MIB else 1000)  # in all of its pieces
    harmed = sender.push(line.address, marked(size), "harmed")
    sound = sender.push(line.address, noise(3 * MIB), "sound")
    assert harmed.reason == "DATA_CORRUPTED"
    assert sound.reason is None
    assert harmed.transfer not in receiver.stage.seen
    assert line.connections == 2, "the connection goes on"
    everything_came_back(sender, receiver)


def test_a_thousand_flipped_bits_are_all_caught(apart: tuple[Pod, Pod, Proxy]) -> None:
    sender, receiver, line = apart
    before = damaged()
    for round_ in range(100):
        line.up.damage(MARK, times=10)
        pushes = {number: sender.push(line.address, marked(500 + number), f"r{number}") for number in range(10)}
        for number, pushed in pushes.items():
            assert pushed.reason in {None, "DATA_CORRUPTED"}, round_
            assert (pushed.reason is None) == (pushed.transfer in receiver.stage.seen)
            assert receiver.stage.seen.get(pushed.transfer, marked(500 + number)) == marked(500 + number)
        eventually(lambda: not line.up.harms or sender.push(line.address, marked(900)).over, "bits are not flipped")
        while line.up.harms:
            sender.push(line.address, marked(900)).wait()
    assert damaged() - before == 1000
    everything_came_back(sender, receiver)


@pytest.mark.parametrize("harm", ["repeat", "lose"])
def test_bytes_that_come_twice_or_not_at_all_end_the_connection(apart: tuple[Pod, Pod, Proxy], harm: str) -> None:
    sender, receiver, line = apart
    (line.up.repeat if harm == "repeat" else line.up.lose)(MARK)
    pushed = sender.push(line.address, marked(2 * MIB))
    assert pushed.reason in {"STAGE_UNAVAILABLE", "DATA_CORRUPTED"}
    assert pushed.transfer not in receiver.stage.seen
    eventually(lambda: sender.push(line.address, noise(MIB)).reason is None, "it does not go on")
    everything_came_back(sender, receiver)


@pytest.mark.parametrize("mode", [Mode.TLS, Mode.AEAD])
def test_a_guarded_connection_ends_with_the_first_flipped_bit(shared: Path, mode: Mode) -> None:
    credentials = Authority(shared, "ca").issue("relay").credentials(mode)
    shape = Shape(size=16 * MIB, link=Link(timeout=5.0), credentials=credentials)
    with two_pods(shared, shape) as (sender, receiver), proxy(receiver.address) as line:
        assert sender.push(line.address, noise(10)).reason is None
        line.up.harms.append(flip_last_of_a_piece)
        pushed = sender.push(line.address, noise(MIB))
        assert pushed.reason == "STAGE_UNAVAILABLE"
        assert pushed.transfer not in receiver.stage.seen
        eventually(lambda: sender.push(line.address, noise(MIB)).reason is None, "it does not go on")


@pytest.mark.parametrize("size", [1000, 8 * MIB])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_line_that_falls_silent_is_given_up(apart: tuple[Pod, Pod, Proxy], direction: str, size: int) -> None:
    sender, receiver, line = apart
    way = line.up if direction == "up" else line.down
    way.stall()
    pushed = [sender.push(line.address, noise(size), f"r{number}") for number in range(3)]
    assert {push.reason for push in pushed} == {"STAGE_UNAVAILABLE"}
    eventually(lambda: receiver.peers.connections == 0, "the receiver does not notice")
    way.flowing.set()
    eventually(lambda: sender.push(line.address, noise(size)).reason is None, "it does not go on")
    everything_came_back(sender, receiver)


def test_an_idle_line_that_falls_silent_is_given_up_too(apart: tuple[Pod, Pod, Proxy]) -> None:
    _, receiver, line = apart
    line.up.stall()
    eventually(lambda: receiver.peers.connections == 0, "the receiver does not notice", 10 * TIMEOUT)


def test_a_slow_line_is_not_a_lost_one(apart: tuple[Pod, Pod, Proxy]) -> None:
    sender, _, line = apart
    line.up.rate = 2 * MIB
    assert sender.push(line.address, noise(3 * MIB)).reason is None
    assert line.connections == 2


def test_a_line_with_delay_keeps_everything_in_order(apart: tuple[Pod, Pod, Proxy]) -> None:
    sender, receiver, line = apart
    line.up.delay = line.down.delay = 0.02
    sent = {sender.push(line.address, data := noise(100_000, seed), f"r{seed}"): bytes(data) for seed in range(10)}
    assert {pushed.reason for pushed in sent} == {None}
    assert all(receiver.stage.seen[pushed.transfer] == data for pushed, data in sent.items())


def test_a_reset_in_the_middle_ends_what_is_under_way(apart: tuple[Pod, Pod, Proxy]) -> None:
    sender, receiver, line = apart
    for _ in range(5):
        line.up.rate = 50_000_000
        pushed = [sender.push(line.address, noise(6 * MIB), f"r{number}") for number in range(3)]
        await_movement(line)
        line.reset()
        assert "STAGE_UNAVAILABLE" in {push.reason for push in pushed} <= {"STAGE_UNAVAILABLE", None}
        line.up.rate = 0
        eventually(lambda: sender.push(line.address, noise(MIB)).reason is None, "it does not go on")
    everything_came_back(sender, receiver)


def test_what_was_delivered_outlives_its_connection(apart: tuple[Pod, Pod, Proxy]) -> None:
    sender, receiver, line = apart
    receiver.stage.keeps = True
    data = noise(MIB)
    sent = bytes(data)
    assert sender.push(line.address, data).reason is None
    arrived = receiver.stage.wait_for(2)[-1]
    line.reset()
    eventually(lambda: receiver.peers.connections == 0, "the receiver does not notice")
    others = [sender.push(line.address, noise(2 * MIB, seed), f"r{seed}") for seed in range(8)]
    assert {push.reason for push in others} <= {None, "STAGE_UNAVAILABLE", "OVERLOADED"}
    assert bytes(receiver.stage.view(arrived)) == sent
    for slot in receiver.stage.wait_for(2)[1:]:
        receiver.stage.release(slot)
    everything_came_back(sender, receiver)


def test_descriptors_and_threads_come_back_after_a_hundred_resets(apart: tuple[Pod, Pod, Proxy]) -> None:
    sender, _, line = apart
    process = psutil.Process()
    files, threads = process.num_fds(), process.num_threads()
    for _ in range(100):
        pushed = sender.push(line.address, noise(100_000))
        line.reset()
        assert pushed.reason in {None, "STAGE_UNAVAILABLE"}
    eventually(lambda: sender.push(line.address, noise(10)).reason is None, "it does not go on")
    eventually(lambda: process.num_fds() <= files and process.num_threads() <= threads, "something leaked")


@contextmanager
def pod_process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A pod in a process of its own, and its address."""
    command = [sys.executable, "-m", "tests.lab.pod_process", str(folder), str(TIMEOUT)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_relay_that_dies_or_hangs_ends_its_pushes_and_leaves_the_others_alone(
    shared: Path, number: signal.Signals
) -> None:
    shape = Shape(size=16 * MIB, link=Link(timeout=TIMEOUT))
    with (
        two_pods(shared, shape) as (sender, bystander),
        pod_process(shared / "c") as (process, address),
        proxy(address) as line,
    ):
        eventually(lambda: sender.push(line.address, noise(10)).reason is None, "it does not begin")
        line.up.rate = 5_000_000
        pushed = [sender.push(line.address, noise(3 * MIB), f"r{request}") for request in range(3)]
        await_movement(line)
        process.send_signal(number)
        beside = [sender.push(bystander.address, noise(MIB), f"r{request}") for request in range(5)]
        assert {push.reason for push in beside} == {None}
        reasons = {push.reason for push in pushed}
        # One that still waited for space when its relay hung may have given that up first.
        assert "STAGE_UNAVAILABLE" in reasons <= {"STAGE_UNAVAILABLE", "OVERLOADED"}
        assert sender.peers.pushes == 0


def test_a_relay_that_was_killed_is_found_again(shared: Path) -> None:
    with (
        two_pods(shared, Shape(size=16 * MIB, link=Link(timeout=TIMEOUT))) as (sender, _),
        pod_process(shared / "c") as (process, address),
        proxy(address) as line,
    ):
        assert sender.push(line.address, noise(10)).reason is None
        process.kill()
        process.wait(PATIENCE)
        eventually(lambda: sender.push(line.address, noise(10)).reason is not None, "its death goes unnoticed")
        with pod_process(shared / "d") as (_, line.target):
            eventually(lambda: sender.push(line.address, noise(10)).reason is None, "it is not found again")
