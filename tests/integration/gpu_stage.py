"""A stage process of the family `gpu_family` on a GPU that is none, or on a real one. Run by test_device_ways.py.

    gpu_stage.py GPU-name | cuda:N

Configured by OMNI_STAGE_*, as any stage. Says "hanging" when it has come to a tensor of HANGING bytes to send through a
pair, which it never does.
"""

from __future__ import annotations

import sys
from typing import cast

import torch
from tests.integration.gpu_family.stages import Maker
from tests.unit.stage.gpus import gpu_side
from tests.unit.stage.pair_process import Hanging

from omni_common.lifecycle import run_service
from omni_stage import models
from omni_stage.devices import DeviceSide, Place
from omni_stage.process import StageProcess
from omni_stage.settings import StageSettings


def main() -> None:
    Maker.gpu = gpu = sys.argv[1]
    cast("dict[str, str]", models.FAMILIES)["gpus"] = "tests.integration.gpu_family"

    if gpu.startswith("cuda"):
        torch.zeros(1, device=gpu)
        run_service(StageSettings, StageProcess, device=gpu)

    def open_side(place: Place) -> DeviceSide:
        return gpu_side(place.folder, place.owner, gpu, make=Hanging)[0]

    run_service(StageSettings, lambda settings: StageProcess(settings, open_side=open_side))


if __name__ == "__main__":
    main()
