"""A process's page of metrics, as its client library really writes it."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest

from omni_cli.top.exposition import parse_page
from omni_common.telemetry import names


def test_a_page_is_read_by_the_names_that_it_was_written_with() -> None:
    names.EDGE_BYTES.labels("here>there", "arena").inc(300)
    names.EDGE_BYTES.labels("here>there", "tcp").inc(40)
    names.EDGE_SECONDS.labels("here>there", "tcp").observe(0.25)
    names.EDGE_SECONDS.labels("here>there", "tcp").observe(0.5)
    names.EDGE_TRANSPORT.labels("here>there", "tcp", "other_pod").set(1)
    page = parse_page(generate_latest().decode())
    assert page.total(names.EDGE_BYTES, edge="here>there") == 340
    assert page.total(names.EDGE_BYTES, edge="here>there", transport="tcp") == 40
    assert page.total(names.EDGE_SECONDS, "count", edge="here>there") == 2
    assert page.total(names.EDGE_SECONDS, "sum", edge="here>there") == 0.75
    why = [labels["reason"] for labels, _ in page.of(names.EDGE_TRANSPORT) if labels["edge"] == "here>there"]
    assert why == ["other_pod"]


def test_what_nobody_counted_is_nothing() -> None:
    page = parse_page("")
    assert list(page.of(names.EDGE_BYTES)) == []
    assert page.total(names.EDGE_BYTES, edge="a>b") == 0


def test_a_page_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid metric name"):
        parse_page("<html><body>It works!</body></html>\n")
