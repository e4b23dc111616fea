"""What a folder of weights says of itself, and the lock that lets one pod at a time fill it.

Several pods may share the volume: the first fills it, the others wait and find the record. The record is written before
the first file, as not whole, and after the last one as whole; so what a pod left that was ended midway is known to be
ours, and is gone on with.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from omni_common.deadline import Deadline
from omni_stage.weights.errors import WeightsError

logger = logging.getLogger(__name__)

_RECORD = ".omni-weights.json"
_NEW_RECORD = f"{_RECORD}.new"
_LOCK = ".omni-weights.lock"
# What a file system has of its own, and what a pod may leave that ends before its first file.
_NOT_WEIGHTS = frozenset({"lost+found", _RECORD, _NEW_RECORD, _LOCK})
_LOCK_TRIES = 1.0  # seconds; no file system wakes a waiter that is on another machine

Wanted = Mapping[str, str]
"""What identifies weights: family, source, and where the source has it."""


def is_whole(folder: Path, wanted: Wanted) -> bool:
    """Whether the folder holds exactly these. Raises WeightsError when it holds others."""
    record = _read(folder)
    if record is None:
        return False
    if record["of"] != dict(wanted):
        raise WeightsError(
            f"{folder} holds other weights, {_said(record['of'])}, and {_said(wanted)} are wanted. "
            "Give them a volume of their own, or empty this one while nobody uses it."
        )
    return bool(record["whole"])


@contextmanager
def filling(folder: Path, wanted: Wanted) -> Iterator[None]:
    """Holds the folder for the filling of it, and says so in it; whole when the body ends well.

    Raises WeightsError when there are files in it that nobody here put there.
    """
    if _read(folder) is None and (others := sorted({path.name for path in folder.iterdir()} - _NOT_WEIGHTS)):
        raise WeightsError(f"{folder} is not empty: it holds {', '.join(others[:3])}. Its source may be volume.")
    _write(folder, wanted, whole=False)
    yield
    _write(folder, wanted, whole=True)


@contextmanager
def locked(folder: Path, deadline: Deadline) -> Iterator[None]:
    """This process alone, of all pods with the volume. Raises WeightsError at the deadline, and when nothing can be
    written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o664)
    except OSError as error:
        raise WeightsError(f"Nothing can be written to {folder}: {error.strerror}.") from error
    try:
        _take(lock, folder, deadline)
        yield
    finally:
        os.close(lock)


def _take(lock: int, folder: Path, deadline: Deadline) -> None:
    told = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                logger.info("another pod fills the volume; waiting", extra={"folder": str(folder)})
            told = True
        else:
            return
        if deadline.passed:
            raise WeightsError(f"Another pod has been filling {folder} until the deadline.")
        time.sleep(min(_LOCK_TRIES, deadline.remaining))


def _read(folder: Path) -> dict[str, dict[str, str]] | None:
    try:
        text = (folder / _RECORD).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        record = json.loads(text)
        return {"of": dict(record["of"]), "whole": record["whole"]}
    except (ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{folder / _RECORD} is damaged; remove it, and what is beside it.") from error


def _write(folder: Path, wanted: Wanted, *, whole: bool) -> None:
    new = folder / _NEW_RECORD
    new.write_text(json.dumps({"of": dict(wanted), "whole": whole}, indent=2) + "\n")
    new.rename(folder / _RECORD)


def _said(wanted: Wanted) -> str:
    return " ".join(value for value in wanted.values() if value)
