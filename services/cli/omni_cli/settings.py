"""What the command reads from the environment; everything else is an option."""

from __future__ import annotations

from pathlib import Path

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
    ca_file: Path | None = Field(
        default=None,
        validation_alias="OMNI_CA_FILE",
        description="The CA that signed the mesh's certificate (PEM); unset, those that the system trusts.",
    )
    https_cert: Path | None = Field(
        default=None,
        validation_alias="OMNI_GATEWAY_HTTPS_CERT",
        description="The gateway's own setting, which `omni up` hands on: where it is given, the mesh speaks HTTPS.",
    )
    api_key: str = Field(
        default="none", min_length=1, validation_alias="OMNI_API_KEY", description="The key that the mesh asks for."
    )

    @property
    def api_key_given(self) -> bool:
        return "api_key" in self.model_fields_set
