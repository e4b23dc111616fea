"""From a slow bucket of a histogram to the trace of a request in it: a real Prometheus, a real collector."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.otlp_collector import collecting
from tests.integration.up_process import say, up
from tests.observability.server import prometheus

from omni_cli.launcher.state import newest_state
from omni_common.telemetry import spans

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_prometheus_has_the_trace_of_a_request(tmp_path: Path) -> None:
    async with collecting() as collector, up(tmp_path, "--otlp", collector.address) as mesh:
        await mesh.ready()
        state = newest_state(tmp_path)
        assert state is not None
        async with prometheus(tmp_path / "prometheus", state.processes) as server:
            assert "hello" in (await say(mesh, "hello mesh")).lower()
            made = await collector.until(lambda made: any(span.name == spans.GATEWAY for span in made))
            (trace,) = {span.trace for span in made}
            await server.sees_what_is_now()
            for series in ("omni_time_to_first_output_seconds_bucket", "omni_request_seconds_bucket"):
                assert await server.exemplars(series) == [{"trace_id": trace}]
