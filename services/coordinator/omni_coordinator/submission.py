"""What a coordinator is asked, and how much of it it takes."""

from __future__ import annotations

from dataclasses import dataclass, field

from omni_common.request import GenerationRequest, TraceContext


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one coordinator; times in seconds, media in bytes."""

    max_live_requests: int = 256
    max_media: int = 512 << 20
    default_deadline: float = 600.0
    abort_timeout: float = 2.0
    max_attempts: int = 3


@dataclass(frozen=True, slots=True)
class Submission:
    """One caller's request; `remaining` is the time that it has, None for the default."""

    request: GenerationRequest
    output_credits: int
    remaining: float | None = None
    trace: TraceContext = field(default_factory=TraceContext)
