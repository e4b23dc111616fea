"""UCX and NIXL between two real processes, without a GPU and without RDMA: by TCP on loopback."""

from __future__ import annotations

import importlib
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.unit.relay.carriers.between import Doing, OtherEnd, Process, Role, connected
from tests.unit.relay.carriers.other_end import PLACE, descriptors, sink_of, source_of

from omni_common.arena.memory import Arena
from omni_relay.peers.carriers.carrier import CarrierFailed, PushCarrier
from omni_relay.wire.record import Body, ChannelLost, Kind, Sink

MIB = 1024 * 1024
SIZE = 8 * MIB
PATIENT = 30.0
"""Seconds: a timeout that no test waits for."""
PROMPT = 5.0
"""Seconds: what notices at once has noticed long before, also on a busy machine."""
BRIEF = 0.5

NEEDS = {"ucx": "libucx", "nixl": "nixl_cu12"}


def needing(name: str) -> Any:
    reason = f"{name} needs the package {NEEDS[name]}: make relay-extras"
    return pytest.param(name, marks=pytest.mark.skipif(find_spec(NEEDS[name]) is None, reason=reason))


@pytest.fixture(scope="module", autouse=True)
def way() -> Iterator[None]:
    """By which UCX goes, so that it is the same on every machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UCX_TLS", "tcp,self")
        patch.setenv("UCX_NET_DEVICES", "lo")
        yield


@pytest.fixture(scope="module", params=[needing("ucx"), needing("nixl")])
def carrier(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def companion(way: None) -> Iterator[Process]:
    """Another process, for tests that leave it alive: starting one and loading what it needs takes a second."""
    process = Process()
    yield process
    process.end()


@pytest.fixture
def victim(way: None) -> Iterator[Process]:
    """Another process, for tests that do not."""
    process = Process()
    yield process
    process.end()


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    """The test's own."""
    arena = Arena.create(tmp_path, SIZE)
    arena.view[PLACE:] = os.urandom(SIZE - PLACE)
    yield arena
    arena.close()


def module_of(carrier: str) -> Any:
    return importlib.import_module(f"omni_relay.peers.carriers.{carrier}")


@contextmanager
def pushing(
    carrier: str, arena: Arena, process: Process, folder: Path, *, timeout: float = PATIENT
) -> Iterator[tuple[PushCarrier, OtherEnd]]:
    """This process pushes, the other one catches."""
    with connected(process, Role("catch", carrier, SIZE, PATIENT), folder / "there") as there:
        end = module_of(carrier).Push(arena.view, bytes.fromhex(process.says()), timeout)
        try:
            yield end, there
        finally:
            end.close()


class Announced:
    """A sink that lets others see that a piece was announced; the bytes named may be others than those that follow."""

    def __init__(self, sink: Sink, *, wrongly: bool = False) -> None:
        self._sink = sink
        self._wrongly = wrongly
        self.once = threading.Event()

    @property
    def longest(self) -> int:
        return self._sink.longest

    def send(self, kind: Kind, body: Body = b"", *, number: int = 0, offset: int = 0, more: bool = False) -> None:
        self._sink.send(kind, bytes(len(body)) if self._wrongly else body, number=number, offset=offset, more=more)
        self.once.set()

    def cut(self) -> None:
        self._sink.cut()

    def close(self) -> None:
        self._sink.close()


def test_pieces_of_every_size_arrive_in_their_place_and_nowhere_else_and_damaged_ones_are_seen(
    carrier: str, arena: Arena, companion: Process, tmp_path: Path
) -> None:
    with pushing(carrier, arena, companion, tmp_path) as (end, there), there.arena() as theirs:
        sink, place = sink_of(there.sock), PLACE
        for length in (1, 63, 64, 4096, 65_535, 300_000, MIB):
            piece = arena.view[place : place + length]
            end.carry(sink, piece, place, number=1, offset=place - PLACE)
            assert companion.says() == "whole"
            assert theirs.view[place : place + length] == piece
            assert not any(theirs.view[place + length : place + length + 64])
            place += (length + 127) // 64 * 64
        piece = arena.view[PLACE:][:MIB]
        end.carry(Announced(sink, wrongly=True), piece, PLACE, number=1, offset=0)
        assert companion.says() == "damaged"
        end.carry(sink, piece, PLACE, number=1, offset=0)
        assert companion.says() == "whole"
        sink.cut()
        assert companion.says() == "ChannelLost"
        assert companion.says() == "closed, 0 descriptors left"


