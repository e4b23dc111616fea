"""Two relays that are to use UCX or NIXL: when they do, when they do without, and what they say about it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from tests.lab.pods import KIB, MIB, Pod, Pushed, Shape, eventually, memory_folder, two_pods
from tests.unit.relay.wire.authority import Authority

from omni_common.telemetry import names
from omni_relay.core.allotment import IDLE
from omni_relay.peers import outbound
from omni_relay.peers.carriers.registry import CARRIERS
from omni_relay.wire.credentials import Mode

NEEDS = {"ucx": "libucx", "nixl": "nixl_cu12"}
BREAKING = {**CARRIERS, **{name: f"tests.integration.breaking.{name}" for name in NEEDS}}


def needing(name: str) -> Any:
    reason = f"{name} needs the package {NEEDS[name]}: make relay-extras"
    return pytest.param(name, marks=pytest.mark.skipif(find_spec(NEEDS[name]) is None, reason=reason))


@pytest.fixture(params=[needing("ucx"), needing("nixl")])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Goes by loopback, so that it is the same on every machine."""
    monkeypatch.setenv("UCX_TLS", "tcp,self")
    monkeypatch.setenv("UCX_NET_DEVICES", "lo")
    return str(request.param)


@pytest.fixture
def shared() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


def push(sender: Pod, receiver: Pod, size: int) -> tuple[Pushed, bytes]:
    """From the sender's own arena, as stages push; NIXL knows no other memory."""
    data = sender.arena.view[8192 : 8192 + size]
    data[:] = (f"{size}".encode() * (size // 3 + 3))[:size]
    sent = bytes(data)
    return sender.push(receiver.address, cast("bytearray", data)), sent


def connected(transport: str, reason: str) -> float:
    return float(names.RELAY_PEERS.labels("out", transport, reason)._value.get())


def using(transport: str) -> Shape:
    return Shape(size=64 * MIB, transports=(transport, "tcp"))


def test_tensors_cross_by_the_transport_that_both_prefer(transport: str, shared: Path) -> None:
    with two_pods(shared, using(transport)) as (sender, receiver):
        for size in (1, 64 * KIB, 300_000, MIB, MIB + 1, 20 * MIB):
            pushed, sent = push(sender, receiver, size)
            assert pushed.reason is None
            assert pushed.wait().transport == transport
            assert receiver.stage.seen[pushed.transfer] == sent
        assert connected(transport, "preferred") == 1
    assert connected(transport, "preferred") == 0


def test_an_idle_connection_leaves_nothing_behind_and_comes_again(transport: str, shared: Path) -> None:
    with two_pods(shared, using(transport)) as (sender, receiver):
        files = psutil.Process().num_fds()
        for _ in range(3):
            assert push(sender, receiver, 3 * MIB)[0].reason is None
            sender.pass_time(IDLE + 1)
            sender.pass_time(outbound.IDLE + 1)
            eventually(lambda: receiver.peers.connections == 0, "the connection stays")
            eventually(lambda: psutil.Process().num_fds() <= files, "descriptors stay open")
            eventually(lambda: receiver.granted == 0, "space is not given back")


def test_the_other_relay_does_without(transport: str, shared: Path) -> None:
    with two_pods(shared, using(transport), Shape(size=64 * MIB, transports=("tcp",))) as (sender, receiver):
        pushed, sent = push(sender, receiver, 3 * MIB)
        assert pushed.reason is None
        assert pushed.wait().transport == "tcp"
        assert receiver.stage.seen[pushed.transfer] == sent
        assert connected("tcp", "unshared") == 1


def test_nothing_goes_unprotected_where_it_is_to_be_encrypted(transport: str, shared: Path) -> None:
    credentials = Authority(shared, "ca").issue("relay").credentials(Mode.AEAD)
    shape = Shape(size=64 * MIB, transports=(transport, "tcp"), credentials=credentials)
    with two_pods(shared, shape) as (sender, receiver):
        pushed, _ = push(sender, receiver, MIB)
        assert pushed.reason is None
        assert pushed.wait().transport == "aead"


@pytest.mark.parametrize("transport", [needing("ucx")], indirect=True)
def test_relays_that_find_no_way_by_it_fall_back(transport: str, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UCX_TLS", "self")
    with two_pods(shared, using(transport)) as (sender, receiver):
        eventually(lambda: push(sender, receiver, MIB)[0].reason is None, "there is no other way")
        assert push(sender, receiver, MIB)[0].wait().transport == "tcp"
        assert connected("tcp", "fallback") == 1


def test_a_transport_that_breaks_down_makes_way(transport: str, shared: Path) -> None:
    breaking = Shape(size=64 * MIB, transports=(transport, "tcp"), carriers=BREAKING)
    with two_pods(shared, using(transport), breaking) as (sender, receiver):
        assert push(sender, receiver, MIB)[0].wait().transport == transport
        assert push(sender, receiver, 6 * MIB)[0].reason == "STAGE_UNAVAILABLE"
        eventually(lambda: push(sender, receiver, MIB)[0].reason is None, "there is no other way")
        pushed, sent = push(sender, receiver, 6 * MIB)
        assert pushed.reason is None
        assert pushed.wait().transport == "tcp"
        assert receiver.stage.seen[pushed.transfer] == sent
        assert connected("tcp", "fallback") == 1
