"""What a family's weights look like on disk, and where they come from when nobody names a folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Packaged:
    """Weights that a distribution of a package index carries as plain data: nothing of it is ever imported.

    `folder` is inside the distribution; `extra` is the extra of the stage's own distribution that installs it.
    """

    distribution: str
    folder: str
    extra: str

    def find(self) -> Path | None:
        """The folder, when the distribution is installed."""
        try:
            folder = Path(str(distribution(self.distribution).locate_file(self.folder)))
        except PackageNotFoundError:
            return None
        return folder if folder.is_dir() else None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`CHECKPOINT` in a family's `config.py`; a family without one computes without weights.

    `marks` are patterns of file names that a folder with such weights all has. `files` are the patterns of what is
    fetched from a hub. `packaged` is the default where it is installed. `tiny` names a module with
    `make_tiny(folder)`, which writes random weights of the real shape.
    """

    marks: tuple[str, ...]
    files: tuple[str, ...]
    packaged: Packaged | None = None
    tiny: str = ""

    def missing(self, folder: Path) -> Iterable[str]:
        """The marks that the folder lacks; empty when it holds such weights."""
        return [mark for mark in self.marks if not any(folder.glob(mark))]
