"""Two pods of a measurement: a relay each, on the nodes of a wire or on this machine as it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.load.relay.workers import Place, Side, Worker, running, worker
from tests.unit.relay.wire.authority import Authority

from omni_cli.launcher.network import free_port

Arenas = Mapping[Side, int]
# Room for a tensor of 256 MB and what is left of the smaller ones before it: at the sender they are gone by then, at
# the receiver they are held, and the sender's relay keeps the extents for a while.
LARGE: Arenas = {Side.SENDER: 448 << 20, Side.RECEIVER: 704 << 20}
# Room for what many edges have under way and hold.
MANY: Arenas = {Side.SENDER: 256 << 20, Side.RECEIVER: 384 << 20}
# The rest is enough for the stages' own tensors: those of these pods only send, or only receive.
_INBOUND = {Side.SENDER: "0.02", Side.RECEIVER: "0.9"}


@dataclass(frozen=True, slots=True)
class Protection:
    """How the relays of two pods guard what they send."""

    encryption: str = "none"
    checksums: bool = True


@dataclass(frozen=True, slots=True)
class Pods:
    """The sending stages, and every process that has a part in a transfer."""

    sender: Worker
    pids: tuple[int, ...]


class Secrets:
    """A token, and an authority that has signed one certificate for all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = folder / "token"
        self.token.write_text("of the benchmark, and of nothing else")
        self.files = Authority(folder, "ca").issue("relay")

    def settings(self, protection: Protection) -> dict[str, str]:
        settings = {"ENCRYPTION": protection.encryption, "CHECKSUMS": str(protection.checksums).lower()}
        if protection.encryption == "none":
            return settings | {"TOKEN_FILE": str(self.token)}
        files = {"TLS_CERT": self.files.cert, "TLS_KEY": self.files.key, "TLS_CA": self.files.ca}
        return settings | {name: str(path) for name, path in files.items()}


@contextmanager
def two_pods(
    folder: Path,
    sender: Place,
    receiver: Place,
    settings: Mapping[str, str],
    *,
    arenas: Arenas,
    edges: int = 1,
) -> Iterator[Pods]:
    """Both pods with that many stages each; `settings` are the relays' own, without their prefix."""
    with ExitStack() as stack:
        folders, pids = {}, []
        for place in (sender, receiver):
            folders[place.side] = folder / place.side.name.lower()
            folders[place.side].mkdir(parents=True)
            mine = {
                "FOLDER": str(folders[place.side]),
                "ARENA_SIZE": str(arenas[place.side]),
                "BIND": f"{place.address}:{free_port('127.0.0.1')}",
                "INBOUND": _INBOUND[place.side],
                "LOG_LEVEL": "WARNING",
            }
            environment = {f"OMNI_RELAY_{name}": value for name, value in (mine | dict(settings)).items()}
            relay = stack.enter_context(running(place, [sys.executable, "-m", "omni_relay"], environment))
            pids.append(relay.pid)
        stamps, module = folder / "stamps", "tests.load.relay.between_pods"
        receive = [str(folders[Side.RECEIVER]), str(stamps), str(edges)]
        consumer = stack.enter_context(worker(receiver, module, "receive", *receive))
        send = [str(folders[Side.SENDER]), str(stamps), str(edges), consumer.line]
        producer = stack.enter_context(worker(sender, module, "send", *send))
        yield Pods(producer, (*pids, consumer.process.pid, producer.process.pid))
