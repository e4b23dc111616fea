"""Pure: options of the command line that are lists written as text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from omni_cli.errors import CommandError
from omni_cli.launcher.ground import LEAST_SHARE, MIB

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": MIB, "GiB": 1 << 30}
_TRANSPORTS = ("tcp", "ucx", "nixl")


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


def parse_size(option: str) -> int:
    """Bytes of `64KiB`, `16MiB`, `1GiB` or a bare number of bytes."""
    size = re.fullmatch(r"(\d{1,12}) ?(|KiB|MiB|GiB)", option.strip())
    if size is None:
        raise CommandError(f"{option} is no size; write 64KiB, 16MiB or 1GiB.")
    return int(size[1]) * _UNITS[size[2]]


def parse_sizes(option: str) -> tuple[int, ...]:
    """`64KiB,1MiB` → (65536, 1048576)."""
    sizes = tuple(parse_size(size) for size in _split([option]))
    if not sizes or not all(sizes):
        raise CommandError(f"--sizes {option} is not understood; write sizes such as 64KiB,1MiB.")
    return sizes


def parse_share(option: str) -> int:
    """Bytes of arena that a relay can work with, in whole MiB."""
    share = parse_size(option) // MIB * MIB
    if share < LEAST_SHARE:
        raise CommandError(f"--arena {option} is too little; write {LEAST_SHARE // MIB}MiB or more.")
    return share


def parse_transports(option: str) -> tuple[str, ...]:
    """`ucx,tcp` → ("ucx", "tcp"); empty for what the relays choose by themselves."""
    transports = tuple(_split([option]))
    if strange := [name for name in transports if name not in _TRANSPORTS]:
        raise CommandError(f"--transports {strange[0]} is not one; there are {', '.join(_TRANSPORTS)}.")
    return transports


def parse_groups(options: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """`a,b` → ("a", "b"); each option is one group."""
    return tuple(tuple(_split([option])) for option in options)


def _split(options: Sequence[str]) -> list[str]:
    return [part.strip() for option in options for part in option.split(",") if part.strip()]