def test_two_hundred_pieces_are_intact_and_neither_end_leaves_a_descriptor(
    carrier: str, arena: Arena, companion: Process, tmp_path: Path
) -> None:
    assert module_of(carrier).available(arena.view) is None
    chance = random.Random(2)  # noqa: S311  # the same pieces every time
    with connected(companion, Role("catch", carrier, SIZE, PATIENT), tmp_path / "there") as there:
        details = bytes.fromhex(companion.says())
        before = descriptors()
        end = module_of(carrier).Push(arena.view, details, PATIENT)
        sink = sink_of(there.sock)
        for _ in range(200):
            length = chance.choice((17, 5_000, 70_000, 400_000))
            start, place = (chance.randrange(PLACE, SIZE - length) for _ in range(2))
            end.carry(sink, arena.view[start : start + length], place, number=1, offset=place - PLACE)
            assert companion.says() == "whole"
        assert descriptors() > before
        end.close()
        end.close()
        assert descriptors() == before
        sink.cut()
        assert companion.says() == "ChannelLost"
        assert companion.says() == "closed, 0 descriptors left"


def test_a_peer_that_dies_during_a_piece_ends_it_at_once(
    carrier: str, arena: Arena, victim: Process, tmp_path: Path
) -> None:
    with pushing(carrier, arena, victim, tmp_path) as (end, there):
        sink = Announced(sink_of(there.sock))
        piece = arena.view[PLACE:][:MIB]
        end.carry(sink, piece, PLACE, number=1, offset=0)
        victim.stop()
        sink.once.clear()
        carrying = Doing(lambda: end.carry(sink, piece, PLACE, number=1, offset=0))
        assert sink.once.wait(PROMPT)
        victim.kill()
        carrying.join(PROMPT)
        assert isinstance(carrying.error, ChannelLost)


def test_a_peer_that_hangs_costs_the_timeout_and_leaves_nothing(
    carrier: str, arena: Arena, victim: Process, tmp_path: Path
) -> None:
    with connected(victim, Role("catch", carrier, SIZE, PATIENT), tmp_path / "there") as there:
        details = bytes.fromhex(victim.says())
        assert module_of(carrier).available(arena.view) is None
        before = descriptors()
        end = module_of(carrier).Push(arena.view, details, BRIEF)
        victim.stop()
        piece = arena.view[PLACE:][:MIB]
        carrying = Doing(lambda: end.carry(sink_of(there.sock), piece, PLACE, number=1, offset=0))
        carrying.join(BRIEF + PROMPT)
        assert isinstance(carrying.error, CarrierFailed), "it has never worked with this peer"
        assert carrying.seconds >= BRIEF
        end.close()
        assert descriptors() == before


def test_a_pusher_that_dies_after_its_word_ends_the_wait_at_once(
    carrier: str, arena: Arena, victim: Process, tmp_path: Path
) -> None:
    end = module_of(carrier).Catch(arena.view, PATIENT)
    with connected(victim, Role("push", carrier, PLACE + MIB, PATIENT), tmp_path / "there") as there:
        victim.tell(end.details.hex())
        victim.tell("announce")
        source = source_of(there.sock)
        head = source.receive()
        catching = Doing(lambda: end.catch(source, head, arena.view[PLACE:][: head.length]))
        victim.kill()
        catching.join(PROMPT)
        assert isinstance(catching.error, CarrierFailed | ChannelLost)
    end.close()


@pytest.mark.parametrize("given_up", ["closed by another thread", "too late"])
def test_after_a_piece_was_given_up_nothing_is_written_any_more(
    given_up: str, carrier: str, arena: Arena, companion: Process, tmp_path: Path
) -> None:
    closed = given_up == "closed by another thread"
    end = module_of(carrier).Catch(arena.view, PATIENT if closed else BRIEF)
    with connected(companion, Role("push", carrier, PLACE + MIB, BRIEF), tmp_path / "there") as there:
        companion.tell(end.details.hex())
        companion.tell("announce")
        source = source_of(there.sock)
        head = source.receive()
        catching = Doing(lambda: end.catch(source, head, arena.view[PLACE:][: head.length]))
        if closed:
            end.close()
        catching.join(BRIEF + PROMPT)
        assert isinstance(catching.error, CarrierFailed)
        end.close()
        before = bytes(arena.view)
        assert companion.says() == "done"
        companion.tell("carry")
        assert companion.says() == "CarrierFailed"
        assert arena.view == before
        companion.tell("close")


def test_details_that_make_no_sense_are_the_carriers_failure(carrier: str, arena: Arena) -> None:
    for details in (b"", bytes(8), bytes(64), os.urandom(300)):
        with pytest.raises(CarrierFailed):
            module_of(carrier).Push(arena.view, details, PATIENT)


@pytest.mark.parametrize("name", NEEDS)
def test_what_is_not_installed_is_a_sentence(name: str) -> None:
    """Whether or not it is installed here: the child cannot find it."""
    hidden = ["libucx", "nixl_cu12", "nixl_cu13"]
    script = (
        "import sys, ctypes\n"
        f"sys.modules.update(dict.fromkeys({hidden}))\n"
        f"from omni_relay.peers.carriers.{name} import available\n"
        "print(available(memoryview(bytearray(4096))))\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENT, check=True)
    assert ran.stdout.strip().endswith("."), ran.stdout
