"""The autoregressive engine: caches, prompts, steps, tokens."""

from __future__ import annotations

from omni_cli.dashboards.panels import Board, Panel, Query, Row, quantiles
from omni_cli.dashboards.promql import WINDOW, most, rate, select, total

_STAGE = ("pipeline", "stage")
_NAME = "{{pipeline}} {{stage}}"
_PROMPT, _HIT = "omni_stage_prompt_tokens_total", 'kind="prefix_hit"'


def _of_engines(expression: str) -> str:
    """Only the stages that hold caches, by a label that every series of a process has."""
    return f"{expression} and on (instance, stage) {select('omni_kv_cache_usage_ratio')}"


def _engine_rate(metric: str) -> str:
    return f"sum by (pipeline, stage) ({_of_engines(f'rate({select(metric)}{WINDOW})')})"


def _engine_quantile(share: float, metric: str) -> str:
    buckets = _of_engines(f"rate({select(f'{metric}_bucket')}{WINDOW})")
    return f"histogram_quantile({share}, sum by (pipeline, stage, le) ({buckets}))"


CACHE = Row(
    "Keys and values",
    (
        Panel(
            title="Caches in use",
            says="Sequences that hold keys and values, over the most that may. At 1 prompts wait.",
            queries=(Query(most("omni_kv_cache_usage_ratio", *_STAGE), _NAME),),
            unit="percentunit",
            most=1,
        ),
        Panel(
            title="Tokens held",
            says="Whose keys and values are in memory.",
            queries=(Query(total("omni_kv_cache_tokens", *_STAGE), _NAME),),
        ),
        Panel(
            title="Memory",
            says="That keys and values take, with the room that they have to grow.",
            queries=(Query(total("omni_kv_cache_bytes", *_STAGE), _NAME),),
            unit="bytes",
        ),
        Panel(
            title="Kept prompts",
            says="Memory of the beginnings of prompts that are kept for requests to come, up to what the stage's "
            "PREFIX_CACHE allows.",
            queries=(Query(total("omni_prefix_cache_bytes", *_STAGE), _NAME),),
            unit="bytes",
        ),
    ),
)

TOKENS = Row(
    "Tokens",
    (
        Panel(
            title="Prompts",
            says="Tokens of prompts that were computed, and such as were there from an earlier request.",
            queries=(Query(rate("omni_stage_prompt_tokens_total", *_STAGE, "kind"), f"{_NAME} {{{{kind}}}}"),),
            unit="cps",
        ),
        Panel(
            title="Prefix hits",
            says="Tokens of prompts that did not have to be computed, over all of them.",
            queries=(
                Query(
                    f"{rate(_PROMPT, *_STAGE, where=_HIT)} / clamp_min({rate(_PROMPT, *_STAGE)}, 1e-9)",
                    _NAME,
                ),
            ),
            unit="percentunit",
            most=1,
        ),
        Panel(
            title="Generated",
            says="Tokens, or frames of speech, that the engines make: each step makes one for each of its batch.",
            queries=(Query(_engine_rate("omni_stage_batch_size_sum"), _NAME),),
            unit="cps",
        ),
        Panel(
            title="Between tokens",
            says="From one piece of text to the next, as callers see it.",
            queries=quantiles("omni_inter_token_seconds"),
            unit="s",
        ),
        Panel(
            title="First output",
            says="From the request to its first piece of text or speech.",
            queries=quantiles("omni_time_to_first_output_seconds"),
            unit="s",
        ),
        Panel(
            title="Answers",
            says="Tokens of answers that callers got, by modality.",
            queries=(
                Query(
                    rate("omni_tokens_total", "pipeline", "modality", where='kind="completion"'),
                    "{{pipeline}} {{modality}}",
                ),
            ),
            unit="cps",
        ),
    ),
)

STEPS = Row(
    "Steps",
    (
        Panel(
            title="Time of a step",
            says="Prompts and tokens of one batch together.",
            queries=tuple(
                Query(_engine_quantile(share, "omni_stage_step_seconds"), f"{name} {_NAME}")
                for share, name in ((0.5, "p50"), (0.95, "p95"))
            ),
            unit="s",
        ),
        Panel(
            title="Steps",
            says="A second.",
            queries=(Query(_engine_rate("omni_stage_step_seconds_count"), _NAME),),
            unit="ops",
        ),
        Panel(
            title="Sequences in a step",
            says="Mean size of the batches.",
            queries=(
                Query(
                    f"{_engine_rate('omni_stage_batch_size_sum')} / {_engine_rate('omni_stage_batch_size_count')}",
                    _NAME,
                ),
            ),
        ),
        Panel(
            title="Resident sequences",
            says="Whose prompt has run and whose cache is held.",
            queries=(Query(f"sum by (pipeline, stage) ({_of_engines(select('omni_stage_running'))})", _NAME),),
        ),
        Panel(
            title="Waiting sequences",
            says="Whose prompt has not run.",
            queries=(Query(f"sum by (pipeline, stage) ({_of_engines(select('omni_stage_waiting'))})", _NAME),),
        ),
        Panel(
            title="Stood still",
            says="Times that a sequence was paused because its reader was slower. It keeps its cache and lends its "
            "place in the batch; nothing is ever computed twice.",
            queries=(Query(_engine_rate("omni_pauses_total"), _NAME),),
            unit="ops",
        ),
    ),
)

ENGINE = Board(
    "omni-engine",
    "omni / Autoregressive engine",
    "Stages that make one token after the other: caches, prompts, steps, tokens.",
    (CACHE, TOKENS, STEPS),
)
