"""A model family of somebody else's distribution, as an entry point brings it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def install(site: Path, family: str, files: Mapping[str, str]) -> None:
    """Makes `site`, which is to be a folder to import from, hold the distribution; `files` are its package's."""
    package, about = site / family, site / f"{family}-1.dist-info"
    for folder in (package, about):
        folder.mkdir(parents=True)
    for name, text in {"__init__.py": "", **files}.items():
        (package / name).write_text(text)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {family}\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[omni.models]\n{family} = {family}\n")
