"""What callers get: objectives, traffic, errors, the wait for a first word, speech that keeps up."""

from __future__ import annotations

from omni_cli.dashboards.boards.troubles import DOORS, ERRORS, PROCESSES
from omni_cli.dashboards.panels import Board, Kind, Panel, Query, Row, p95, quantiles
from omni_cli.dashboards.promql import MESH, quantile, rate, select, total

NOW = Row(
    "Now",
    (
        Panel(
            title="Requests a second",
            says="Requests that ended, of all outcomes.",
            queries=(Query(rate("omni_requests_total")),),
            unit="reqps",
            kind=Kind.NUMBER,
            width=4,
        ),
        Panel(
            title="Under way",
            says="Requests that are admitted and have not ended.",
            queries=(Query(total("omni_live_requests")),),
            kind=Kind.NUMBER,
            width=4,
        ),
        Panel(
            title="Answers without a fault of ours",
            says="One minus the share of HTTP answers with 5xx and of streams that broke, over the last five minutes.",
            queries=(Query(f"1 - max ({select('omni:errors:ratio_rate5m', scope=MESH)})"),),
            unit="percentunit",
            kind=Kind.NUMBER,
            width=4,
            most=1,
            alarm=0.999,
            less_is_worse=True,
        ),
        Panel(
            title="First audio, p95",
            says="From a request to its first piece of speech.",
            queries=(Query(quantile(0.95, "omni_time_to_first_audio_seconds")),),
            unit="s",
            kind=Kind.NUMBER,
            width=4,
            alarm=2.5,
        ),
        Panel(
            title="Real-time factor, p95",
            says="Time to make speech over its length. Above 1 the listener waits.",
            queries=(Query(quantile(0.95, "omni_audio_rtf")),),
            kind=Kind.NUMBER,
            width=4,
            alarm=1,
        ),
        Panel(
            title="Processes that do not serve",
            says="Processes that are up but take no work: they start, drain, or have lost what they need.",
            queries=(Query(f"count ({select('omni_serving', scope=MESH)} == 0) or vector(0)"),),
            kind=Kind.NUMBER,
            width=4,
            alarm=1,
        ),
    ),
)

OBJECTIVES = Row(
    "Objectives",
    (
        Panel(
            title="Burn rate of the error budget",
            says="1 uses up the budget of 0.1 % exactly. The pager rings at 14.4 for an hour or 6 for six hours.",
            queries=tuple(
                Query(f"max ({select(f'omni:errors:ratio_rate{window}', scope=MESH)}) / 0.001", window)
                for window in ("5m", "1h", "6h")
            ),
        ),
        Panel(
            title="Burn rate of the first-audio budget",
            says="Answers whose first speech took longer than 2.5 s, over the 5 % that may.",
            queries=tuple(
                Query(f"max ({select(f'omni:first_audio_slow:ratio_rate{window}')}) / 0.05", window)
                for window in ("5m", "1h", "6h")
            ),
        ),
        Panel(
            title="Burn rate of the first-output budget",
            says="Answers whose first word or sound took longer than 1 s, over the 5 % that may.",
            queries=tuple(
                Query(f"max ({select(f'omni:first_output_slow:ratio_rate{window}')}) / 0.05", window)
                for window in ("5m", "1h", "6h")
            ),
        ),
    ),
)

TRAFFIC = Row(
    "Traffic",
    (
        Panel(
            title="HTTP answers",
            says="By route and code. Code 0 is a caller that left before there was one.",
            queries=(Query(rate("omni_http_requests_total", "route", "code", scope=MESH), "{{route}} {{code}}"),),
            unit="reqps",
            stacked=True,
        ),
        Panel(
            title="HTTP requests by method",
            says="Methods that no route has are `other`.",
            queries=(Query(rate("omni_http_requests_total", "method", scope=MESH), "{{method}}"),),
            unit="reqps",
        ),
        Panel(
            title="HTTP requests under way",
            says="By route, over all gateways.",
            queries=(Query(total("omni_http_in_flight", "route", scope=MESH), "{{route}}"),),
        ),
        Panel(
            title="Requests by outcome",
            says="As the coordinators ended them.",
            queries=(Query(rate("omni_requests_total", "pipeline", "outcome"), "{{pipeline}} {{outcome}}"),),
            unit="reqps",
            stacked=True,
        ),
        Panel(
            title="Tokens",
            says="Of prompts and answers. Those of speech are frames of its codec.",
            queries=(Query(rate("omni_tokens_total", "kind", "modality"), "{{kind}} {{modality}}"),),
            unit="cps",
        ),
        Panel(
            title="Audio",
            says="Seconds of audio heard and spoken in a second: how many voices there are at a time.",
            queries=(Query(rate("omni_audio_seconds_total", "pipeline", "direction"), "{{pipeline}} {{direction}}"),),
            unit="s",
        ),
    ),
)

WAITING = Row(
    "How long callers wait",
    (
        Panel(
            title="First output",
            says="From the request to its first piece of text or speech.",
            queries=quantiles("omni_time_to_first_output_seconds"),
            unit="s",
        ),
        Panel(
            title="First audio",
            says="From the request to its first piece of speech.",
            queries=quantiles("omni_time_to_first_audio_seconds"),
            unit="s",
        ),
        Panel(
            title="Whole request, p95",
            says="From admission to the end, by pipeline.",
            queries=p95("omni_request_seconds", "pipeline"),
            unit="s",
        ),
        Panel(
            title="Real-time factor",
            says="Time to make speech over its length. Above 1 the listener waits.",
            queries=quantiles("omni_audio_rtf"),
        ),
        Panel(
            title="Underrun",
            says="For how long a listener who plays speech as it comes hears nothing, of each answer.",
            queries=quantiles("omni_audio_underrun_seconds"),
            unit="s",
        ),
        Panel(
            title="Between tokens",
            says="From one piece of text to the next of the same answer.",
            queries=quantiles("omni_inter_token_seconds"),
            unit="s",
        ),
    ),
)

OVERVIEW = Board(
    "omni-overview",
    "omni / Overview",
    "What callers get from the mesh: objectives, traffic, waiting, errors.",
    (NOW, OBJECTIVES, TRAFFIC, WAITING, ERRORS, DOORS, PROCESSES),
)
