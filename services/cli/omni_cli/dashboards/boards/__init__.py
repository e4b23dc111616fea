"""The dashboards, a module each."""

from __future__ import annotations

from omni_cli.dashboards.boards.edges import EDGES
from omni_cli.dashboards.boards.engine import ENGINE
from omni_cli.dashboards.boards.kubernetes import KUBERNETES
from omni_cli.dashboards.boards.overview import OVERVIEW
from omni_cli.dashboards.boards.pipeline import STAGES

BOARDS = (OVERVIEW, STAGES, EDGES, ENGINE, KUBERNETES)
