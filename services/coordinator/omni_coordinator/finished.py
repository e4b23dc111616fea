"""The end of a request as the messages have it."""

from __future__ import annotations

from omni.coordinator.v1 import coordinator_pb2 as pb
from omni_common.rpc.convert import render_finish_reason, render_report, render_usage
from omni_coordinator.core.events import Finished


def render_finished(finished: Finished) -> pb.Finished:
    return pb.Finished(
        finish_reason=render_finish_reason(finished.finish_reason),
        usage=render_usage(finished.usage),
        reports=map(render_report, finished.reports),
    )
