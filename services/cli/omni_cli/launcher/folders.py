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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from omni_cli.errors import CommandError

_PREFIX = "omni-"
_LOCK = "lock"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- memory is the point; what is made in it is private and locked


@dataclass(frozen=True, slots=True)
class Folders:
    """`run` holds logs, secrets and the pipeline files, `arenas` the arenas of the pods: `room` bytes at most."""

    run: Path
    arenas: Path
    room: int

    @property
    def logs(self) -> Path:
        return self.run / "logs"


@contextmanager
def run_folders(base: Path, least: int, shared_memory: Path = _SHARED_MEMORY) -> Iterator[Folders]:
    """Makes the folders of a run and removes them after. `least`: the bytes without which no arena is of use; where
    shared memory does not have them, the arenas are files in the run's folder. Raises CommandError."""
    with private_folder(base) as run:
        try:
            (run / "logs").mkdir()
        except OSError as error:
            raise _no_folder(base, error) from None
        room = _room_in_memory(shared_memory)
        if room >= least:
            with private_folder(shared_memory) as arenas:
                yield Folders(run, arenas, room)
        else:
            arenas = run / "arenas"
            arenas.mkdir()
            yield Folders(run, arenas, _room_in(arenas))


@contextmanager
def private_folder(base: Path) -> Iterator[Path]:
    """A locked folder of this run, 0700; first removes what dead runs left in `base`. Raises CommandError."""
    try:
        remove_stale(base)
        # It gets its lock under a name that nobody looks for, so that no other run can take it for stale.
        hidden = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=base))
        lock = os.open(hidden / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _no_folder(base, error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder = hidden.rename(hidden.with_name(hidden.name.removeprefix(".")))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
    finally:
        os.close(lock)


def _no_folder(base: Path, error: OSError) -> CommandError:
    return CommandError(
        f"Cannot make a folder for this run in {base}: {error.strerror}. Name another place by XDG_RUNTIME_DIR."
    )


def remove_stale(base: Path) -> list[Path]:
    """Removes our folders in `base` that no living run holds; says which."""
    return [folder for folder in base.glob(f"{_PREFIX}*/") if _is_ours(folder) and _removed_if_free(folder)]


def living_runs(base: Path) -> list[Path]:
    """The folders in `base` that living runs of this user hold, the newest first."""
    born = {folder: _born(folder) for folder in base.glob(f"{_PREFIX}*/") if _is_ours(folder) and _is_held(folder)}
    return sorted(born, key=born.__getitem__, reverse=True)


def base_folder(runtime_dir: str | None) -> Path:
    """Where runs live: the user's own runtime folder where there is one."""
    if runtime_dir and os.path.isdir(runtime_dir) and os.access(runtime_dir, os.W_OK):
        return Path(runtime_dir)
    return Path(tempfile.gettempdir())


def _room_in_memory(folder: Path) -> int:
    """Relays take all of their arena at once, so half of the machine's free memory is left to the models."""
    return min(_room_in(folder), psutil.virtual_memory().available // 2)


def _room_in(folder: Path) -> int:
    """Nine tenths of what is free: others write there, too."""
    return shutil.disk_usage(folder).free * 9 // 10 if os.access(folder, os.W_OK) else 0


def _is_ours(folder: Path) -> bool:
    try:
        mine = not folder.is_symlink() and folder.stat().st_uid == os.getuid()
    except FileNotFoundError:  # its run has just ended
        return False
    return mine and (folder / _LOCK).is_file()


def _born(folder: Path) -> int:
    """0 when it is gone by now."""
    with suppress(FileNotFoundError):
        return (folder / _LOCK).stat().st_mtime_ns
    return 0


def _is_held(folder: Path) -> bool:
    try:
        with _locked(folder, fcntl.LOCK_SH):
            return False
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False


def _removed_if_free(folder: Path) -> bool:
    try:
        with _locked(folder, fcntl.LOCK_EX):
            shutil.rmtree(folder, ignore_errors=True)  # another run may be removing it too
            return True
    except (BlockingIOError, FileNotFoundError):  # its run is alive, or another one has removed it
        return False


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    """Raises BlockingIOError when another process has the lock."""
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)
