"""What is generated in charts/omni: whole files, and parts of files between two marks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from omni_cli.chart.comments import read_values
from omni_cli.chart.pipelines import families_file, pipeline_files, values_section
from omni_cli.chart.readme import settings_table, values_table
from omni_cli.chart.schema import schema_file


def generated(chart: Path) -> Mapping[Path, str]:
    """Every generated file of the chart and its text. Raises ValueError, LookupError with a sentence."""
    values = _between((chart / "values.yaml").read_text("utf-8"), "pipelines", values_section(), comment="  # {}")
    read = read_values(values)
    readme = (chart / "README.md").read_text("utf-8")
    for name, table in (("values", values_table(read)), ("settings", settings_table())):
        readme = _between(readme, name, f"\n{table}\n", comment="<!-- {} -->")
    return {
        **{chart / "files" / "pipelines" / f"{family}.json": text for family, text in pipeline_files().items()},
        chart / "files" / "families.json": families_file(),
        chart / "values.yaml": values,
        chart / "values.schema.json": schema_file(read),
        chart / "README.md": readme,
    }


def stale(chart: Path) -> list[Path]:
    """Files of families that are no more."""
    known = generated(chart)
    return [path for path in sorted((chart / "files").rglob("*.json")) if path not in known]


def write(chart: Path) -> list[Path]:
    """Writes what differs, removes what is no more, and says which."""
    gone = stale(chart)
    for path in gone:
        path.unlink()
    changed = [path for path, text in generated(chart).items() if not path.is_file() or path.read_text("utf-8") != text]
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(generated(chart)[path], "utf-8")
    return gone + changed


def _between(text: str, name: str, part: str, *, comment: str) -> str:
    begin, end = (f"{comment.format(f'{word} generated {name}')}\n" for word in ("begin", "end"))
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"The marks '{begin.strip()}' and '{end.strip()}' have to stand there once.")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return before + begin + part + end + after
