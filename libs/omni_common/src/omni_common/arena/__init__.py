"""The arena: memory that the stages of a pod share. Producers write tensors there, consumers map them."""

from omni_common.arena.reader import ArenaReader
from omni_common.arena.writer import ArenaWriter

__all__ = ["ArenaReader", "ArenaWriter"]
