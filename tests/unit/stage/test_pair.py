"""Pairs of processes that hand tensors over by a communicator, and what becomes of one whose other end dies or hangs.

Gloo stands in for NCCL: the life of a pair is the same code.
"""

from __future__ import annotations

import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tests.lab.readable import readable
from tests.unit.stage.pair_process import HANGING, made_of

from omni_common.clock import monotonic
from omni_common.deadline import Deadline
from omni_stage.components.device_memory import TorchMemory
from omni_stage.components.pair_group import GlooGroup, GroupFailed
from omni_stage.components.pair_receiver import PairFailed, PairReceiver
from omni_stage.components.pair_sender import PairSender

OWNER = 7
TIMEOUT = 2.0
PATIENCE = 20.0  # of the tests; a loaded machine takes seconds to import torch


class Wishes:
    """What became of fetches, in the order in which it did."""

    def __init__(self, receiver: PairReceiver) -> None:
        self.receiver = receiver
        self.ended: queue.SimpleQueue[tuple[int, TorchMemory | PairFailed]] = queue.SimpleQueue()

    def fetch(self, number: int, length: int, seconds: float = PATIENCE) -> None:
        deadline = Deadline.after(seconds, monotonic)
        self.receiver.fetch(number, length, deadline, lambda outcome: self.ended.put((number, outcome)))

    def next(self) -> tuple[int, TorchMemory | PairFailed]:
        return self.ended.get(timeout=PATIENCE)

    def get(self, number: int, length: int) -> None:
        """Fetches one, and finds it right."""
        self.fetch(number, length)
        self.expect(number, length)

    def expect(self, number: int, length: int) -> None:
        came, memory = self.next()
        assert came == number
        assert isinstance(memory, TorchMemory), memory
        assert torch.equal(memory.tensor(), made_of(number, length))

    def failure(self) -> str:
        _, failed = self.next()
        assert isinstance(failed, PairFailed)
        return str(failed)

    def get_soon(self, number: int, length: int) -> None:
        """Fetches one as soon as the pair has rested."""
        deadline = Deadline.after(PATIENCE, monotonic)
        while not deadline.passed:
            self.fetch(number, length)
            came, outcome = self.next()
            if isinstance(outcome, TorchMemory):
                assert (came, torch.equal(outcome.tensor(), made_of(number, length))) == (number, True)
                return
        raise AssertionError("the pair never came back")


@contextmanager
def fetching(folder: Path, timeout: float = TIMEOUT, first_rest: float = 0.01) -> Iterator[Wishes]:
    receiver = PairReceiver(folder, OWNER, GlooGroup, timeout=timeout, first_rest=first_rest)
    yield Wishes(receiver)
    receiver.close()


class Other:
    """The process that offers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        script = Path(__file__).with_name("pair_process.py")
        command = [sys.executable, str(script), str(folder), str(OWNER), str(TIMEOUT)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def hear(self, line: str) -> None:
        assert self.process.stdout is not None
        assert readable(self.process.stdout, PATIENCE), f"never said {line}"
        assert self.process.stdout.readline().strip() == line

    def offer(self, tensors: Mapping[int, int]) -> None:
        """Lengths by their numbers."""
        assert self.process.stdin is not None
        print(*(word for tensor in tensors.items() for word in tensor), file=self.process.stdin, flush=True)
        self.hear("offered")

    def stop(self) -> None:
        """Returns when none of its threads runs any more."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Other]:
    other = Other(tmp_path)
    other.hear("ready")
    yield other
    other.end()


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Other]:
    """One for several tests, since it takes seconds to start."""
    other = Other(tmp_path_factory.mktemp("pod"))
    other.hear("ready")
    yield other
    other.end()


@pytest.fixture
def offers(tmp_path: Path) -> Iterator[PairSender]:
    """The sending end in this very process, for what needs no other."""
    sender = PairSender(tmp_path, OWNER, GlooGroup, timeout=TIMEOUT)
    yield sender
    sender.close()


def _offer(sender: PairSender, number: int, length: int) -> threading.Event:
    sent = threading.Event()
    sender.offer(number, TorchMemory(made_of(number, length)), sent.set)
    return sent


def test_two_hundred_tensors_come_whole_in_the_order_in_which_they_were_asked_for(lasting: Other) -> None:
    rng = random.Random(1)  # noqa: S311
    lengths = {number: rng.choice([1, 100, 70_000, 300_000]) for number in range(200)}
    lasting.offer(lengths)
    order = rng.sample(sorted(lengths), len(lengths))
    with fetching(lasting.folder) as wishes:
        for number in order:
            wishes.fetch(number, lengths[number])
        for number in order:
            wishes.expect(number, lengths[number])


