"""Pure: options of the command line that are lists written as text, and what others may be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from omni_cli.errors import CommandError
from omni_cli.launcher.ground import LEAST_SHARE, MIB
from omni_common.settings import OTLP_ENDPOINT

# Of what `omni transcribe` prints.
Form = Literal["text", "json", "srt", "vtt", "verbose_json"]

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": MIB, "GiB": 1 << 30}
_TRANSPORTS = ("tcp", "ucx", "nixl")


def parse_numbers(options: Sequence[str], name: str) -> dict[str, int]:
    """`thinker=2, piper/read=3` → {"thinker": 2, "piper/read": 3}; commas are for who does not like to repeat it.
    `name` is the option's."""
    numbers: dict[str, int] = {}
    for option in _split(options):
        stage, _, number = option.partition("=")
        if not number.isdecimal() or not 1 <= int(number) <= 64:
            raise CommandError(
                f"{name} {option} is not understood; write STAGE=N or PIPELINE/STAGE=N, with N from 1 to 64."
            )
        numbers[stage.strip()] = int(number)
    return numbers


def parse_device(option: str) -> str:
    """auto, cpu, cuda or cuda:N."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,2})?", option):
        raise CommandError(f"--device {option} is not understood; write auto, cpu, cuda or cuda:1.")
    return option


def parse_size(option: str, name: str) -> int:
    """Bytes of `64KiB`, `16MiB`, `1GiB` or a bare number of bytes; `name` is the option's."""
    size = re.fullmatch(r"(\d{1,12}) ?(|KiB|MiB|GiB)", option.strip())
    if size is None:
        raise CommandError(f"{name} '{option}' is not understood; write a size such as 64KiB, 16MiB or 1GiB.")
    return int(size[1]) * _UNITS[size[2]]


def parse_sizes(option: str) -> tuple[int, ...]:
    """`64KiB,1MiB` → (65536, 1048576)."""
    sizes = tuple(parse_size(size, "--sizes") for size in _split([option]))
    if not sizes or not all(sizes):
        raise CommandError(f"--sizes {option} is not understood; write sizes such as 64KiB,1MiB.")
    return sizes


def parse_share(option: str) -> int:
    """Bytes of arena that a relay can work with, in whole MiB."""
    share = parse_size(option, "--arena") // MIB * MIB
    if share < LEAST_SHARE:
        raise CommandError(f"--arena {option} is too little; write {LEAST_SHARE // MIB}MiB or more.")
    return share


def parse_transports(option: str, name: str = "--transports") -> tuple[str, ...]:
    """`ucx,tcp` → ("ucx", "tcp"); empty for what the relays choose by themselves. `name` is the option's."""
    transports = tuple(_split([option]))
    if strange := [transport for transport in transports if transport not in _TRANSPORTS]:
        raise CommandError(f"{name} {strange[0]} is not one; there are {', '.join(_TRANSPORTS)}.")
    if twice := _twice(transports):
        raise CommandError(f"{name} {option} names {twice} twice.")
    return transports


def parse_groups(options: Sequence[str], name: str) -> tuple[tuple[str, ...], ...]:
    """`a,b` → ("a", "b"); each option is one group. `name` is the option's."""
    return tuple(_group(option, name) for option in options)


def parse_otlp(option: str) -> str:
    """`127.0.0.1:4317`, `http://…:4317`, `https://…:4317`; empty for none."""
    if option and not re.fullmatch(OTLP_ENDPOINT, option):
        raise CommandError(f"--otlp {option} is not understood; write HOST:PORT, such as 127.0.0.1:4317.")
    return option


def _group(option: str, name: str) -> tuple[str, ...]:
    group = tuple(_split([option]))
    if twice := _twice(group):
        raise CommandError(f"{name} {option} names {twice} twice.")
    if len(group) < 2:
        raise CommandError(f"{name} '{option}' is no group; write two stages or more, such as a,b.")
    return group


def _twice(names: Sequence[str]) -> str | None:
    return next((name for place, name in enumerate(names) if name in names[:place]), None)


def _split(options: Sequence[str]) -> list[str]:
    return [part.strip() for option in options for part in option.split(",") if part.strip()]
