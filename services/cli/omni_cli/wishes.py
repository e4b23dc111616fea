"""Pure: options of the command line that are lists written as text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from omni_cli.errors import CommandError


def parse_replicas(options: Sequence[str]) -> dict[str, int]:
    """`thinker=2, piper/read=3` → {"thinker": 2, "piper/read": 3}; commas are for who does not like to repeat it."""
    replicas: dict[str, int] = {}
    for option in _split(options):
        stage, _, number = option.partition("=")
        if not number.isdecimal() or not 1 <= int(number) <= 64:
            raise CommandError(
                f"--replicas {option} is not understood; write STAGE=N or PIPELINE/STAGE=N, with N from 1 to 64."
            )
        replicas[stage.strip()] = int(number)
    return replicas


def parse_device(option: str) -> str:
    """auto, cpu, cuda or cuda:N."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,2})?", option):
        raise CommandError(f"--device {option} is not understood; write auto, cpu, cuda or cuda:1.")
    return option


def parse_groups(options: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """`a,b` → ("a", "b"); each option is one group."""
    return tuple(tuple(_split([option])) for option in options)


def _split(options: Sequence[str]) -> list[str]:
    return [part.strip() for option in options for part in option.split(",") if part.strip()]