def test_a_hang_ends_by_the_deadline_and_the_pair_comes_back_until_its_process_is_killed(
    other: Other, tmp_path: Path
) -> None:
    other.offer({1: HANGING, 2: 5000, 3: 5000, 4: HANGING, 5: 5000})
    with fetching(tmp_path) as wishes:
        # It hangs in the middle of a transfer.
        began = time.monotonic()
        wishes.fetch(1, HANGING)
        other.hear("hanging")
        wishes.failure()
        assert time.monotonic() - began < TIMEOUT + 3.0
        wishes.get_soon(2, 5000)
        # It hangs as a whole.
        other.stop()
        wishes.fetch(3, 5000)
        assert "no answer" in wishes.failure()
        other.process.send_signal(signal.SIGCONT)
        wishes.get_soon(3, 5000)
        # It dies in the middle of a transfer: nobody waits for the deadline.
        wishes.fetch(4, HANGING)
        other.hear("hanging")
        other.process.kill()
        began = time.monotonic()
        wishes.failure()
        assert time.monotonic() - began < TIMEOUT
        wishes.fetch(5, 5000)
        wishes.failure()


def test_a_process_ends_at_once_whoever_hangs(lasting: Other) -> None:
    lasting.offer({1000: HANGING})
    script = f"""
import sys
from pathlib import Path
from omni_common.deadline import Deadline
from omni_common.lifecycle import leave
from omni_stage.components.pair_group import GlooGroup
from omni_stage.components.pair_receiver import PairReceiver
receiver = PairReceiver(Path(sys.argv[1]), {OWNER}, GlooGroup, timeout=600.0)
receiver.fetch(1000, {HANGING}, Deadline.after(600.0), print)
sys.stdin.readline()
leave(0)
"""
    with subprocess.Popen([sys.executable, "-c", script, str(lasting.folder)], stdin=subprocess.PIPE) as receiver:
        lasting.hear("hanging")
        assert receiver.stdin is not None
        receiver.stdin.close()
        assert receiver.wait(PATIENCE) == 0


def test_what_was_sent_is_offered_no_more(offers: PairSender, tmp_path: Path) -> None:
    sent = _offer(offers, 1, 1000)
    with fetching(tmp_path) as wishes:
        wishes.get(1, 1000)
        assert sent.wait(PATIENCE)
        assert len(offers) == 0
        wishes.fetch(1, 1000)
        assert wishes.failure() == "no longer has it"


def test_what_is_withdrawn_leaves_no_gap(offers: PairSender, tmp_path: Path) -> None:
    withdrawn, kept = _offer(offers, 1, 1000), _offer(offers, 2, 1000)
    assert offers.withdraw(1)
    assert not offers.withdraw(1)
    with fetching(tmp_path) as wishes:
        wishes.fetch(1, 1000)
        wishes.fetch(2, 1000)
        assert wishes.failure() == "no longer has it"
        wishes.expect(2, 1000)
    assert kept.wait(PATIENCE)
    assert not withdrawn.is_set()


def test_a_reference_with_another_length_gets_nothing(offers: PairSender, tmp_path: Path) -> None:
    _offer(offers, 1, 1000)
    with fetching(tmp_path) as wishes:
        wishes.fetch(1, 999)
        assert wishes.failure() == "no longer has it"
        wishes.get(1, 1000)


def test_what_is_cancelled_is_not_fetched(offers: PairSender, tmp_path: Path) -> None:
    _offer(offers, 1, 1000)
    gate = threading.Event()
    opened: list[bool] = []
    with fetching(tmp_path) as wishes:
        # The first answer is held up, so that the others wait their turn.
        wishes.receiver.fetch(99, 1, Deadline.after(PATIENCE), lambda _: opened.append(gate.wait(PATIENCE)))
        wishes.fetch(1, 1000)
        wishes.receiver.cancel(1)
        gate.set()
        assert wishes.failure() == "is no longer asked for it"
    assert len(offers) == 1


def test_a_wish_whose_time_is_over_is_not_sent(offers: PairSender, tmp_path: Path) -> None:
    _offer(offers, 1, 1000)
    with fetching(tmp_path) as wishes:
        wishes.fetch(1, 1000, seconds=0.0)
        assert wishes.failure() == "came to it too late"
    assert len(offers) == 1


def test_an_offer_whose_pair_broke_still_stands(tmp_path: Path) -> None:
    class Breaking(GlooGroup):
        def send(self, memory: TorchMemory, deadline: Deadline) -> None:
            raise GroupFailed("broke, as the test wants it")

    sender = PairSender(tmp_path, OWNER, Breaking, timeout=TIMEOUT)
    sent = _offer(sender, 1, 1000)
    with fetching(tmp_path) as wishes:
        wishes.fetch(1, 1000)
        wishes.failure()
    assert sender.withdraw(1)
    assert not sent.is_set()
    sender.close()


def test_a_pair_that_failed_rests_and_what_is_asked_for_fails_at_once(tmp_path: Path) -> None:
    with fetching(tmp_path, first_rest=60.0) as wishes:
        for number in range(3):
            wishes.fetch(number, 1000)
        assert wishes.failure() == "finds no other end"
        assert wishes.failure() == "has failed just now"
        assert wishes.failure() == "has failed just now"


def test_ends_leave_nothing_in_the_pods_folder(tmp_path: Path) -> None:
    sender = PairSender(tmp_path, OWNER, GlooGroup, timeout=TIMEOUT)
    _offer(sender, 1, 1000)
    with fetching(tmp_path) as wishes:
        wishes.get(1, 1000)
    sender.close()
    deadline = Deadline.after(PATIENCE, monotonic)
    while list((tmp_path / "pairs").iterdir()):
        assert not deadline.passed
        time.sleep(0.01)
