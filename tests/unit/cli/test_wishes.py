"""Options that are lists written as text."""

from __future__ import annotations

import pytest

from omni_cli.errors import CommandError
from omni_cli.wishes import (
    parse_device,
    parse_groups,
    parse_numbers,
    parse_otlp,
    parse_share,
    parse_size,
    parse_sizes,
    parse_transports,
)


def test_replicas_may_be_repeated_or_separated_by_commas() -> None:
    given = ["thinker=2, talker=3", "a/read=1"]
    assert parse_numbers(given, "--replicas") == {"thinker": 2, "talker": 3, "a/read": 1}


@pytest.mark.parametrize("option", ["thinker", "thinker=", "thinker=0", "thinker=65", "thinker=-1", "thinker=two"])
def test_a_number_of_replicas_that_makes_no_sense_is_named(option: str) -> None:
    with pytest.raises(CommandError, match=f"--replicas {option} is not understood"):
        parse_numbers([option], "--replicas")


def test_each_colocate_option_is_one_group() -> None:
    assert parse_groups(["a,b", "c, d"], "--colocate") == (("a", "b"), ("c", "d"))


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("", "--together '' is no group; write two stages or more"),
        ("a", "--together 'a' is no group"),
        ("a,b,a", "--together a,b,a names a twice"),
    ],
)
def test_a_group_is_two_stages_or_more(option: str, why: str) -> None:
    with pytest.raises(CommandError, match=why):
        parse_groups([option], "--together")


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1"])
def test_a_device_is_one_that_there_can_be(device: str) -> None:
    assert parse_device(device) == device


@pytest.mark.parametrize("device", ["", "foo", "cuda:", "cuda:x", "cpu:0"])
def test_any_other_device_is_refused_before_anything_starts(device: str) -> None:
    with pytest.raises(CommandError, match="write auto, cpu, cuda or cuda:1"):
        parse_device(device)


@pytest.mark.parametrize(
    ("text", "size"), [("64", 64), ("64KiB", 65_536), ("16 MiB", 16_777_216), (" 1GiB", 1_073_741_824), ("0", 0)]
)
def test_a_size_is_in_bytes_or_has_a_unit(text: str, size: int) -> None:
    assert parse_size(text, "--arena") == size


@pytest.mark.parametrize("text", ["", "MiB", "64MB", "64k", "-1", "1.5MiB", "1e3", "9999999999999"])
def test_any_other_size_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match=f"--arena '{text}' is not understood; write a size such as 64KiB"):
        parse_size(text, "--arena")


def test_a_share_is_what_a_relay_can_work_with() -> None:
    assert parse_share("16MiB") == 16 << 20
    assert parse_share(str((16 << 20) + 1)) == 16 << 20
    with pytest.raises(CommandError, match="--arena 15MiB is too little; write 16MiB or more"):
        parse_share("15MiB")


def test_transports_keep_their_order() -> None:
    assert parse_transports("ucx, tcp") == ("ucx", "tcp")
    assert parse_transports("") == ()


def test_a_transport_that_there_is_not_is_named_with_those_that_there_are() -> None:
    with pytest.raises(CommandError, match="--transports pigeon is not one; there are tcp, ucx, nixl"):
        parse_transports("tcp,pigeon")
    with pytest.raises(CommandError, match="--transport pigeon is not one"):
        parse_transports("pigeon", "--transport")


def test_a_transport_is_named_once() -> None:
    with pytest.raises(CommandError, match="--transports tcp,tcp names tcp twice"):
        parse_transports("tcp,tcp")


def test_several_sizes_are_separated_by_commas() -> None:
    assert parse_sizes("64KiB, 1MiB") == (65_536, 1_048_576)


@pytest.mark.parametrize("option", ["", ",", "0", "64KiB,0"])
def test_no_size_and_none_of_nothing_are_refused(option: str) -> None:
    with pytest.raises(CommandError, match="write sizes such as 64KiB,1MiB"):
        parse_sizes(option)


@pytest.mark.parametrize("endpoint", ["", "127.0.0.1:4317", "http://[::1]:4317", "https://traces.example.com:443"])
def test_where_traces_go(endpoint: str) -> None:
    assert parse_otlp(endpoint) == endpoint


@pytest.mark.parametrize("wrong", ["4317", "127.0.0.1", "http://user:key@host:4317"])
def test_what_is_no_place_for_traces_is_refused_with_an_example(wrong: str) -> None:
    with pytest.raises(CommandError, match=r"write HOST:PORT, such as 127\.0\.0\.1:4317"):
        parse_otlp(wrong)
