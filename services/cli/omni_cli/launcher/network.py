"""Loopback addresses of one run: every pod and every coordinator has its own, as in a cluster.

On Linux all of 127.0.0.0/8 is loopback, so a run takes a random /24 of it: its services can keep fixed ports and two
runs do not meet. Where only 127.0.0.1 answers (macOS), everything shares it and gets ports that were free before.
"""

from __future__ import annotations

import errno
import random
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass

from omni_cli.errors import CommandError
from omni_cli.launcher.ground import Counts

COORDINATOR_PORT = 7070
RELAY_PORT = 7080
_FIRST_METRICS_PORT = 9100
_METRICS = 1  # the address that all processes serve them on
_FIRST_COORDINATOR = 2
_FIRST_POD = 32
_HOSTS = 255
_TRIES = 16


@dataclass(frozen=True, slots=True)
class OwnSubnet:
    """127.a.b.0/24."""

    prefix: str

    def pod(self, index: int) -> str:
        return self._host(_FIRST_POD + index, _HOSTS, "pods")

    def relay(self, index: int) -> str:
        return f"{self.pod(index)}:{RELAY_PORT}"

    def coordinator(self, index: int) -> str:
        return f"{self._host(_FIRST_COORDINATOR + index, _FIRST_POD, 'coordinators')}:{COORDINATOR_PORT}"

    def metrics(self, index: int) -> str:
        return f"{self.prefix}.{_METRICS}:{_FIRST_METRICS_PORT + index}"

    def _host(self, number: int, end: int, what: str) -> str:
        if number >= end:
            raise CommandError(f"One machine has addresses for fewer {what} than this mesh asks for.")
        return f"{self.prefix}.{number}"


@dataclass(frozen=True, slots=True)
class SharedHost:
    """127.0.0.1 for all; a port for each coordinator, each relay and each process's metrics."""

    coordinators: tuple[int, ...]
    relays: tuple[int, ...]
    metered: tuple[int, ...]

    def pod(self, index: int) -> str:
        return "127.0.0.1"

    def relay(self, index: int) -> str:
        return f"127.0.0.1:{self.relays[index]}"

    def coordinator(self, index: int) -> str:
        return f"127.0.0.1:{self.coordinators[index]}"

    def metrics(self, index: int) -> str:
        return f"127.0.0.1:{self.metered[index]}"


def choose_addresses(counts: Counts) -> OwnSubnet | SharedHost:
    if sys.platform == "linux":
        for _ in range(_TRIES):
            subnet = OwnSubnet(f"127.{random.randint(1, 254)}.{random.randint(0, 254)}")  # noqa: S311 -- no secret
            if all(_is_free(*_split(address)) for address in _all_of(subnet, counts)):
                return subnet
    return shared_host(counts)


def shared_host(counts: Counts) -> SharedHost:
    ports = free_ports("127.0.0.1", counts.coordinators + counts.pods + counts.processes)
    relays = counts.coordinators + counts.pods
    return SharedHost(ports[: counts.coordinators], ports[counts.coordinators : relays], ports[relays:])


def _all_of(subnet: OwnSubnet, counts: Counts) -> list[str]:
    return [
        *map(subnet.coordinator, range(counts.coordinators)),
        *map(subnet.relay, range(counts.pods)),
        *map(subnet.metrics, range(counts.processes)),
    ]


def free_port(host: str) -> int:
    """A port that nobody listens on just now."""
    return free_ports(host, 1)[0]


def free_ports(host: str, number: int) -> tuple[int, ...]:
    """Different ones."""
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server((host, 0))) for _ in range(number)]
        return tuple(server.getsockname()[1] for server in servers)


def require_free(host: str, port: int) -> None:
    """Raises CommandError when the gateway could not listen there."""
    try:
        _listen(host, port)
    except socket.gaierror:
        raise CommandError(f"'{host}' is no address of this machine.") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CommandError(
                f"Port {port} on {host} is in use by another program. Give another one with --port."
            ) from None
        raise CommandError(f"Cannot listen on {host}:{port}: {error.strerror}.") from None


def _is_free(host: str, port: int) -> bool:
    try:
        _listen(host, port)
    except OSError:
        return False
    return True


def _listen(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    socket.create_server((host, port), family=family).close()


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
