"""Other ways than the connection itself, and what happens when they fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lab.pods import MIB, Shape, counted, eventually, memory_folder, noise, two_pods

from omni_relay.core.allotment import IDLE
from omni_relay.peers.carriers.registry import CARRIERS

DIRECT = {"tcp": CARRIERS["tcp"], "ucx": "tests.lab.direct_carrier"}
BROKEN = {"tcp": CARRIERS["tcp"], "ucx": "tests.lab.broken_carrier"}


@pytest.fixture
def shared() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


def shape(carriers: dict[str, str]) -> Shape:
    return Shape(size=32 * MIB, transports=("ucx", "tcp"), carriers=carriers)


@pytest.mark.parametrize("size", [0, 1, MIB, 5 * MIB + 7])
def test_pieces_may_travel_beside_the_connection(shared: Path, size: int) -> None:
    with two_pods(shared, shape(DIRECT)) as (sender, receiver):
        data = noise(size)
        sent = bytes(data)
        pushed = sender.push(receiver.address, data)
        assert pushed.reason is None
        assert pushed.verdicts[0].transport == "ucx"
        assert receiver.stage.seen[pushed.transfer] == sent
        assert counted("omni_relay_peers", direction="in", transport="ucx", reason="preferred") == 1
        eventually(lambda: sender.pass_time(IDLE + 1) or receiver.granted == 0, "space is not given back")


def test_what_is_aborted_beside_the_connection_is_not_written_over_what_comes_later(shared: Path) -> None:
    with two_pods(shared, shape(DIRECT)) as (sender, receiver):
        for round_ in range(200):
            given_up = sender.push(receiver.address, noise(2 * MIB, round_), f"a{round_}")
            sender.peers.cancel(given_up.transfer)
            data = noise(100_000, round_)
            sent = bytes(data)
            kept = sender.push(receiver.address, data, f"b{round_}")
            assert kept.reason is None
            assert receiver.stage.seen[kept.transfer] == sent
            assert given_up.reason in {"CANCELLED", None}


def test_a_carrier_that_breaks_is_left_out_by_the_next_connection(shared: Path) -> None:
    with two_pods(shared, shape(BROKEN)) as (sender, receiver):
        assert sender.push(receiver.address, noise(MIB)).reason == "STAGE_UNAVAILABLE"
        eventually(lambda: sender.push(receiver.address, noise(MIB)).reason is None, "nothing else is tried")
        assert sender.push(receiver.address, noise(MIB)).wait().transport == "tcp"
        assert counted("omni_relay_peers", direction="out", transport="tcp", reason="fallback") == 1


def test_a_carrier_that_the_other_relay_lacks_is_not_used(shared: Path) -> None:
    with two_pods(shared, shape(DIRECT), Shape(size=32 * MIB)) as (sender, receiver):
        assert sender.push(receiver.address, noise(MIB)).wait().transport == "tcp"
        assert counted("omni_relay_peers", direction="out", transport="tcp", reason="unshared") == 1


def test_one_that_works_at_one_end_only_is_left_out_too(shared: Path) -> None:
    with two_pods(shared, shape(DIRECT), shape(BROKEN)) as (sender, receiver):
        eventually(lambda: sender.push(receiver.address, noise(MIB)).reason is None, "nothing else is tried")
        assert sender.push(receiver.address, noise(MIB)).wait().transport == "tcp"
