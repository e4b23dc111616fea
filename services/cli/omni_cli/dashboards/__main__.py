"""Writes the dashboards, each as a JSON file, into the folder that is named."""

from __future__ import annotations

import sys
from pathlib import Path

from omni_cli.dashboards.boards import BOARDS
from omni_cli.dashboards.grafana import render


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        (folder / f"{board.name}.json").write_text(render(board))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
