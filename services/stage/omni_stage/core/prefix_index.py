"""Which blocks of tokens are kept between requests, by what they are made of, and which one goes when room is short.

A block is a run of consecutive tokens of one prompt, and its key names all that its keys and values depend on: its own
contents and, through the key of the block before it, everything in front of it. The same key is the same block.

* Keys are hashes under a secret of this process, long enough that nobody makes two contents with one key: a hit on
  somebody else's contents would be an answer to somebody else's question.
* A block is worth nothing without those before it. So the least recently used block that goes first is always the last
  of its chain: blocks are held in the order of their last use, and within a chain a later block counts as used earlier.
* A chain never pushes out itself. What does not fit beside its own beginning is not kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count, takewhile

Key = bytes
Contents = Sequence[bytes | memoryview]
"""What a block is made of, in parts: where one ends and the next begins is part of the key."""

_KEY_BYTES = 32


def chain_keys(blocks: Iterable[Contents], secret: bytes) -> tuple[Key, ...]:
    """The keys of the blocks of one prompt, from its first on."""
    keys: list[Key] = []
    parent = b""
    for contents in blocks:
        parent = digest((parent, *contents), secret)
        keys.append(parent)
    return tuple(keys)


def digest(contents: Contents, secret: bytes) -> bytes:
    hashed = blake2b(key=secret, digest_size=_KEY_BYTES)
    for part in contents:
        view = memoryview(part)
        hashed.update(view.nbytes.to_bytes(8, "little"))
        hashed.update(view)
    return hashed.digest()


@dataclass(frozen=True, slots=True)
class Change:
    """What the owner of the memory has to do, in this order: drop blocks, then fill new ones. `made` has the place of
    each new block in its chain, and its number."""

    dropped: tuple[int, ...] = ()
    made: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class _Entry:
    block: int
    size: int


class PrefixIndex:
    """The blocks that are kept, by key; together they have `budget` bytes at most."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._size = 0
        self._numbers = count()
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()  # the one to go first comes first

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        return self._size

    def find(self, chain: Sequence[Key]) -> tuple[int, ...]:
        """The longest beginning of the chain that is kept."""
        return tuple(self._entries[key].block for key in self._use(chain))

    def add(self, chain: Sequence[Key], sizes: Sequence[int]) -> Change:
        """Keeps the last `len(sizes)` blocks of the chain, which have these sizes, or as many as fit, the first of them
        first. None of them when the blocks before them are no longer kept."""
        begun = len(chain) - len(sizes)
        own = self._use(chain)
        if len(own) < begun:
            return Change()
        held = sum(self._entries[key].size for key in own)
        made: list[tuple[int, int]] = []
        dropped: list[int] = []
        for place in range(len(own), len(chain)):
            size = sizes[place - begun]
            held += size
            if held > self._budget:
                break
            dropped += self._make_room(size)
            made.append((place, next(self._numbers)))
            self._entries[chain[place]] = _Entry(made[-1][1], size)
            self._size += size
        self._use(chain)
        return Change(tuple(dropped), tuple(made))

    def clear(self) -> tuple[int, ...]:
        """Forgets all blocks, and names them."""
        blocks = tuple(entry.block for entry in self._entries.values())
        self._entries.clear()
        self._size = 0
        return blocks

    def _use(self, chain: Sequence[Key]) -> Sequence[Key]:
        """The beginning that is kept, used now: its first block last, so that no block is older than one behind it."""
        kept = tuple(takewhile(self._entries.__contains__, chain))
        for key in reversed(kept):
            self._entries.move_to_end(key)
        return kept

    def _make_room(self, size: int) -> Iterable[int]:
        """Drops what was used longest ago. The chain in hand was used last, and with `size` it is within the budget."""
        while self._size + size > self._budget:
            _, entry = self._entries.popitem(last=False)
            self._size -= entry.size
            yield entry.block
