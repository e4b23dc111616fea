"""A stage process: `python -m omni_stage`, configured by OMNI_STAGE_*."""

from __future__ import annotations

from omni_common.lifecycle import run_service
from omni_stage.process import StageProcess
from omni_stage.settings import StageSettings


def main() -> None:
    run_service(StageSettings, StageProcess)


if __name__ == "__main__":
    main()
