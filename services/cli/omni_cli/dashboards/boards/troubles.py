"""The rows of the overview that are about what goes wrong, who is let in, and what runs."""

from __future__ import annotations

from omni_cli.dashboards.panels import Kind, Panel, Query, Row, p95, quantiles
from omni_cli.dashboards.promql import MESH, rate, select, total

_FAILED = 'outcome!~"completed|cancelled"'

ERRORS = Row(
    "Errors",
    (
        Panel(
            title="Failed requests",
            says="By pipeline and reason; what callers cancelled is none.",
            queries=(
                Query(rate("omni_requests_total", "pipeline", "outcome", where=_FAILED), "{{pipeline}} {{outcome}}"),
            ),
            unit="reqps",
            stacked=True,
        ),
        Panel(
            title="Streams by how they ended",
            says="A stream has its code before it can fail, so that only its outcome shows what broke.",
            queries=(
                Query(rate("omni_stream_outcomes_total", "route", "outcome", scope=MESH), "{{route}} {{outcome}}"),
            ),
            unit="reqps",
            stacked=True,
        ),
        Panel(
            title="Refused at the door",
            says="By reason: too many requests, or no replica of a stage.",
            queries=(Query(rate("omni_admission_refusals_total", "pipeline", "reason"), "{{pipeline}} {{reason}}"),),
            unit="reqps",
        ),
        Panel(
            title="Replicas lost under requests",
            says="By what became of the request: `rerun` and `resumed` are those whose callers noticed nothing.",
            queries=(Query(rate("omni_failovers_total", "stage", "outcome"), "{{stage}} {{outcome}}"),),
            unit="reqps",
        ),
        Panel(
            title="Aborts",
            says="Requests that were ended in the stages before they were done.",
            queries=(Query(rate("omni_aborts_total", "pipeline", "reason"), "{{pipeline}} {{reason}}"),),
            unit="reqps",
        ),
        Panel(
            title="How long an abort takes",
            says="Until the last stage has said that nothing of the request is left.",
            queries=quantiles("omni_abort_seconds"),
            unit="s",
        ),
        Panel(
            title="Aborts that a stage did not answer",
            says="By stage. More than a few mean that a stage hangs.",
            queries=(Query(rate("omni_abort_timeouts_total", "stage", scope=MESH), "{{stage}}"),),
            unit="reqps",
        ),
    ),
)

DOORS = Row(
    "Who is let in",
    (
        Panel(
            title="Requests without a valid key",
            says="By reason.",
            queries=(Query(rate("omni_auth_failures_total", "reason", scope=MESH), "{{reason}}"),),
            unit="reqps",
            width=6,
        ),
        Panel(
            title="Keys over their own limit",
            says="Requests refused with 429, by the limit that was reached.",
            queries=(Query(rate("omni_key_limit_refusals_total", "limit", scope=MESH), "{{limit}}"),),
            unit="reqps",
            width=6,
        ),
        Panel(
            title="Refused TLS handshakes",
            says="Between components: certificates that are foreign, have expired, or name another component. Of "
            "callers: connections that ended before TLS was agreed on.",
            queries=(
                Query(rate("omni_tls_refusals_total", "reason", scope=MESH), "components: {{reason}}"),
                Query(rate("omni_https_handshake_failures_total", "reason", scope=MESH), "callers: {{reason}}"),
            ),
            unit="reqps",
            width=6,
        ),
        Panel(
            title="Certificates expire in",
            says="The shortest time that is left of each.",
            queries=(
                Query(
                    "min by (certificate) "
                    f"({select('omni_certificate_expiry_timestamp_seconds', scope=MESH)} - time())",
                    "{{certificate}}",
                ),
            ),
            unit="s",
            width=6,
        ),
    ),
)

PROCESSES = Row(
    "Processes",
    (
        Panel(
            title="Versions",
            says="What runs, and how many of it.",
            queries=(Query(total("omni_build_info", "service", "version", scope=MESH), "{{service}} {{version}}"),),
            kind=Kind.TABLE,
        ),
        Panel(
            title="Processes that answer Prometheus",
            says="Those that do not are down, or cut off.",
            queries=(
                Query('sum (up{job="omni",namespace=~"$namespace"})', "up"),
                Query('count (up{job="omni",namespace=~"$namespace"} == 0) or vector(0)', "down"),
            ),
        ),
        Panel(
            title="Event loop lag, p95",
            says="How late a process runs what is due. A service that is late here is late everywhere.",
            queries=p95("omni_event_loop_lag_seconds", "instance", scope=MESH),
            unit="s",
        ),
    ),
)
