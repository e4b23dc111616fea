"""Addresses of one run, and the port that the user asked for."""

from __future__ import annotations

import re
import socket
import sys

import pytest

from omni_cli.errors import CommandError
from omni_cli.launcher.ground import Counts
from omni_cli.launcher.network import OwnSubnet, choose_addresses, free_port, require_free, shared_host

COUNTS = Counts(stages=3, pods=2, coordinators=2)


def test_pods_and_coordinators_have_addresses_of_their_own() -> None:
    subnet = OwnSubnet("127.1.2")
    assert subnet.coordinator(0) == "127.1.2.2:7070"
    assert len({subnet.coordinator(i).split(":")[0] for i in range(8)} | {subnet.pod(i) for i in range(200)}) == 208


def test_a_mesh_with_more_pods_than_addresses_is_refused() -> None:
    with pytest.raises(CommandError, match="fewer pods"):
        OwnSubnet("127.1.2").pod(223)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has more than one loopback address")
def test_a_run_takes_a_subnet_of_loopback() -> None:
    addresses = choose_addresses(COUNTS)
    assert isinstance(addresses, OwnSubnet)
    assert re.fullmatch(r"127\.\d+\.\d+\.32", addresses.pod(0))


def test_where_there_is_one_address_no_port_is_given_twice() -> None:
    host = shared_host(COUNTS)
    given = [host.coordinator(0), host.coordinator(1), host.relay(0), host.relay(1), *map(host.metrics, range(8))]
    assert len(set(given)) == len(given) == 12
    assert {address.split(":")[0] for address in given} == {host.pod(0)} == {"127.0.0.1"}


def test_relays_listen_on_the_addresses_of_their_pods() -> None:
    subnet = OwnSubnet("127.1.2")
    assert [subnet.relay(i) for i in range(2)] == [f"{subnet.pod(0)}:7080", f"{subnet.pod(1)}:7080"]


def test_a_port_in_use_is_said_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(CommandError, match=f"Port {port} on 127.0.0.1 is in use by another program"):
            require_free("127.0.0.1", port)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(CommandError, match=r"Cannot listen on 192\.0\.2\.1:8000"):
        require_free("192.0.2.1", 8000)


def test_a_free_port_can_be_listened_on() -> None:
    require_free("127.0.0.1", free_port("127.0.0.1"))
