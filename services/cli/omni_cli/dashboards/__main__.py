"""Writes the dashboards, and the rules of the service levels, into the chart whose folder is named."""

from __future__ import annotations

import sys
from pathlib import Path

from omni_cli.dashboards.boards import BOARDS
from omni_cli.dashboards.grafana import render
from omni_cli.dashboards.objectives import rules


def made() -> dict[str, str]:
    """The files by their path in the chart."""
    boards = {f"dashboards/{board.name}.json": render(board) for board in BOARDS}
    return {**boards, "rules/objectives.yaml": rules()}


def main(chart: Path) -> None:
    for name, text in made().items():
        (chart / name).parent.mkdir(parents=True, exist_ok=True)
        (chart / name).write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
