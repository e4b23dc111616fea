"""What an image installs from a package index before any of our code is in it: a changed line installs nothing anew.

python .ci/requirements.py libs/omni_common services/stage[media,piper] prints the requirements of these distributions
with these extras, but for our own distributions and for weights (services/stage/omni_stage/weights.txt), which are in
no image. Versions are in constraints.txt.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

WEIGHTS = Path("services/stage/omni_stage/weights.txt")


def requirements(given: Iterable[str]) -> Iterator[str]:
    """Raises SystemExit with a sentence when an extra does not exist."""
    left_out = weights()
    for one in given:
        folder, _, extras = one.rstrip("]").partition("[")
        project = tomllib.loads((Path(folder) / "pyproject.toml").read_text())["project"]
        optional = project.get("optional-dependencies", {})
        wanted = [extra for extra in extras.split(",") if extra]
        if unknown := sorted(set(wanted) - set(optional)):
            sys.exit(f"{folder} has no extra {', '.join(unknown)}; it has {', '.join(sorted(optional))}.")
        for requirement in [*project["dependencies"], *(line for extra in wanted for line in optional[extra])]:
            if not requirement.startswith("omni-") and name_of(requirement) not in left_out:
                yield requirement


def weights() -> set[str]:
    """The names of the distributions that are nothing but weights."""
    lines = WEIGHTS.read_text().splitlines() if WEIGHTS.exists() else []
    return {name_of(line) for line in lines if line[:1].isalnum()}


def name_of(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in dict.fromkeys(requirements(sys.argv[1:])))
