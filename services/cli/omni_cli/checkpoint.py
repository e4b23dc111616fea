"""From what the user gave as --model to a folder with a checkpoint."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

from omni_cli.errors import CommandError
from omni_stage.models import families

# Pipelines whose stages compute without weights.
WITHOUT_WEIGHTS = frozenset({"echo"})
# Family → module with `make_tiny(folder)`; imported when asked for, since it brings torch.
TINY: Mapping[str, str] = {"qwen3-omni": "omni_stage.models.qwen3_omni.components.tiny"}
# Weights in any other format are code in disguise.
_WANTED = ["*.json", "*.safetensors", "*.txt", "*.jinja"]


def find_checkpoint(family: str, model: str | None) -> Path | None:
    """The checkpoint's folder, downloaded first when `model` is a hub id. Raises CommandError."""
    if family not in families():
        raise CommandError(f"There is no pipeline '{family}'. There are {', '.join(sorted(families()))}.")
    if model is None:
        if family in WITHOUT_WEIGHTS:
            return None
        raise CommandError(
            f"Pipeline '{family}' needs weights: give --model FOLDER or --model HUB-ID. For a tiny random model, run\n"
            f"  omni models make-tiny {family} .omni/tiny-{family}\n  omni up --model .omni/tiny-{family}"
        )
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise CommandError(f"{folder} has no config.json: it is not the folder of a checkpoint.")
        return folder.resolve()
    if folder.is_absolute() or model.startswith(".") or model.count("/") != 1:
        raise CommandError(f"There is no folder {model}.")
    print(f"Fetching {model} from the hub; what was fetched before is kept.")
    return _download(model)


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download  # half a second that most commands need not spend
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=_WANTED))
    except (RepositoryNotFoundError, HFValidationError):
        raise CommandError(f"There is no folder and no model on the hub with the name {hub_id}.") from None
    except (HfHubHTTPError, OSError) as error:
        raise CommandError(f"There is no folder {hub_id}, and the hub cannot be reached: {_first(error)}") from None


def _first(error: Exception) -> str:
    return str(error).splitlines()[0]


def make_tiny_checkpoint(family: str, folder: Path) -> None:
    if family not in TINY:
        raise CommandError(f"No tiny model can be made for '{family}'; it can for {', '.join(TINY)}.")
    if folder.exists() and any(folder.iterdir()):
        raise CommandError(f"{folder} is not empty.")
    folder.mkdir(parents=True, exist_ok=True)
    importlib.import_module(TINY[family]).make_tiny(folder)
