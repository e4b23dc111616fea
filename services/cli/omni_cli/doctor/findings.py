"""What the rules find: one sentence about one object, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum


class Severity(IntEnum):
    """In the order in which they are told."""

    WRONG = 0
    """It does not work, or soon will not."""
    WARNING = 1
    """It works, and somebody should look; or it cannot be seen whether it works."""


@dataclass(frozen=True, slots=True)
class Finding:
    severity: Severity
    object: str
    sentence: str
    advice: str = ""


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first; what is said of several objects in the same words is said once."""
    same: dict[tuple[Severity, str, str], list[str]] = {}
    for finding in findings:
        same.setdefault((finding.severity, finding.sentence, finding.advice), []).append(finding.object)
    whole = [
        Finding(severity, _objects(list(dict.fromkeys(objects))), sentence, advice)
        for (severity, sentence, advice), objects in same.items()
    ]
    return sorted(whole, key=lambda finding: finding.severity)


def _objects(objects: list[str]) -> str:
    more = len(objects) - 1
    return f"{objects[0]} and {more} more" if more else objects[0]


def age_text(age: timedelta) -> str:
    """One unit is enough for a person."""
    seconds = max(0, int(age.total_seconds()))
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"
