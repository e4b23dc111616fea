"""What of the chart is generated is what the models, the settings and the comments say now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from tests.chart.helm import CHART

from omni_cli.chart.comments import leaves, read_values
from omni_cli.chart.files import generated, stale
from omni_cli.chart.settings import OWNED, SERVICES
from omni_stage.models import FAMILIES, load_pipeline_config


def test_make_generate_would_change_nothing() -> None:
    differing = [path for path, text in generated(CHART).items() if path.read_text("utf-8") != text]
    assert differing == [], "run make generate"


def test_no_file_is_left_of_a_family_that_is_gone() -> None:
    assert stale(CHART) == []


def test_values_name_every_stage_of_every_family() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))["pipelines"]
    assert {family: set(values[family]["stages"]) for family in values} == {
        family: {stage.name for stage in load_pipeline_config(family).stages} for family in FAMILIES
    }


def test_every_value_is_described_once() -> None:
    described = list(leaves(read_values((CHART / "values.yaml").read_text("utf-8"))))
    assert len({path for path, _ in described}) == len(described)
    assert all(value.description for _, value in described)


def test_a_value_without_a_comment_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Nothing describes the value a\.b"):
        read_values("a:\n  # not a description\n  b: 1\n")


def test_what_the_chart_sets_is_a_setting() -> None:
    for service, owned in OWNED.items():
        assert owned <= set(SERVICES[service].model_fields), service


def test_the_schema_closes_every_block_of_ours() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    assert list(_open(schema, "")) == []


def test_a_changed_description_is_seen(tmp_path: Path) -> None:
    text = (CHART / "values.yaml").read_text("utf-8")
    (tmp_path / "values.yaml").write_text(text.replace("maxRunning: 4,", "maxRunning: 5,"))
    (tmp_path / "README.md").write_text((CHART / "README.md").read_text("utf-8"))
    assert generated(tmp_path)[tmp_path / "values.yaml"] == text


def _open(schema: object, path: str) -> list[str]:
    """Blocks with properties that take others as well."""
    if isinstance(schema, list):
        return [one for n, item in enumerate(schema) for one in _open(item, f"{path}/{n}")]
    if not isinstance(schema, dict):
        return []
    inner = [one for key, value in schema.items() for one in _open(value, f"{path}/{key}")]
    takes_all = isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema
    return [path, *inner] if takes_all and schema.get("type") == "object" else inner
