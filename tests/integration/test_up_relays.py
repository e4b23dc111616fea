"""Tensors between the pods of `omni up`, whichever way its user wishes."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path

import anyio
import httpx2
import pytest
from tests.integration.up_process import say, up

from omni_cli.launcher.state import newest_state
from omni_cli.top.exposition import Labels, Page, parse_page
from omni_common.telemetry import names

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PHOTO = Path(__file__).parents[1] / "media" / "cat.jpg"
# Not even a small tensor rides in a frame.
FORCED = {"OMNI_STAGE_INLINE_LIMIT": "0"}


async def pages(run: Path) -> Mapping[str, Page]:
    """Of every process."""
    state = newest_state(run)
    assert state is not None
    async with httpx2.AsyncClient(trust_env=False, timeout=5) as http:
        return {p.name: parse_page((await http.get(f"http://{p.metrics}/metrics")).text) for p in state.processes}


async def way_of(run: Path) -> set[tuple[str, str]]:
    """The transports by which the photo went from `split` to `count`, and why."""
    with anyio.fail_after(10):
        while True:
            found = list((await pages(run))["echo-split-0"].of(names.EDGE_TRANSPORT))
            ways = {(labels["transport"], labels["reason"]) for labels, _ in found if _is_photo(labels)}
            if ways:
                return ways
            await anyio.sleep(0.05)  # the metrics of a process are a page without a way to wait


def _is_photo(labels: Labels) -> bool:
    return labels["edge"] == "split>count"


@pytest.mark.parametrize(
    ("options", "transport"),
    [
        (["--apart"], "tcp"),
        (["--apart", "--encryption", "tls"], "tls"),
        (["--apart", "--encryption", "aead"], "aead"),
        (["--transports", "tcp"], "arena"),
    ],
    ids=["apart", "tls", "aead", "together"],
)
async def test_tensors_take_the_wished_way(tmp_path: Path, options: list[str], transport: str) -> None:
    async with up(tmp_path, *options, settings=FORCED) as mesh:
        await mesh.ready()
        assert "hello" in (await say(mesh, "hello mesh", image=PHOTO)).lower()
        assert {way for way, _ in await way_of(tmp_path)} == {transport}
        assert await mesh.stop(signal.SIGTERM) == 0


async def test_relays_of_two_runs_do_not_meet_and_both_serve(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for run in (one, other):
        run.mkdir()
    async with up(one, settings=FORCED) as first, up(other, settings=FORCED) as second:
        for mesh in (first, second):
            await mesh.ready()
        for mesh in (first, second):
            assert "hello" in (await say(mesh, "hello mesh", image=PHOTO)).lower()
        addresses = [{p.metrics for p in state.processes} for state in map(newest_state, (one, other)) if state]
        assert not set.intersection(*addresses)
        for mesh in (first, second):
            assert await mesh.stop(signal.SIGTERM) == 0


async def test_a_small_arena_is_enough_for_tensors_that_come_one_after_the_other(tmp_path: Path) -> None:
    async with up(tmp_path, "--apart", "--arena", "16MiB", settings=FORCED) as mesh:
        await mesh.ready()
        for _ in range(3):
            assert "hello" in (await say(mesh, "hello mesh", image=PHOTO)).lower()
        relays = {name: page for name, page in (await pages(tmp_path)).items() if name.startswith("relay-")}
        sizes = {page.total(names.RELAY_ARENA_BYTES) for page in relays.values()}
        assert len(relays) == 7
        assert {round(size / 2**20) for size in sizes} == {32}
        assert await mesh.stop(signal.SIGTERM) == 0
