"""The folders of a run: private, gone after, and found by the next run when they are not."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from omni_cli.errors import CommandError
from omni_cli.launcher.folders import base_folder, living_runs, private_folder, remove_stale, run_folders


def test_a_run_has_private_folders_that_are_gone_after_it(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    with run_folders(tmp_path, 1, memory) as folders:
        assert stat.S_IMODE(folders.run.stat().st_mode) == stat.S_IMODE(folders.arenas.stat().st_mode) == 0o700
        assert folders.arenas.parent == memory
        assert folders.logs.is_dir()
        (folders.arenas / "thinker-0").mkdir()
        (folders.arenas / "thinker-0" / "segment").write_bytes(b"x")
    assert list(memory.iterdir()) == []
    assert list(tmp_path.iterdir()) == [memory]


def test_arenas_may_take_part_of_the_room_that_there_is(tmp_path: Path) -> None:
    with run_folders(tmp_path, 1, tmp_path) as folders:
        assert 1 <= folders.room < shutil.disk_usage(tmp_path).free


def test_only_the_folders_of_living_runs_are_listed_the_newest_first(tmp_path: Path) -> None:
    (tmp_path / "omni-dead").mkdir()
    (tmp_path / "omni-dead" / "lock").touch()
    assert living_runs(tmp_path) == []
    assert (tmp_path / "omni-dead").is_dir()  # to look is not to tidy up
    with private_folder(tmp_path) as old, private_folder(tmp_path) as new:
        os.utime(old / "lock", ns=(1, 1))
        assert living_runs(tmp_path) == [new, old]
        os.utime(new / "lock", ns=(0, 0))
        assert living_runs(tmp_path) == [old, new]


def test_arenas_are_in_the_run_folder_where_shared_memory_has_no_room(tmp_path: Path) -> None:
    with run_folders(tmp_path, 1 << 60, tmp_path) as folders:
        assert folders.arenas.parent == folders.run
    assert list(tmp_path.iterdir()) == []


def test_an_error_inside_leaves_no_folder_either(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), private_folder(tmp_path):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_run_left_is_removed_and_what_a_living_one_holds_is_not(tmp_path: Path) -> None:
    dead = tmp_path / "omni-dead"
    dead.mkdir()
    (dead / "lock").touch()
    (dead / "arena").touch()
    with private_folder(tmp_path) as living:
        assert not dead.exists()
        assert remove_stale(tmp_path) == []
        assert living.is_dir()


def test_a_folder_of_that_name_without_our_lock_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "omni-notes").mkdir()
    assert remove_stale(tmp_path) == []
    assert (tmp_path / "omni-notes").is_dir()


def test_a_link_to_a_folder_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lock").touch()
    (tmp_path / "omni-link").symlink_to(elsewhere)
    assert remove_stale(tmp_path) == []
    assert elsewhere.is_dir()


def test_where_no_folder_can_be_made_is_told() -> None:
    with (
        pytest.raises(CommandError, match=r"^Cannot make a folder for this run in /proc: "),
        run_folders(Path("/proc"), least=1),
    ):
        pass


def test_runs_live_in_the_users_runtime_folder_where_there_is_one(tmp_path: Path) -> None:
    assert base_folder(str(tmp_path)) == tmp_path
    assert base_folder(str(tmp_path / "missing")) == base_folder(None)
    (tmp_path / "file").touch()
    assert base_folder(str(tmp_path / "file")) == base_folder(None)
