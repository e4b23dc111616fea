"""The arena: memory that the stages of a pod share. Producers write tensors there, consumers map them."""

from omni_common.arena.extents import Extent
from omni_common.arena.holds import HoldTable, HoldTables
from omni_common.arena.memory import Arena
from omni_common.arena.reader import ArenaReader
from omni_common.arena.writer import ArenaWriter

__all__ = ["Arena", "ArenaReader", "ArenaWriter", "Extent", "HoldTable", "HoldTables"]
