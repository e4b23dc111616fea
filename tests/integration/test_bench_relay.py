"""The benchmark of the relay runs to its end and moves the right bytes. What it measures is looked at by people."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.lab.netns import missing
from tests.load.relay import ways
from tests.load.relay.__main__ import Scope, run, show_bars, show_times
from tests.load.relay.bars import EIGHT_EDGES
from tests.load.relay.ways import MB

pytestmark = pytest.mark.skipif(bool(LACK := missing()), reason=str(LACK))

NAMES = [ways.MEMCPY, ways.ARENA_PLACED, ways.FRAMES_MOVED, ways.ONE_HOST, ways.RAW, ways.RELAY_AEAD, ways.EDGES]


@pytest.mark.timeout(240)  # seven ways, with two processes or six each
def test_ways_are_measured_and_held_to_their_bars() -> None:
    with TemporaryDirectory(dir="/dev/shm", prefix="omni-test-") as folder:
        alone, edges = run(Path(folder), Scope(NAMES, {64: 2, MB: 2, 16 * MB: 2}, {MB: 4}, rounds=1))
    assert len(edges.seconds(EIGHT_EDGES, MB).rounds[0]) == 8
    assert all(name in show_times(alone) for name in set(NAMES) - {ways.EDGES})
    for path in ("in the pod, copied out, by frames", "between pods, AEAD", "8 edges, slowest"):
        assert path in show_bars(alone, edges)


def test_a_way_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="pigeons"):
        run(tmp_path, Scope(["pigeons"]))
