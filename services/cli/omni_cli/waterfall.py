"""Pure: when each stage of a request got its first input, made its first output, and ended, as bars of text."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, NonNegativeFloat

_WIDTH = 48
_WAITING, _WORKING, _SENDING = " ", "░", "█"


class StageTiming(BaseModel):
    """Seconds since the request was admitted."""

    model_config = ConfigDict(frozen=True)

    stage: str
    first_input: NonNegativeFloat
    first_output: NonNegativeFloat
    end: NonNegativeFloat


class _Extension(BaseModel):
    stages: tuple[StageTiming, ...]


def parse_timings(extension: object) -> tuple[StageTiming, ...]:
    """From the `omni` field of a reply. Raises ValueError when it is not what the gateway sends."""
    return _Extension.model_validate(extension).stages


def render_waterfall(timings: Sequence[StageTiming]) -> str:
    """One line a stage, in the order in which they got their first input."""
    if not timings:
        return ""
    scale = _WIDTH / max(max(t.end for t in timings), 0.001)
    name = max(len(t.stage) for t in timings)
    lines = [f"{'stage':{name}}  {'first in':>9} {'first out':>9} {'end':>9}"]
    for timing in sorted(timings, key=lambda t: (t.first_input, t.end)):
        times = " ".join(f"{1000 * value:6.0f} ms" for value in (timing.first_input, timing.first_output, timing.end))
        lines.append(f"{timing.stage:{name}}  {times}  {_bar(timing, scale)}")
    lines.append(f"{_WORKING} from first input to first output   {_SENDING} from first output to end")
    return "\n".join(lines)


def _bar(timing: StageTiming, scale: float) -> str:
    start, first, end = (round(value * scale) for value in (timing.first_input, timing.first_output, timing.end))
    end = max(end, start + 1)  # a stage that is too quick to see still did something
    first = min(max(first, start), end)
    return _WAITING * start + _WORKING * (first - start) + _SENDING * (end - first)
