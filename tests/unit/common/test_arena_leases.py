"""Puts, releases, aborts and passing time in any mixture: readers see whole tensors or nothing, all space returns."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.unit.common.arena_refs import never, noise, octets, ref_to

from omni.common.v1.tensor_pb2 import ArenaSlot, DataRef
from omni_common.arena import ArenaReader, ArenaWriter
from omni_common.arena.layout import SlotHead, slot_size
from omni_common.arena.writer import GRACE
from omni_common.errors import LeaseLost
from omni_common.testing.clock import ManualClock


class LeaseMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.clock = ManualClock()
        self.writer = ArenaWriter(Path(self.folder.name), "m", 16 * 1024, self.clock)
        self.reader = ArenaReader(Path(self.folder.name), self.clock)
        self.live: dict[int, tuple[DataRef, bytes, str]] = {}
        self.expiry: dict[int, float] = {}
        self.dead: list[DataRef] = []
        self.released: list[ArenaSlot] = []

    @rule(size=st.integers(0, 5000), request=st.sampled_from("abc"), life=st.integers(1, 30), seed=st.integers(0, 99))
    def put(self, size: int, request: str, life: int, seed: int) -> None:
        data = noise(size, seed)
        slot = self.writer.put(octets(data), request, self.clock() + life)
        if slot is None:
            assert self.live, "an empty arena has room"
            return
        youngest = max([*self.live, *(ref.arena.generation for ref in self.dead)], default=0)
        assert slot.generation > youngest
        self.live[slot.generation] = (ref_to(octets(data), slot), data, request)
        self.expiry[slot.generation] = self.clock() + life

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        generation = data.draw(st.sampled_from(sorted(self.live)))
        self.writer.release(self.live[generation][0].arena)
        self._bury(generation)

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def release_once_more(self, data: st.DataObject) -> None:
        self.writer.release(data.draw(st.sampled_from(self.dead)).arena)

    @rule(request=st.sampled_from("abc"))
    def abort(self, request: str) -> None:
        self.writer.release_request(request)
        for generation, (_, _, owner) in self.live.items():
            if owner == request:
                self.expiry[generation] = min(self.expiry[generation], self.clock())

    @rule(seconds=st.integers(0, 12))
    def let_time_pass(self, seconds: int) -> None:
        self.clock.advance(seconds)
        over = [generation for generation in self.live if self.expiry[generation] + GRACE <= self.clock()]
        assert self.writer.reclaim(self.clock()) == len(over)
        for generation in over:
            self._bury(generation)

    @invariant()
    def readers_see_whole_tensors_or_nothing(self) -> None:
        for generation, (ref, data, _) in self.live.items():
            if self.expiry[generation] > self.clock():
                assert bytes(self.reader.view(ref, self.released.append).data) == data
            else:
                self._refused(ref)
        for ref in self.dead:
            self._refused(ref)

    @invariant()
    def the_counts_are_those_of_the_leases(self) -> None:
        assert self.writer.leases == len(self.live)
        assert self.writer.in_use == sum(slot_size(len(data)) for _, data, _ in self.live.values())

    def teardown(self) -> None:
        for ref, _, _ in self.live.values():
            self.writer.release(ref.arena)
        assert self.writer.in_use == 0
        assert self.writer.put(octets(bytes(self.writer.capacity - SlotHead.SIZE)), "all", 1.0) is not None
        self.writer.close()
        assert list(Path(self.folder.name).iterdir()) == []
        self.folder.cleanup()

    def _bury(self, generation: int) -> None:
        self.dead.append(self.live.pop(generation)[0])

    def _refused(self, ref: DataRef) -> None:
        with pytest.raises(LeaseLost):
            self.reader.view(ref, never())


TestLeases = LeaseMachine.TestCase
TestLeases.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
