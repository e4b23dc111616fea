"""The keys that callers may have: read from a file that holds only their hashes. Pure.

`{"keys": {"NAME": {"sha256": "<64 hex digits>", "requests_per_minute": 60, "concurrent_requests": 8}}}`; the limits may
be left out. A name is for logs; it stays the same when its key is replaced.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from omni_gateway.watched import Unusable, read

# Every request is compared with all keys, so that the time it takes tells nothing: a tenth of a millisecond for these.
MAX_KEYS = 1000

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]


class Stranger(StrEnum):
    """Why a request has no key that is known; the `reason` label."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Key:
    """One caller's. A limit of None is none."""

    name: str
    digest: bytes
    requests_per_minute: int | None = None
    concurrent_requests: int | None = None


@dataclass(frozen=True, slots=True)
class KeyRing:
    keys: tuple[Key, ...]

    def find(self, authorization: Sequence[bytes]) -> Key | Stranger:
        """The key among the values of a request's `Authorization` headers."""
        if not authorization:
            return Stranger.MISSING
        scheme, _, secret = authorization[0].strip().partition(b" ")
        if len(authorization) > 1 or scheme.lower() != b"bearer" or not secret.strip():
            return Stranger.MALFORMED
        digest = hashlib.sha256(secret.strip()).digest()
        found: Key | Stranger = Stranger.UNKNOWN
        for key in self.keys:  # to the end, wherever it is found
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    sha256: str = Field(pattern=r"^[0-9a-fA-F]{64}$")
    requests_per_minute: int | None = Field(default=None, ge=1, le=1_000_000)
    concurrent_requests: int | None = Field(default=None, ge=1, le=1_000_000)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    keys: dict[Name, _Entry] = Field(max_length=MAX_KEYS)


def load_keys(path: Path) -> KeyRing:
    """Raises Unusable, which repeats nothing of the file but names: somebody may have written a key in the clear."""
    try:
        file = _File.model_validate(json.loads(read(path), object_pairs_hook=_no_twins))
    except _Twins as error:
        raise Unusable(f"{path} has '{error}' twice.") from None
    except ValidationError as error:
        raise Unusable(f"{path} is no file of keys: {_fault(error)}.") from None
    except (ValueError, RecursionError):
        raise Unusable(f"{path} is not valid JSON.") from None
    ring = KeyRing(tuple(_key(name, entry) for name, entry in file.keys.items()))
    if len({key.digest for key in ring.keys}) < len(ring.keys):
        raise Unusable(f"{path} has one key under two names.")
    return ring


def _key(name: str, entry: _Entry) -> Key:
    return Key(name, bytes.fromhex(entry.sha256), entry.requests_per_minute, entry.concurrent_requests)


class _Twins(Exception):
    pass


def _no_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise _Twins(name[:64])
        found[name] = value
    return found


_PLAIN = {
    "string_pattern_mismatch": "it must be the 64 hex digits of a SHA-256",
    "extra_forbidden": "it is not known",
    "missing": "it is missing",
    "too_long": f"it may have at most {MAX_KEYS}",
}


def _fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    place = [str(step)[:64] for step in fault["loc"]]
    if place[-1:] == ["[key]"]:
        return "a name has 1 to 64 letters, digits and any of '._@-', and begins with one of the first two"
    what = _PLAIN.get(fault["type"], fault["msg"][:1].lower() + fault["msg"][1:])
    return f"{'.'.join(place) or 'what it holds'}: {what}"
