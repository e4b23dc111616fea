"""What processes of a kind will import anyway, so that their fork server does it once for all of them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable

from omni_cli.launcher.plan import RELAY
from omni_stage.models import families

_SERVICE = "omni_stage.__main__"
_RELAY_SERVICE = "omni_relay.__main__"


def preloads(families_: Iterable[str]) -> dict[str, list[str]]:
    """For each family, and for the relays, the modules of its fork server."""
    return {RELAY: [_RELAY_SERVICE], **{family: modules_of(family) for family in families_}}


def modules_of(family: str) -> list[str]:
    """The stage service, the family's modules and all of its components, which name what they need from outside."""
    package = importlib.import_module(families()[family])
    found = [module.name for module in pkgutil.walk_packages(package.__path__, prefix=f"{package.__name__}.")]
    return [_SERVICE, *found]
