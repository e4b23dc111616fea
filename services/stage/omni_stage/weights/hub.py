"""Weights from a hub. What was fetched before, whole or in part, is not fetched again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from omni_common.deadline import Deadline
from omni_stage.weights.errors import UnknownModel, WeightsError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_ANSWER = 30.0  # seconds for the hub to say what a model has


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A model at one commit: its files that are wanted, with their sizes."""

    hub_id: str
    commit: str
    files: dict[str, int]

    @property
    def bytes(self) -> int:
        return sum(self.files.values())

    def missing(self, folder: Path) -> list[str]:
        """What of it the folder does not hold whole."""
        return [
            name for name, size in self.files.items() if not (folder / name).is_file() or _size(folder / name) != size
        ]


def look_up(hub_id: str, patterns: Sequence[str], revision: str) -> Snapshot:
    """What the hub has of the model. Raises WeightsError."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils._paths import filter_repo_objects

    info = _asked(hub_id, lambda: HfApi().model_info(hub_id, revision=revision, files_metadata=True, timeout=_ANSWER))
    files = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    wanted = {name: files[name] for name in filter_repo_objects(files, allow_patterns=list(patterns))}
    if not wanted or info.sha is None:
        raise WeightsError(f"{hub_id} has no file that matches {', '.join(patterns)}.")
    return Snapshot(hub_id, info.sha, wanted)


def fetch_into_cache(hub_id: str, patterns: Sequence[str]) -> Path:
    """The folder in this user's cache of the hub, filled as far as it was not; with bars on a terminal. Raises
    WeightsError."""
    from huggingface_hub import snapshot_download

    return Path(_asked(hub_id, lambda: snapshot_download(hub_id, allow_patterns=list(patterns))))


def fetch_into(folder: Path, snapshot: Snapshot, deadline: Deadline, every: float) -> None:
    """Fills the folder, with a line in the log `every` so many seconds. Raises WeightsError.

    The download is a thread of a library that cannot be stopped: after the deadline it is left behind, and the process
    must end by `omni_common.lifecycle.leave`.
    """
    trouble: list[WeightsError] = []
    thread = threading.Thread(target=_fetch, args=(folder, snapshot, trouble), daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(min(every, deadline.remaining))
        _tell(folder, snapshot)
        if deadline.passed and thread.is_alive():
            raise WeightsError(f"{snapshot.hub_id} was not fetched within the deadline; what there is of it is kept.")
    if trouble:
        raise trouble[0]
    # The library takes a folder for good when the hub goes away, whatever is in it.
    if missing := snapshot.missing(folder):
        raise WeightsError(f"{snapshot.hub_id} was fetched in part: {', '.join(missing[:3])} is missing.")


def _fetch(folder: Path, snapshot: Snapshot, trouble: list[WeightsError]) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    library = logging.getLogger("huggingface_hub")
    library.handlers.clear()  # what it says becomes lines of our log
    library.propagate = True
    try:
        _asked(
            snapshot.hub_id,
            lambda: snapshot_download(
                snapshot.hub_id, revision=snapshot.commit, local_dir=folder, allow_patterns=list(snapshot.files)
            ),
        )
    except WeightsError as error:
        trouble.append(error)


def _tell(folder: Path, snapshot: Snapshot) -> None:
    # Files that are under way lie in the library's own folder, with names that end so.
    whole = sum(_size(folder / name) for name in snapshot.files)
    part = sum(_size(path) for path in folder.glob(".cache/huggingface/download/**/*.incomplete"))
    done = min(whole + part, snapshot.bytes)
    percent = 100.0 * done / snapshot.bytes if snapshot.bytes else 100.0
    logger.info("fetched", extra={"bytes": done, "of": snapshot.bytes, "percent": round(percent, 1)})


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it has just been renamed
        return 0


def _asked(hub_id: str, ask: Callable[[], T]) -> T:
    """What the library answers, its errors as sentences. Raises WeightsError."""
    import httpx
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError
    from huggingface_hub.errors import RevisionNotFoundError as NoSuchRevision

    try:
        return ask()
    except GatedRepoError as error:
        raise WeightsError(f"{hub_id} is given to those only whom its owner lets in: set HF_TOKEN.") from error
    except NoSuchRevision as error:
        raise WeightsError(f"{hub_id} has no such revision.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UnknownModel(
            f"The hub has no model {hub_id}, or shows it to nobody without the right HF_TOKEN."
        ) from error
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]  # httpx has errors that say nothing
        raise WeightsError(f"{hub_id} cannot be fetched: {why}") from error
