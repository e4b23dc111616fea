"""`omni up --together`: stages that share a process, as a user has them."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from tests.integration.test_top import table_of
from tests.integration.up_process import say, up

from omni_cli.launcher.child import kernel_name

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PHOTO = Path(__file__).parents[1] / "media" / "cat.jpg"
FRONT = ("split", "upper", "count", "join")
NAME = "echo-split-upper-count-join-0"


async def test_stages_wished_together_are_one_process_that_top_shows_stage_by_stage(tmp_path: Path) -> None:
    async with up(tmp_path, "--together", ",".join(FRONT)) as mesh:
        await mesh.ready()
        children = mesh.children()
        assert kernel_name(NAME) in children
        assert not children.keys() & {f"echo-{stage}-0" for stage in FRONT}
        for stage in FRONT:
            assert any(line.split()[0] == f"{NAME}.{stage}" for line in mesh.said if line.strip()), stage
        assert "hello" in (await say(mesh, "hello mesh", image=PHOTO)).lower()
        lines = await table_of(tmp_path)
        assert await mesh.stop(signal.SIGTERM) == 0
    rows = {words[0]: words[1:3] for words in lines if len(words) > 2}
    assert {name: rows[name][0] for name in rows if name.startswith(NAME)} == {f"{NAME}.{s}": "serving" for s in FRONT}
    assert rows["echo/split>count"] == ["object", "same_process"]


async def test_a_killed_process_of_several_stages_comes_back_and_serves_again(tmp_path: Path) -> None:
    async with up(tmp_path, "--together", ",".join(FRONT)) as mesh:
        await mesh.ready()
        mesh.children()[kernel_name(NAME)].kill()
        await mesh.until(rf"{NAME} was ended by SIGKILL; starting it again in 0\.2 s\.")
        await mesh.until(r"Every stage is ready again\.")
        assert "hello" in (await say(mesh, "hello again", image=PHOTO)).lower()
        assert await mesh.stop(signal.SIGTERM) == 0
