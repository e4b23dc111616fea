"""What a family's stage processes will import anyway, so that the fork server does it once for all of them."""

from __future__ import annotations

import importlib
import pkgutil

from omni_stage.models import families

_SERVICE = "omni_stage.__main__"


def modules_of(family: str) -> list[str]:
    """The stage service, the family's modules and all of its components, which name what they need from outside."""
    package = importlib.import_module(families()[family])
    found = [module.name for module in pkgutil.walk_packages(package.__path__, prefix=f"{package.__name__}.")]
    return [_SERVICE, *found]
