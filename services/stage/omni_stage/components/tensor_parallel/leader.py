"""Rank 0: before each of its forwards it tells the other ranks what goes into it, so that all take the same one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from omni_common.errors import StageUnavailable
from omni_stage.components.attention import Packed
from omni_stage.components.kv_cache import KvStore
from omni_stage.components.pair_group import GroupFailed
from omni_stage.components.tensor_parallel.group import RankGroup
from omni_stage.components.tensor_parallel.message import Message, Operation, encode
from omni_stage.components.tensor_parallel.mirrored_store import MirroredStore
from omni_stage.components.tensor_parallel.rows import Rows, pack, shape_of
from omni_stage.tensor_parallel.line import LineBroken
from omni_stage.tensor_parallel.rank import Leading

logger = logging.getLogger(__name__)

Forward = Callable[[Rows, Packed], torch.Tensor]
"""A model's forward over a packed row: its inputs, and where the sequences' caches are."""


class Leader:
    """Used by the scheduler's thread, and before it starts by that of the warm-up."""

    def __init__(self, leading: Leading, group: RankGroup, own: KvStore) -> None:
        self._leading = leading
        self._group = group
        self.store = MirroredStore(own, self._tell)
        leading.on_break(group.interrupt)

    def lead(self, forward: Forward) -> Forward:
        """The forward of all ranks.

        A fault in it, at whichever rank, leaves the others in the middle of something: then none of them is of use any
        more, and the replica ends. The requests of the step may be tried elsewhere.
        """

        def run(rows: Rows, packed: Packed) -> torch.Tensor:
            with self._in_step():
                shapes = tuple(map(shape_of, rows))
                spans = tuple((span.sequence, span.length) for span in packed.spans)
                self._leading.tell(encode(Message(tuple(self.store.take_noted()), spans, shapes)))
                self._group.share(pack(rows, shapes))
                hidden = forward(rows, packed)
                self._group.settle()
                self._leading.check()  # or what was broken off would pass for a result
                return hidden

        return run

    def _tell(self, operations: Sequence[Operation]) -> None:
        """What has no step to go with."""
        with self._in_step():
            self._leading.tell(encode(Message(tuple(operations))))

    @contextmanager
    def _in_step(self) -> Iterator[None]:
        try:
            yield
        except (GroupFailed, LineBroken) as error:
            why = f"no longer work together: {'a line' if isinstance(error, LineBroken) else 'their group'} {error}"
        except Exception as error:
            # Whatever it is: the edge of the model's code and of torch's.
            logger.exception("a step of several ranks failed", extra={"stage": self._leading.stage})
            why = f"broke in a step at rank 0: {type(error).__name__}"
        else:
            return
        self._leading.break_off(why)
        raise StageUnavailable(self._leading.stage, "lost one of its ranks")
