"""What a run writes down for whoever watches it."""

from __future__ import annotations

import os
from pathlib import Path

from omni_cli.launcher.folders import private_folder
from omni_cli.launcher.ground import Ground
from omni_cli.launcher.network import OwnSubnet
from omni_cli.launcher.plan import Plan, Wishes, plan
from omni_cli.launcher.shape import shape
from omni_cli.launcher.state import newest_state, write_state
from omni_cli.serving import serve


def planned() -> Plan:
    wishes = Wishes((serve("echo"),))
    return plan(shape(wishes), wishes, Ground(Path("run"), Path("arenas"), OwnSubnet("127.9.9")))


def test_the_newest_living_run_is_found_with_its_processes(tmp_path: Path) -> None:
    with private_folder(tmp_path) as old, private_folder(tmp_path) as new:
        os.utime(old / "lock", ns=(1, 1))
        write_state(old, "http://127.0.0.1:1", planned())
        found = newest_state(tmp_path)  # the newer one has yet to write it down
        assert found is not None
        assert found.url == "http://127.0.0.1:1"
        write_state(new, "http://127.0.0.1:2", planned())
        found = newest_state(tmp_path)
    assert found is not None
    assert found.url == "http://127.0.0.1:2"
    assert [(p.name, p.metrics, p.pipeline) for p in found.processes][::4] == [
        ("relay-echo-front-0", "127.9.9.1:9100", "echo"),
        ("echo-count-0", "127.9.9.1:9104", "echo"),
        ("echo-beep-0", "127.9.9.1:9108", "echo"),
    ]
    assert [p.pipeline for p in found.processes if p.name in {"gateway-0", "coordinator-0"}] == ["", ""]


def test_nothing_is_found_where_no_run_lives_or_none_is_understood(tmp_path: Path) -> None:
    dead = tmp_path / "omni-dead"
    dead.mkdir()
    (dead / "lock").touch()
    write_state(dead, "http://127.0.0.1:1", planned())
    assert newest_state(tmp_path) is None
    with private_folder(tmp_path) as strange:
        (strange / "mesh").write_text('{"url": 1}')
        assert newest_state(tmp_path) is None
