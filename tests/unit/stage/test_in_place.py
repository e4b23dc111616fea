"""Tensors that are made in the arena: sent from there without a copy, their memory given back after the last use."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import anyio
import pytest
import torch
from prometheus_client import REGISTRY
from tests.unit.common.arena_refs import noise, octets
from tests.unit.common.relay_peer import EXTENT, RelayPeer, connected

from omni_common.arena.extents import render_extent
from omni_common.arena.layout import slot_size
from omni_common.relay import NoRoom
from omni_stage.components.in_place import empty_in_place
from omni_stage.components.tensors import from_torch
from omni_stage.in_place import InPlace
from omni_stage.loop import LoopThread
from omni_stage.program import NoSpace

pytestmark = pytest.mark.anyio

FOREVER = float("inf")


def copies() -> float:
    samples = [s for f in REGISTRY.collect() for s in f.samples if s.name == "omni_tensor_copies_total"]
    return sum(sample.value for sample in samples)


async def test_a_tensor_made_in_place_is_sent_from_there_and_its_memory_comes_back(tmp_path: Path) -> None:
    peer = RelayPeer(tmp_path)
    async with connected(peer) as (client, _):
        assert client.slots.grant(peer.extent(0))
        space = InPlace(client, LoopThread(), inline_limit=100)
        before = copies()
        made = empty_in_place(space, (10, 100), torch.float32)
        torch.arange(1000, dtype=torch.float32, out=made.view(-1))
        tensor = from_torch(made)
        slot = client.slots.made_in_place(tensor)
        assert slot is not None
        assert bytes(client.slots.data(slot, tensor.nbytes) or b"") == bytes(tensor.data)
        assert copies() == before
        del made, tensor
        gc.collect()
        assert client.slots.leases == 1
        assert client.slots.release(slot)
        assert client.slots.leases == 0
    peer.close()


async def test_a_part_of_it_is_sent_as_any_other_tensor(tmp_path: Path) -> None:
    peer = RelayPeer(tmp_path)
    async with connected(peer) as (client, _):
        assert client.slots.grant(peer.extent(0))
        made = empty_in_place(InPlace(client, LoopThread(), inline_limit=0), (4, 100), torch.bfloat16)
        assert client.slots.made_in_place(from_torch(made[1:])) is None
        assert client.slots.made_in_place(from_torch(made[:2])) is None
        assert client.slots.made_in_place(from_torch(made)) is not None
    peer.close()


async def test_where_there_is_no_space_any_memory_will_do_and_space_is_asked_for(tmp_path: Path) -> None:
    peer = RelayPeer(tmp_path)
    async with connected(peer) as (client, line), anyio.create_task_group() as tasks:
        loop = LoopThread()
        tasks.start_soon(loop.run)
        space = InPlace(client, loop, inline_limit=100)
        assert empty_in_place(space, (0, 5), torch.float32).shape == (0, 5)
        assert empty_in_place(space, (25,), torch.float32).shape == (25,), "it will ride inside the payload"
        made = await anyio.to_thread.run_sync(empty_in_place, space, (1000,), torch.float32)
        assert client.slots.made_in_place(from_torch(made)) is None
        assert (await line.next()).want.size == slot_size(4000)
        line.say(extent=render_extent(peer.extent(0)))
        while not client.slots.extents:
            await anyio.lowlevel.checkpoint()
        made = empty_in_place(space, (1000,), torch.float32)
        assert client.slots.made_in_place(from_torch(made)) is not None
        tasks.cancel_scope.cancel()
    peer.close()


def test_a_stage_without_an_arena_makes_ordinary_tensors() -> None:
    assert empty_in_place(NoSpace(), (3, 4), torch.int64).shape == (3, 4)


async def test_schedulers_allocate_beside_the_event_loop_and_no_two_get_the_same_bytes(tmp_path: Path) -> None:
    peer = RelayPeer(tmp_path)
    async with connected(peer) as (client, _):
        for index in range(4):
            assert client.slots.grant(peer.extent(index))
        space = InPlace(client, LoopThread(), inline_limit=0)
        wrong: list[int] = []

        def work(mark: int) -> None:
            for _ in range(200):
                data = space.allocate(500)
                if data is not None:
                    data[:] = bytes([mark]) * 500
                    if bytes(data) != bytes([mark]) * 500:
                        wrong.append(mark)

        threads = [threading.Thread(target=work, args=(mark,)) for mark in range(1, 5)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            try:
                slot, data = client.slots.reserve(EXTENT // 8, FOREVER)
            except NoRoom:
                continue
            data[:] = noise(EXTENT // 8)
            assert client.slots.made_in_place(octets(bytes(10))) is None
            if bytes(data) != noise(EXTENT // 8):
                wrong.append(0)
            client.slots.release(slot)
            await anyio.lowlevel.checkpoint()
        gc.collect()
        assert (wrong, client.slots.leases) == ([], 0)
    peer.close()
