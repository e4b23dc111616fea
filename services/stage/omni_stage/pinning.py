"""Has the copies of this process's GPU go straight from and to its pod's arena."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from omni_common.arena import Arena

if TYPE_CHECKING:
    from omni_stage.components.pinned import Registration


class Pinning:
    """The arena's mappings, registered with CUDA; nothing where the model uses no GPU. One thread at a time."""

    def __init__(self) -> None:
        self._arena: Arena | None = None
        self._registered: list[Registration] = []

    def is_behind(self, arena: Arena) -> bool:
        """Whether the pod has another arena than the one that was followed last."""
        return arena is not self._arena

    def follow(self, arena: Arena) -> None:
        """Once the model is loaded, and for each new arena. Takes a while for each gigabyte, so not on the loop."""
        self.close()
        self._arena = arena
        if "torch" not in sys.modules:  # a model without torch has no use for it, and its image does not have it
            return
        from omni_stage.components.pinned import register

        mappings = (register(arena.view), register(arena.readonly.view))
        self._registered = [mapping for mapping in mappings if mapping is not None]

    def close(self) -> None:
        for mapping in self._registered:
            mapping.close()
        self._registered = []
        self._arena = None
