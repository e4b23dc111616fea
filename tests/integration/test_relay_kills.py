"""Stages and relays that are killed by the hundred while they work: whoever lives on gets right bytes and hangs on
nothing, and nothing of the dead stays behind."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from tests.lab.descriptors import open_files, open_holds, threads
from tests.lab.nursery import Nursery, nursery
from tests.lab.pods import MIB, eventually, memory_folder
from tests.lab.stages import StageProcess, go_to, meeting_place, stage, start_stage
from tests.relay_process import RelayProcess

pytestmark = pytest.mark.timeout(240)

KILLS = 100
# Seconds within which a push whose relay dies has ended, on a busy machine.
IN_TIME = 8.0
# Killed at a time: a stage that starts costs as much as its work.
BATCH = 10
SETTINGS = {"ARENA_SIZE": str(64 * MIB), "EXTENT_SIZE": str(MIB // 2), "PEER_TIMEOUT": "2s", "HEARTBEAT": "250ms"}
SIZES = [100, 20_000, 100_000]
DICE = random.Random(7)  # noqa: S311  # no secret
"""When somebody dies."""


@dataclass
class Pod:
    nursery: Nursery
    folder: Path
    ending: ExitStack
    relay: RelayProcess = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.relay = self.ending.enter_context(self.nursery.relay(self.folder, **SETTINGS))

    @property
    def address(self) -> str:
        return str(self.relay.logged("listening")["address"])

    def stage(self, name: str, *neighbours: Any) -> StageProcess:
        return self.ending.enter_context(stage(self.nursery, self.folder, name, *neighbours))

    def live_again(self) -> None:
        self.relay = self.ending.enter_context(self.nursery.relay(self.folder, **SETTINGS, BIND=self.address))

    def is_unused(self) -> bool:
        """Nobody but living stages has any of its arena."""
        name = "omni_relay_arena_bytes"
        holders = {key.split('"')[1]: size for key, size in self.relay.metrics().items() if key.startswith(name)}
        held = {holder for holder, size in holders.items() if size}
        return bool(holders) and held <= {"free", "survivor", "other survivor"}

    @property
    def pid(self) -> int:
        return self.relay.pid

    def holds_at_most(self, count: int) -> bool:
        return len(list((self.folder / "holds").iterdir())) <= count


@pytest.fixture
def pods() -> Iterator[tuple[Pod, Pod]]:
    with memory_folder() as shared, ExitStack() as ending:
        made = ending.enter_context(nursery())
        yield Pod(made, shared / "a", ending), Pod(made, shared / "b", ending)


def _at_most(count: Callable[[int], int], pid: int, most: int) -> bool:
    return count(pid) <= most


Baseline = dict[int, tuple[int, int]]


def baseline(*processes: StageProcess | Pod) -> Baseline:
    """Descriptors and threads."""
    pids = [each.pid for each in processes]
    return {pid: (open_files(pid), threads(pid)) for pid in pids}


def nothing_is_left(before: Baseline, stages: Sequence[StageProcess], pods: Sequence[Pod]) -> None:
    """Stages hold nothing, arenas are free, and all have no more open than before. No byte was wrong."""
    for each in stages:
        each.until_idle()
        assert each.report()["wrong"] == []
    for pod in pods:
        eventually(pod.is_unused, "the arena is not free")
        eventually(partial(pod.holds_at_most, 1 + len(stages)), "the holds of the dead stay")
    for pid, (files, count) in before.items():
        eventually(partial(_at_most, open_files, pid, files), "descriptors leak")
        eventually(partial(_at_most, threads, pid, count), "threads leak")
        assert open_holds(pid) <= 1 + len(stages) + BATCH


def born(pod: Pod, place: socket.socket, batch: int) -> list[StageProcess]:
    """A batch of stages in that pod, beside the one that listens at `place`; all of them ready."""
    made = []
    for number in range(BATCH):
        with go_to(place) as way:
            made.append(start_stage(pod.nursery, pod.folder, f"dies-{batch}-{number}", way))
    for each in made:
        each.hear("ready")
    return made


def test_a_hundred_producers_killed_under_load_leave_nothing(pods: tuple[Pod, Pod]) -> None:
    here, there = pods
    with meeting_place() as place:
        beside, abroad = here.stage("survivor", place), there.stage("survivor")

        def live_and_die(batch: int) -> None:
            made = born(here, place, batch)
            for each in made:
                each.load(there.address, "survivor", SIZES, 3)
                each.say("hand over", sizes=SIZES)
            seen, delivered = beside.report()["seen"], abroad.report()["delivered"]
            beside.until(lambda report: report["seen"] > seen, "nothing is handed over")
            abroad.until(lambda report: report["delivered"] > delivered, "nothing is delivered")
            for each in made:
                sleep(DICE.random() * 0.02)  # a moment that nobody chose
                each.kill()

        live_and_die(0)
        eventually(here.is_unused, "the arena is not free")
        eventually(there.is_unused, "the arena is not free")
        before = baseline(here, there, beside, abroad)
        for batch in range(KILLS // BATCH):
            live_and_die(batch)
        nothing_is_left(before, [beside, abroad], pods)
        assert beside.report()["seen"] > KILLS
        assert abroad.report()["delivered"] > KILLS


def test_a_hundred_consumers_killed_under_load_leave_nothing(pods: tuple[Pod, Pod]) -> None:
    here, there = pods
    with meeting_place() as place:
        beside, abroad = here.stage("survivor", place), there.stage("survivor")
        beside.say("hand over", sizes=SIZES)
        bystander = there.stage("other survivor")

        def live_and_die(batch: int) -> None:
            made = born(here, place, batch)
            for each in made:
                each.say("keep", count=2)
                abroad.load(here.address, each.name, SIZES, 2)
            for each in made:
                each.until(lambda report: report["seen"] and report["delivered"], "nothing comes")
            for each in made:
                sleep(DICE.random() * 0.02)  # a moment that nobody chose
                each.kill()
            abroad.say("stop")

        live_and_die(0)
        bystander.load(here.address, "survivor", [1000], 1)
        eventually(lambda: abroad.report()["pushing"] == 0, "pushes to the dead do not end")
        before = baseline(here, there, beside, abroad, bystander)
        for batch in range(KILLS // BATCH):
            live_and_die(batch)
        nothing_is_left(before, [beside, abroad, bystander], pods)
        assert set(abroad.report()["reasons"]) <= {"delivered", "STAGE_UNAVAILABLE"}
        assert set(bystander.report()["reasons"]) == {"delivered"}


def delivers_more(sink: StageProcess) -> None:
    before = sink.report()["delivered"]
    sink.until(lambda report: report["delivered"] > before, "nothing is delivered")


def hands_over_more(source: StageProcess) -> None:
    before = source.report()["handed"]
    source.until(lambda report: report["handed"] > before + 20, "the pod stands still")


def test_a_hundred_relays_killed_under_load_come_back_and_their_pods_go_on(pods: tuple[Pod, Pod]) -> None:
    here, there = pods
    with meeting_place() as place, go_to(place) as way:
        source, beside = here.stage("survivor", place), here.stage("other survivor", way)
        sink = there.stage("survivor")
        sink.say("keep", count=2)
        source.say("hand over", sizes=SIZES)
        source.load(there.address, "survivor", SIZES, 2)
        before: Baseline = {}
        for life in range(1 + KILLS // 2):
            delivers_more(sink)
            if life == 1:  # its first death has happened, and all have looked at all holds
                before = baseline(source, beside, sink)
            sleep(DICE.random() * 0.02)  # a moment that nobody chose
            for pod in pods if life % 2 else reversed(pods):
                pod.relay.process.kill()
            hands_over_more(source)
            for pod in pods:
                pod.live_again()
                assert pod.relay.logged("the arena is adopted")
        eventually(lambda: source.pushes(there.address, "survivor"), "it is not found again")
        nothing_is_left(before, [source, beside, sink], pods)
        assert set(source.report()["reasons"]) <= {"delivered", "STAGE_UNAVAILABLE"}
        assert source.report()["slowest"] < IN_TIME


def test_ten_thousand_aborted_transfers_leave_nothing(pods: tuple[Pod, Pod]) -> None:
    here, there = pods
    source, sink = here.stage("survivor"), there.stage("survivor")
    assert source.pushes(there.address, "survivor")
    before = baseline(here, there, source, sink)
    source.say("abort", to=there.address, consumer="survivor", count=10_000, lanes=32)
    eventually(lambda: sum(source.report()["reasons"].values()) > 10_000, "they do not end", 60)
    source.hear("aborted")
    nothing_is_left(before, [source, sink], pods)
    reasons = source.report()["reasons"]
    assert set(reasons) == {"CANCELLED", "delivered"}
    assert min(reasons.values()) > 1000, "before, under way, and afterwards"
    assert source.pushes(there.address, "survivor")
