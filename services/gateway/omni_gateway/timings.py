"""When each stage worked for a request: an extension that callers ask for by a header."""

from __future__ import annotations

from collections.abc import Sequence

from omni_common.request import StageReport
from omni_gateway.http.sse import Json


def timings_body(request_id: str, reports: Sequence[StageReport]) -> Json:
    """The value of `omni` in bodies and last events; seconds since the request was admitted."""
    stages = [
        {
            "stage": r.stage,
            "replica": r.replica,
            "first_input": r.first_input,
            "first_output": r.first_output,
            "end": r.end,
        }
        for r in sorted(reports, key=lambda r: (r.first_input, r.stage))
    ]
    return {"request_id": request_id, "stages": stages}
