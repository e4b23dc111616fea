"""The relay as its pod's stages see it: a process with a socket and an arena, that may die and come again."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.relay_client import StageClient
from tests.relay_process import RelayProcess, running_relay, starting_relay

from omni.common.v1.tensor_pb2 import ArenaSlot
from omni_common.arena import Arena, ArenaReader, ArenaWriter, HoldTable, HoldTables
from omni_common.arena.extents import Extent
from omni_common.arena.layout import EXTENTS
from omni_common.request import RequestKey
from omni_common.tensor import DType, Tensor
from omni_common.testing.mail import PATIENCE

EXTENT = 64 << 10
# Room for sixteen extents: eight for stages.
POD = {"ARENA_SIZE": str(16 * EXTENT + EXTENTS), "EXTENT_SIZE": str(EXTENT)}
KEY = RequestKey("req_1", 1)
FOREVER = float("inf")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def relay(folder: Path) -> Iterator[RelayProcess]:
    with running_relay(folder, **POD) as relay:
        yield relay


def bytes_of(pattern: int) -> Tensor:
    return Tensor(DType.UINT8, (4096,), memoryview(bytes([pattern]) * 4096))


class Memory:
    """What a stage's process has of the arena."""

    def __init__(self, folder: Path, epoch: int) -> None:
        self.arena = Arena.open(folder, epoch)
        self.holds = HoldTable.create(folder, "test")
        self.reader = ArenaReader(self.arena, self.holds)
        self.writer = ArenaWriter(self.arena, self.holds, HoldTables(folder))

    def put(self, extent: Extent, pattern: int) -> ArenaSlot:
        assert self.writer.grant(extent)
        slot = self.writer.put(bytes_of(pattern), KEY, FOREVER)
        assert slot is not None
        return slot

    def view(self, slot: ArenaSlot) -> memoryview:
        return self.reader.lend(slot, 4096, lambda slot: None)


# Extents


def test_a_stage_gets_extents_of_the_arena_and_gives_them_back(relay: RelayProcess, folder: Path) -> None:
    with StageClient(folder) as echo:
        welcome = echo.hello("echo")
        arena = Arena.open(folder, welcome.arena_epoch)
        assert welcome.address == relay.logged("listening")["address"]
        assert arena.size == 16 * EXTENT + EXTENTS
        one, two = echo.get(1), echo.get(EXTENT + 1)
        assert (one.size, two.size) == (EXTENT, 2 * EXTENT)
        assert [arena.extent_epoch(extent.index) for extent in (one, two)] == [one.epoch, two.epoch]
        echo.give_back(two)
        five = echo.get(5 * EXTENT)
        assert five.size == 5 * EXTENT
        six = echo.get(2 * EXTENT)  # only when what was given back has settled
        assert arena.extent_epoch(six.index) == six.epoch
    arena.close()


def test_what_can_never_come_is_refused(relay: RelayProcess, folder: Path) -> None:
    with StageClient(folder) as echo:
        echo.hello("echo")
        echo.want(9 * EXTENT)
        assert echo.hear("refused").refused.size == 9 * EXTENT


def test_a_dead_stages_extents_are_void_at_once_and_its_space_serves_another_within_5_s(
    relay: RelayProcess, folder: Path
) -> None:
    with StageClient(folder) as speak:
        with StageClient(folder) as echo:
            arena = Arena.open(folder, echo.hello("echo").arena_epoch)
            speak.hello("speak")
            theirs = echo.get(7 * EXTENT)
            first = speak.get(EXTENT)
            speak.want(6 * EXTENT)
            assert speak.says_nothing_for(0.3)
            died = time.monotonic()
        extent = speak.granted()
        assert time.monotonic() - died < 5
        assert arena.extent_epoch(theirs.index) in (0, extent.epoch)
        assert not first.offset < extent.offset < first.end
    arena.close()


def test_what_a_living_process_looks_at_is_not_reused_though_its_owner_died(relay: RelayProcess, folder: Path) -> None:
    with StageClient(folder) as speak:
        with StageClient(folder) as echo:
            memory = Memory(folder, echo.hello("echo").arena_epoch)
            speak.hello("speak")
            slot = memory.put(echo.get(7 * EXTENT), 7)
            memory.writer.revoke(slot.extent)
            view = memory.view(slot) if memory.arena.extent_epoch(slot.extent) else None
            assert view is not None
        speak.want(7 * EXTENT)
        assert speak.says_nothing_for(1.0)
        assert view == bytes([7]) * 4096
        del view
        assert speak.granted().size == 7 * EXTENT


