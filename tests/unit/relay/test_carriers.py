"""Which carrier a connection takes, and why."""

from __future__ import annotations

import pytest

from omni_common.testing.clock import ManualClock
from omni_relay.core.choice import Choice, Why, choose
from omni_relay.peers.carriers.carrier import CarrierFailed
from omni_relay.peers.carriers.registry import PAUSE, Carriers
from omni_relay.wire.credentials import Mode

KNOWN = {
    "tcp": "omni_relay.peers.carriers.tcp",
    "ucx": "tests.lab.direct_carrier",
    "nixl": "tests.lab.broken_carrier",
}


def carriers(*wanted: str, mode: Mode = Mode.NONE, clock: ManualClock | None = None) -> Carriers:
    arena = memoryview(bytearray(64))
    return Carriers(wanted, mode, arena, timeout=1.0, clock=clock or ManualClock(), known=KNOWN)


@pytest.mark.parametrize(
    ("offered", "able", "failed", "choice"),
    [
        (["tcp"], ["tcp"], [], Choice("tcp", Why.PREFERRED)),
        (["ucx", "tcp"], ["tcp", "ucx"], [], Choice("ucx", Why.PREFERRED)),
        (["nixl", "ucx", "tcp"], ["tcp", "ucx"], [], Choice("ucx", Why.UNSHARED)),
        (["ucx", "tcp"], ["tcp", "ucx"], ["ucx"], Choice("tcp", Why.FALLBACK)),
        (["nixl", "ucx", "tcp"], ["tcp", "ucx"], ["ucx"], Choice("tcp", Why.FALLBACK)),
        (["ucx", "nixl"], ["tcp"], [], None),
        ([], ["tcp"], [], None),
    ],
)
def test_the_first_that_both_can_use_is_taken(
    offered: list[str], able: list[str], failed: list[str], choice: Choice | None
) -> None:
    assert choose(offered, able, failed) == choice


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (("auto",), ("tcp",)),
        ((), ("tcp",)),
        (("ucx", "auto"), ("ucx", "tcp")),
        (("nixl", "ucx"), ("nixl", "ucx", "tcp")),
        (("tcp", "ucx"), ("tcp", "ucx")),
        (("pigeon", "ucx", "ucx"), ("ucx", "tcp")),
    ],
)
def test_tcp_is_always_there_and_the_others_where_they_are_named(
    wanted: tuple[str, ...], names: tuple[str, ...]
) -> None:
    assert carriers(*wanted).names == names


@pytest.mark.parametrize("mode", [Mode.TLS, Mode.AEAD])
def test_with_encryption_only_what_is_encrypted_is_used(mode: Mode) -> None:
    assert carriers("ucx", "nixl", mode=mode).names == ("tcp",)


def test_tcp_is_named_by_how_it_is_guarded() -> None:
    assert [carriers(mode=mode).label("tcp") for mode in Mode] == ["tcp", "tls", "aead"]


def test_one_that_failed_is_left_out_with_that_relay_for_a_while() -> None:
    clock = ManualClock()
    ours = carriers("ucx", clock=clock)
    ours.failed("ucx", "a:1")
    assert ours.offer("a:1") == ["tcp"]
    assert ours.offer("b:1") == ["ucx", "tcp"]
    assert ours.choose(["ucx", "tcp"], "a:1") == Choice("tcp", Why.FALLBACK)
    clock.advance(PAUSE)
    assert ours.offer("a:1") == ["ucx", "tcp"]


def test_tcp_is_never_left_out() -> None:
    ours = carriers()
    ours.failed("tcp", "a:1")
    assert ours.offer("a:1") == ["tcp"]


def test_a_carrier_that_was_not_offered_cannot_be_chosen() -> None:
    with pytest.raises(CarrierFailed, match="not known here"):
        carriers().push("ucx", b"")
