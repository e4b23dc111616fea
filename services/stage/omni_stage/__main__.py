"""A stage replica: `python -m omni_stage`, configured by OMNI_STAGE_*."""

from __future__ import annotations

from omni_common.lifecycle import run_service
from omni_stage.replica import Replica
from omni_stage.settings import StageSettings


def main() -> None:
    run_service(StageSettings(), Replica)


if __name__ == "__main__":
    main()