def test_a_stage_that_was_cut_off_but_lives_keeps_its_memory_until_it_understands(
    relay: RelayProcess, folder: Path
) -> None:
    with StageClient(folder) as speak, StageClient(folder) as echo:
        memory = Memory(folder, echo.hello("echo").arena_epoch)
        speak.hello("speak")
        extent = echo.get(7 * EXTENT)
        assert memory.writer.grant(extent)
        echo.socket.send(b"nonsense")
        echo.ends()
        speak.want(7 * EXTENT)
        assert speak.says_nothing_for(1.0)
        memory.writer.revoke(extent.index)
        assert speak.granted().size == 7 * EXTENT


def test_a_stage_that_comes_back_while_its_old_line_stands_takes_its_place(relay: RelayProcess, folder: Path) -> None:
    with StageClient(folder) as old, StageClient(folder) as new:
        epoch = old.hello("echo").arena_epoch
        kept, dropped = old.get(1), old.get(1)
        assert [e.index for e in new.hello("echo", epoch, [kept]).extents] == [kept.index]
        old.ends()
        arena = Arena.open(folder, epoch)
        assert arena.extent_epoch(kept.index) == kept.epoch
        assert arena.extent_epoch(dropped.index) == 0
        arena.close()


# The relay's own death


def test_a_relay_that_was_killed_finds_its_arena_and_its_stages_what_they_had(folder: Path) -> None:
    with running_relay(folder, **POD) as first, StageClient(folder) as echo, StageClient(folder) as speak:
        epoch = echo.hello("echo").arena_epoch
        memory = Memory(folder, epoch)
        speak.hello("speak")
        mine, forgotten = echo.get(1), echo.get(1)
        others = speak.get(6 * EXTENT)
        slot = memory.put(mine, 7)
        os.kill(first.pid, signal.SIGKILL)
        echo.ends()
        assert memory.view(slot) == bytes([7]) * 4096  # between two lives
    with running_relay(folder, **POD) as second, StageClient(folder) as echo, StageClient(folder) as think:
        assert second.logged("the arena is adopted")["extents"] == 3
        welcome = echo.hello("echo", epoch, [mine])
        assert welcome.arena_epoch == epoch
        assert [extent.index for extent in welcome.extents] == [mine.index]
        assert memory.view(slot) == bytes([7]) * 4096
        think.hello("think")
        extent = think.get(7 * EXTENT)  # only when nobody has claimed the others
        assert mine.end <= extent.offset
        for lost in (forgotten, others):
            assert memory.arena.extent_epoch(lost.index) in (0, extent.epoch)
        assert memory.view(slot) == bytes([7]) * 4096


def test_a_relay_with_another_size_makes_another_arena_and_stages_learn_of_it(folder: Path) -> None:
    with running_relay(folder, **POD) as first, StageClient(folder) as echo:
        epoch = echo.hello("echo").arena_epoch
        extent = echo.get(1)
        first.process.kill()
        first.ended()
    with running_relay(folder, **POD | {"ARENA_SIZE": "2MiB"}), StageClient(folder) as echo:
        welcome = echo.hello("echo", epoch, [extent])
        assert welcome.arena_epoch != epoch
        assert not welcome.extents
        assert (folder / "arena").stat().st_size == 2 << 20


@pytest.mark.parametrize("damage", [b"", bytes(100), secrets.token_bytes(1 << 15)], ids=["empty", "short", "random"])
def test_a_ledger_that_is_not_sound_is_not_believed(folder: Path, damage: bytes) -> None:
    with running_relay(folder, **POD) as first, StageClient(folder) as echo:
        epoch = echo.hello("echo").arena_epoch
        first.process.kill()
        first.ended()
    (folder / "grants").write_bytes(damage)
    with running_relay(folder, **POD), StageClient(folder) as echo:
        assert echo.hello("echo").arena_epoch != epoch


def test_a_second_relay_in_the_same_folder_is_refused_in_one_sentence(relay: RelayProcess, folder: Path) -> None:
    with starting_relay(folder, **POD) as second:
        assert second.ended() == 1
        assert second.log[-1]["msg"] == f"Another relay serves the folder {folder} already."
    with StageClient(folder) as echo:
        assert echo.hello("echo").arena_epoch


