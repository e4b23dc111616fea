"""Pure: what relays log of each transfer at level DEBUG, in seconds of the machine's monotonic clock.

That clock is one for all processes of a machine, so times of both relays and of the clients can be compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

_PUSHED = "pushed"
_CAUGHT = "caught"

# The producing process's random number, and its count.
TransferKey = tuple[int, int]


class Pushed(BaseModel):
    """A transfer in the relay that sent it."""

    model_config = ConfigDict(frozen=True)

    source: int
    number: int
    transport: str
    asked: float  # the push came from the stage
    placed: float  # there was space in the other arena
    sent: float  # its last piece was handed to the transport
    ended: float  # the other relay had said that the consumer has it


class Caught(BaseModel):
    """A transfer in the relay that received it."""

    model_config = ConfigDict(frozen=True)

    source: int
    number: int
    begun: float  # it was announced
    received: float  # its last byte was in the arena, and verified
    delivered: float  # the consumer had been told


Entry = TypeVar("Entry", Pushed, Caught)


@dataclass(frozen=True, slots=True)
class Journal:
    """By transfer."""

    pushed: Mapping[TransferKey, Pushed]
    caught: Mapping[TransferKey, Caught]


def read_journal(pusher: Iterable[str], catcher: Iterable[str]) -> Journal:
    """From the logs of the two relays, a JSON object a line; other lines and records are skipped."""
    return Journal(_entries(pusher, _PUSHED, Pushed), _entries(catcher, _CAUGHT, Caught))


def _entries(lines: Iterable[str], message: str, kind: type[Entry]) -> dict[TransferKey, Entry]:
    entries = (kind.model_validate(record) for record in map(_record, lines) if record.get("msg") == message)
    return {(entry.source, entry.number): entry for entry in entries}


def _record(line: str) -> Mapping[str, object]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:  # a process may print what is no record
        return {}
    return record if isinstance(record, dict) else {}
