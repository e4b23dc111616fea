"""Runs a coordinator: `python -m omni_coordinator`."""

from __future__ import annotations

from omni_common.lifecycle import run_service
from omni_coordinator.service import CoordinatorProcess
from omni_coordinator.settings import CoordinatorSettings


def main() -> None:
    run_service(CoordinatorSettings, CoordinatorProcess)


if __name__ == "__main__":
    main()
