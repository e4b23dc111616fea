"""Pure: Kubernetes' quantities, and how a person reads them."""

from __future__ import annotations

import re

from omni_cli.top.tables import size_text

_QUANTITY = re.compile(r"([+-]?\d+(?:\.\d*)?|\.\d+)([eE][+-]?\d+|[numkMGTPE]|[KMGTPE]i)?")
_FACTORS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {f"{unit}i": 1024.0 ** (n + 1) for n, unit in enumerate("KMGTPE")}


def parse_quantity(text: object) -> float:
    """`500m`, `2Gi`, `1e3`; 0 for what is none, since the server that wrote it knows better."""
    match = _QUANTITY.fullmatch(str(text).strip())
    if match is None:
        return 0.0
    number, unit = float(match[1]), match[2] or ""
    if unit[:1] in {"e", "E"} and len(unit) > 1 and unit != "Ei":
        return number * 10.0 ** int(unit[1:])
    return number * {**_FACTORS, **_BINARY}.get(unit, 1.0)


def amount_text(resource: str, amount: float) -> str:
    """`1 × nvidia.com/gpu`, `2.5 CPUs`, `4.0 GiB of memory`."""
    match resource:
        case "cpu":
            return "1 CPU" if amount == 1 else f"{amount:.3g} CPUs"
        case "memory" | "ephemeral-storage":
            return f"{size_text(amount)} of {resource.replace('-', ' ')}"
        case _:
            return f"{amount:g} × {resource}"
