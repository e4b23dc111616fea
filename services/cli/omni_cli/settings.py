"""What the command reads from the environment; everything else is an option."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class CommandSettings(BaseSettings):
    """The user's environment."""

    model_config = SettingsConfigDict(frozen=True)

    runtime_dir: str | None = Field(
        default=None,
        validation_alias="XDG_RUNTIME_DIR",
        description="A folder of the user's own that a reboot empties.",
    )
