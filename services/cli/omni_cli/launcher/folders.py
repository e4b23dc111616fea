"""The folders of one run, and how the next run finds what a killed one left.

Every run holds a lock on its folder; the kernel drops it however the launcher ends. A folder whose lock is free is
rubbish, and whoever finds it removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PREFIX = "omni-"
_LOCK = "lock"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- memory is the point; what is made in it is private and locked


@dataclass(frozen=True, slots=True)
class Folders:
    """`run` holds logs and the pipeline files, `arenas` the shared memory of the pods."""

    run: Path
    arenas: Path

    @property
    def logs(self) -> Path:
        return self.run / "logs"


@contextmanager
def run_folders(base: Path, arena_bytes: int, shared_memory: Path = _SHARED_MEMORY) -> Iterator[Folders]:
    """Makes the folders of a run and removes them after. `arena_bytes`: what all arenas may take together."""
    with private_folder(base) as run:
        (run / "logs").mkdir()
        if has_room(shared_memory, arena_bytes):
            with private_folder(shared_memory) as arenas:
                yield Folders(run, arenas)
        else:
            arenas = run / "arenas"
            arenas.mkdir()
            yield Folders(run, arenas)


@contextmanager
def private_folder(base: Path) -> Iterator[Path]:
    """A locked folder of this run, 0700; first removes what dead runs left in `base`."""
    remove_stale(base)
    # It gets its lock under a name that nobody looks for, so that no other run can take it for stale.
    hidden = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=base))
    lock = os.open(hidden / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder = hidden.rename(hidden.with_name(hidden.name.removeprefix(".")))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
    finally:
        os.close(lock)


def remove_stale(base: Path) -> list[Path]:
    """Removes our folders in `base` that no living run holds; says which."""
    return [folder for folder in base.glob(f"{_PREFIX}*/") if _is_ours(folder) and _removed_if_free(folder)]


def base_folder(runtime_dir: str | None) -> Path:
    """Where runs live: the user's own runtime folder where there is one."""
    if runtime_dir and os.access(runtime_dir, os.W_OK):
        return Path(runtime_dir)
    return Path(tempfile.gettempdir())


def has_room(folder: Path, size: int) -> bool:
    if not os.access(folder, os.W_OK):
        return False
    return shutil.disk_usage(folder).free >= size


def _is_ours(folder: Path) -> bool:
    return not folder.is_symlink() and folder.stat().st_uid == os.getuid() and (folder / _LOCK).is_file()


def _removed_if_free(folder: Path) -> bool:
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # its run is alive
        return False
    else:
        shutil.rmtree(folder, ignore_errors=True)  # another run may be removing it too
        return True
    finally:
        os.close(lock)
