"""Relays and stages as processes on two nodes, and what networks do to them: what is under way ends cleanly and in
time, everything else goes on, what comes after the healing works, nothing stays behind."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from tests.lab.descriptors import open_files, threads
from tests.lab.netns import Node, Wire, missing, two_nodes
from tests.lab.nursery import Nursery, nursery
from tests.lab.pods import MIB, TOKEN, eventually, memory_folder
from tests.lab.stages import StageProcess, go_to, meeting_place, stage
from tests.relay_process import RelayProcess

pytestmark = pytest.mark.skipif(bool(LACK := missing()), reason=str(LACK))

# Seconds after which relays give each other up. What ends for that reason gets four times as long on a busy machine.
PEER_TIMEOUT = 1.0
IN_TIME = 4 * PEER_TIMEOUT
PORT = 7080
LARGE = 200 * MIB
# 200 MiB and the least of an extent for who comes second.
SIZE = 450 * MIB


@dataclass
class Pod:
    """One on a node: its relay, a stage that pushes and one that takes, each handing over to the other."""

    node: Node
    nursery: Nursery
    folder: Path
    settings: dict[str, str]
    port: int
    ending: ExitStack
    relay: RelayProcess = field(init=False)
    stages: list[StageProcess] = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.live_again()
        with meeting_place() as place, go_to(place) as way:
            makers = [stage(self.nursery, self.folder, name, at) for name, at in (("source", place), ("sink", way))]
            self.stages = [self.ending.enter_context(maker) for maker in makers]

    @property
    def address(self) -> str:
        return f"{self.node.address}:{self.port}"

    @property
    def source(self) -> StageProcess:
        return self.stages[0]

    @property
    def sink(self) -> StageProcess:
        return self.stages[1]

    def live_again(self) -> None:
        settings = self.settings | {"BIND": self.address}
        self.relay = self.ending.enter_context(self.nursery.relay(self.folder, **settings))

    def arena(self) -> dict[str, float]:
        """Bytes of it, by holder."""
        found = self.node.call(self.relay.metrics)
        name = "omni_relay_arena_bytes"
        return {key.split('"')[1]: value for key, value in found.items() if key.startswith(name)}

    def holds_nothing_for_peers(self) -> bool:
        found = self.arena()
        return found.get("peers") == found.get("revoked") == 0

    def goes_on(self) -> None:
        """Its stages hand tensors to each other just now."""
        handed = self.source.report()["handed"]
        self.source.until(lambda report: report["handed"] > handed + 20, "the pod stands still")


@dataclass
class Nodes:
    """A pod on each, and a third one beside the first."""

    wire: Wire
    left: Pod
    right: Pod
    beside: Pod

    @property
    def pods(self) -> tuple[Pod, Pod, Pod]:
        return self.left, self.right, self.beside

    def pushes(self) -> None:
        """Waits until tensors get from each node to the other, and beside."""
        eventually(lambda: self.left.source.pushes(self.right.address, "sink"), "nothing gets to the right")
        eventually(lambda: self.right.source.pushes(self.left.address, "sink"), "nothing gets to the left")
        eventually(lambda: self.left.source.pushes(self.beside.address, "sink"), "nothing gets to the pod beside")

    def stages_hold_nothing(self) -> None:
        """And not one byte was wrong."""
        for each in [each for pod in self.pods for each in pod.stages]:
            each.until_idle()
            assert each.report()["wrong"] == []

    def nobody_holds_anything(self) -> None:
        self.stages_hold_nothing()
        for pod in self.pods:
            eventually(pod.holds_nothing_for_peers, "space is not given back")
            assert len(list((pod.folder / "holds").iterdir())) == 3, "the relay's and the stages'"

    def open(self) -> list[tuple[int, int]]:
        """Descriptors and threads of the relays, and of the stages."""
        pids = [pod.relay.pid for pod in self.pods] + [each.pid for pod in self.pods for each in pod.stages]
        return [(open_files(pid), threads(pid)) for pid in pids]


def no_more(now: list[tuple[int, int]], before: list[tuple[int, int]]) -> bool:
    return all(one <= other for two in zip(now, before, strict=True) for one, other in zip(*two, strict=True))


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[Nodes, list[tuple[int, int]]]]:
    """With what they have open."""
    with memory_folder() as shared, two_nodes() as wire, ExitStack() as ending:
        token = shared / "token"
        token.write_bytes(TOKEN)
        settings = {"TOKEN_FILE": str(token), "PEER_TIMEOUT": f"{PEER_TIMEOUT}s", "HEARTBEAT": "250ms"}
        large = settings | {"ARENA_SIZE": str(SIZE), "EXTENT_SIZE": str(MIB)}
        small = settings | {"ARENA_SIZE": str(64 * MIB), "EXTENT_SIZE": str(MIB)}
        left, right = [ending.enter_context(nursery(*node.command())) for node in wire.nodes]
        nodes = Nodes(
            wire,
            Pod(wire.left, left, shared / "left", large, PORT, ending),
            Pod(wire.right, right, shared / "right", large, PORT, ending),
            Pod(wire.left, left, shared / "beside", small, PORT + 1, ending),
        )
        nodes.pushes()
        yield nodes, nodes.open()
        nodes.nobody_holds_anything()


@pytest.fixture
def nodes(made: tuple[Nodes, list[tuple[int, int]]]) -> Iterator[Nodes]:
    """With traffic within every pod. Afterwards everything is as it was before."""
    nodes, before = made
    nodes.pushes()
    for pod in nodes.pods:
        pod.source.say("hand over", sizes=[100, 70_000])
    yield nodes
    nodes.pushes()
    nodes.stages_hold_nothing()
    eventually(lambda: no_more(nodes.open(), before), f"{nodes.open()} descriptors and threads, not {before}", 10)


def test_tensors_of_all_sizes_cross(nodes: Nodes) -> None:
    for here, there in ((nodes.left, nodes.right), (nodes.right, nodes.left)):
        for size in (0, 1, 65536, MIB + 1, 20 * MIB):
            here.source.push(there.address, "sink", size, f"r{size}")
        for size in (0, 1, 65536, MIB + 1, 20 * MIB):
            assert here.source.ended(f"r{size}")["reason"] is None


@contextmanager
def under_way(nodes: Nodes, count: int = 3) -> Iterator[None]:
    """So many pushes to the right are in their middle, and a load goes to the pod beside."""
    source = nodes.left.source
    source.load(nodes.beside.address, "sink", [1000, 100_000], 2)
    nodes.right.sink.say("tell of arrivals")
    with nodes.wire.bandwidth(50 * MIB):
        for number in range(count):
            source.push(nodes.right.address, "sink", 40 * MIB, f"under way {number}")
        moved = _received(nodes.right)
        eventually(lambda: _received(nodes.right) > moved + 4 * MIB, "nothing moves")
    yield


def _received(pod: Pod) -> int:
    """Bytes that have come to its node."""

    def read() -> int:
        line = next(line for line in Path("/proc/thread-self/net/dev").read_text().splitlines() if "eth0:" in line)
        return int(line.split(":")[1].split()[0])

    return pod.node.call(read)


def ends_in_time(nodes: Nodes, count: int = 3) -> None:
    ends = [nodes.left.source.ended(f"under way {number}") for number in range(count)]
    # One that waited for room when its relay fell silent may have given that up first.
    assert "STAGE_UNAVAILABLE" in {end["reason"] for end in ends} <= {"STAGE_UNAVAILABLE", "OVERLOADED", None}
    assert max(end["seconds"] for end in ends) < IN_TIME + 3


def the_rest_goes_on(nodes: Nodes) -> None:
    for pod in nodes.pods:
        pod.goes_on()
    assert nodes.left.source.pushes(nodes.beside.address, "sink", 2 * MIB)


@pytest.mark.parametrize("how", ["DROP", "REJECT"])
def test_a_partition_ends_what_is_under_way_and_nothing_else(nodes: Nodes, how: Literal["DROP", "REJECT"]) -> None:
    with under_way(nodes), nodes.wire.partition(how):
        the_rest_goes_on(nodes)
        ends_in_time(nodes)
        assert not nodes.left.source.pushes(nodes.right.address, "sink")
        the_rest_goes_on(nodes)
    nodes.pushes()


@pytest.mark.parametrize("end", ["left", "right"])
def test_a_relay_that_is_killed_ends_what_is_under_way_and_nothing_else(nodes: Nodes, end: str) -> None:
    dies = nodes.left if end == "left" else nodes.right
    with under_way(nodes):
        dies.relay.process.kill()
        ends_in_time(nodes)
        for pod in nodes.pods:
            pod.goes_on()
        if dies is nodes.right:
            the_rest_goes_on(nodes)
    dies.live_again()
    nodes.pushes()


def test_a_short_silence_ends_nothing(nodes: Nodes) -> None:
    with under_way(nodes):
        with nodes.wire.partition("DROP"):
            nodes.right.goes_on()
        assert {nodes.left.source.ended(f"under way {number}")["reason"] for number in range(3)} == {None}


def test_a_small_tensor_is_not_stalled_by_200_mib_of_another_request(nodes: Nodes) -> None:
    source, sink = nodes.left.source, nodes.right.sink
    sink.say("tell of arrivals")
    eventually(lambda: nodes.right.arena()["peers"] < 32 * MIB, "a killed relay's peers keep their space")
    with nodes.wire.bandwidth(100 * MIB):
        moved = _received(nodes.right)
        source.push(nodes.right.address, "sink", LARGE, "large")
        eventually(lambda: _received(nodes.right) > moved + 4 * MIB, "nothing moves")
        for number in range(5):
            source.push(nodes.right.address, "sink", 100_000, f"small {number}")
            assert source.ended(f"small {number}")["seconds"] < 1
        assert source.ended("large")["reason"] is None
    order = [sink.hear("arrived", length=100_000)["request"] for _ in range(5)]
    assert order == [f"small {number}" for number in range(5)]


Fault = Callable[[Wire], AbstractContextManager[None]]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda wire: wire.loss(0.02), id="loss"),
        pytest.param(lambda wire: wire.delay(0.03), id="delay"),
        pytest.param(lambda wire: wire.delay(0.01, jitter=0.01), id="jitter"),
        pytest.param(lambda wire: wire.bandwidth(20 * MIB), id="bandwidth"),
    ],
)
def test_a_bad_network_is_only_slow(nodes: Nodes, fault: Fault) -> None:
    with fault(nodes.wire):
        for here, there in ((nodes.left, nodes.right), (nodes.right, nodes.left)):
            for number, size in enumerate([100, 100_000, 3 * MIB] * 3):
                here.source.push(there.address, "sink", size, f"r{number}")
        for here in (nodes.left, nodes.right):
            assert {here.source.ended(f"r{number}")["reason"] for number in range(9)} == {None}


def test_a_push_over_a_slow_wire_ends_at_its_deadline(nodes: Nodes) -> None:
    with nodes.wire.bandwidth(10 * MIB):
        nodes.left.source.push(nodes.right.address, "sink", 40 * MIB, "late", seconds=1.0)
        nodes.left.source.push(nodes.right.address, "sink", 100_000, "in time")
        late = nodes.left.source.ended("late")
        assert late["reason"] == "DEADLINE_EXCEEDED"
        assert 0.9 < late["seconds"] < 1 + IN_TIME
        assert nodes.left.source.ended("in time")["reason"] is None


def test_a_stranger_from_another_node_gets_nothing(nodes: Nodes) -> None:
    refused = sum(_refused(nodes.right))

    def come() -> None:
        with socket.create_connection((nodes.right.node.address, PORT), 5) as sock:
            sock.sendall(b"\xff" * 4096)

    for _ in range(20):
        nodes.left.node.call(come)
    eventually(lambda: sum(_refused(nodes.right)) >= refused + 20, "they are not counted")


def _refused(pod: Pod) -> list[float]:
    found = pod.node.call(pod.relay.metrics)
    return [value for name, value in found.items() if name.startswith("omni_relay_refused_peers_total")]
