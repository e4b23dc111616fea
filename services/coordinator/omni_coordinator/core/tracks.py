"""Text and transcripts as the caller has them, each a track that a new attempt's output is held against."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Protocol

import xxhash

from omni_common.request import Output, Segment, TextOutput

BLOCK = 1024
"""Bytes of text behind one hash."""
MAX_BLOCKS = 4096
MAX_ITEMS = 1 << 16


class Differs(Exception):  # no failure of the program: what a replay is there to find out
    """An attempt's output is not what the caller has."""


class Replay(Protocol):
    """Holds the output of a new attempt against what the caller has."""

    def take(self, output: Output) -> Output | None:
        """What of it the caller does not have yet. Raises Differs."""

    @property
    def is_through(self) -> bool:
        """Whether the new attempt has made all that the caller has."""


class Track(Protocol):
    """What the caller has of one kind of output."""

    def note(self, output: Output) -> bool:
        """Whether it could be kept."""

    def replay(self) -> Replay: ...


class TextTrack:
    def __init__(self) -> None:
        self.blocks = array("Q")
        self.tail = b""

    def note(self, output: Output) -> bool:
        if not isinstance(output, TextOutput) or len(self.blocks) > MAX_BLOCKS:
            return False
        data = self.tail + output.text.encode()
        whole = len(data) // BLOCK * BLOCK
        self.blocks.extend(xxhash.xxh3_64_intdigest(data[at : at + BLOCK]) for at in range(0, whole, BLOCK))
        self.tail = data[whole:]
        return True

    def replay(self) -> Replay:
        return _TextReplay(self.blocks[:], self.tail)


class _TextReplay:
    def __init__(self, blocks: Sequence[int], tail: bytes) -> None:
        self._blocks = blocks
        self._tail = tail
        self._seen = 0
        self._held = b""
        self.is_through = not (blocks or tail)

    def take(self, output: Output) -> Output | None:
        if not isinstance(output, TextOutput):
            raise Differs
        data = self._past_blocks(self._held + output.text.encode())
        if self._seen < len(self._blocks):
            self._held = data
            return None
        common = min(len(data), len(self._tail))
        if data[:common] != self._tail[:common]:
            raise Differs
        self._held = data
        self.is_through = common == len(self._tail)
        rest = data[common:]
        return TextOutput(rest.decode()) if rest else None

    def _past_blocks(self, data: bytes) -> bytes:
        while self._seen < len(self._blocks) and len(data) >= BLOCK:
            if xxhash.xxh3_64_intdigest(data[:BLOCK]) != self._blocks[self._seen]:
                raise Differs
            self._seen += 1
            data = data[BLOCK:]
        return data


class ItemTrack:
    def __init__(self) -> None:
        self.hashes = array("Q")

    def note(self, output: Output) -> bool:
        if not isinstance(output, Segment) or len(self.hashes) >= MAX_ITEMS:
            return False
        self.hashes.append(_hash(output))
        return True

    def replay(self) -> Replay:
        return _ItemReplay(self.hashes[:])


class _ItemReplay:
    def __init__(self, hashes: Sequence[int]) -> None:
        self._hashes = hashes
        self._seen = 0

    @property
    def is_through(self) -> bool:
        return self._seen == len(self._hashes)

    def take(self, output: Output) -> Output | None:
        if not isinstance(output, Segment) or _hash(output) != self._hashes[self._seen]:
            raise Differs
        self._seen += 1
        return None


def _hash(segment: Segment) -> int:
    said = (segment.start, segment.end, segment.text, segment.language, segment.tokens)
    return xxhash.xxh3_64_intdigest(repr(said).encode())