# Its end


def test_a_clean_end_leaves_nothing_where_no_stage_is_connected(folder: Path) -> None:
    with running_relay(folder, **POD) as relay:
        with StageClient(folder) as echo:
            echo.hello("echo")
            echo.get(1)
        relay.logged("a stage has gone")
        relay.process.terminate()
        assert relay.ended() == 0
    assert {path.name for path in folder.iterdir()} == {"holds", "lock"}
    assert list((folder / "holds").iterdir()) == []


def test_a_clean_end_leaves_the_memory_of_stages_that_live_to_the_next_life(folder: Path) -> None:
    with running_relay(folder, **POD) as first, StageClient(folder) as echo:
        epoch = echo.hello("echo").arena_epoch
        memory = Memory(folder, epoch)
        extent = echo.get(1)
        slot = memory.put(extent, 3)
        first.process.terminate()
        assert first.ended() == 0
        echo.ends()
        assert memory.view(slot) == bytes([3]) * 4096
    with running_relay(folder, **POD), StageClient(folder) as echo:
        assert [e.index for e in echo.hello("echo", epoch, [extent]).extents] == [extent.index]
        assert memory.view(slot) == bytes([3]) * 4096


# Strangers and liars


def cut(folder: Path, *packets: bytes) -> None:
    """The line of one who sends these ends."""
    with StageClient(folder) as client:
        try:
            for packet in packets:
                client.socket.send(packet)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was cut after the first
        client.ends()


def test_random_bytes_end_their_line_and_nothing_else(relay: RelayProcess, folder: Path) -> None:
    with StageClient(folder) as echo:
        echo.hello("echo")
        for _ in range(100):
            cut(folder, secrets.token_bytes(1 + secrets.randbelow(4096)))
        cut(folder, bytes(1 << 16))
        cut(folder, bytes((1 << 16) + 1))
        cut(folder, bytes(200_000))
        cut(folder, b"")
        assert echo.get(1).size == EXTENT


def test_a_line_that_says_nothing_is_cut(relay: RelayProcess, folder: Path) -> None:
    with StageClient(folder) as client:
        client.ends()
    assert relay.logged("a stage is cut off")["why"] == "it says nothing"


def test_more_lines_than_there_may_be_are_refused_and_the_others_live(relay: RelayProcess, folder: Path) -> None:
    with ExitStack() as stack:
        echo = stack.enter_context(StageClient(folder))
        echo.hello("echo")
        for _ in range(80):
            stack.enter_context(StageClient(folder))
        relay.logged("a line is refused: there are as many as there may be")
        assert echo.get(1).size == EXTENT


def test_a_thousand_lines_come_and_go_and_leave_nothing(relay: RelayProcess, folder: Path) -> None:
    def come_and_go(times: int) -> None:
        for _ in range(times):
            with StageClient(folder) as client:
                client.hello("passer-by")

    files = relay.open_files()
    come_and_go(100)
    until(lambda: relay.open_files() == files)
    memory = relay.memory()
    come_and_go(1000)
    until(lambda: relay.open_files() == files)
    assert relay.memory() - memory < 1 << 20


def until(condition: Callable[[], bool]) -> None:
    """What another process has open or counts cannot be waited for, so it is asked again and again."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline


def test_the_socket_is_for_the_owner_and_the_group(relay: RelayProcess, folder: Path) -> None:
    path = folder / "relay.sock"
    assert path.stat().st_mode & 0o777 == 0o660
    assert path.is_socket()


# What it tells


def test_metrics_say_who_has_how_much(relay: RelayProcess, folder: Path) -> None:
    def has(holder: str) -> float | None:
        return relay.metrics().get(f'omni_relay_arena_bytes{{holder="{holder}"}}')

    with StageClient(folder) as echo:
        echo.hello("echo")
        echo.get(2 * EXTENT)
        until(lambda: (has("echo"), has("free")) == (2 * EXTENT, 14 * EXTENT))
        assert relay.metrics()["omni_relay_stages"] == 1
    until(lambda: (has("echo"), has("free")) == (None, 16 * EXTENT))
    assert relay.metrics()['omni_relay_reclaimed_bytes_total{holder="stages"}'] == 2 * EXTENT
