"""values.yaml read with its comments: what each value is for, and what its schema adds to its default.

A comment that begins with `--` describes the value below it and goes on to the next line; `@schema` in it is JSON
that is added to what the default says about the value's type. A map without a description is a block of values; every
other value has one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import yaml

_Schema = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Value:
    """A value, or, with `children`, a block of them."""

    name: str
    default: object
    description: str = ""
    schema: _Schema = field(default_factory=dict)
    children: Mapping[str, Value] = field(default_factory=dict)


def read_values(text: str) -> Mapping[str, Value]:
    """The values by name. Raises ValueError for one that nothing describes."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise ValueError("The values are no map.")  # noqa: TRY004  # of the file, not of an argument
    return _block(root, text.splitlines(), ())


def leaves(values: Mapping[str, Value], path: str = "") -> Iterator[tuple[str, Value]]:
    """Every described value with its path, in the file's order."""
    for name, value in values.items():
        if value.children:
            yield from leaves(value.children, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _block(node: yaml.MappingNode, lines: Sequence[str], path: Sequence[str]) -> Mapping[str, Value]:
    return {key.value: _value(key, value, lines, (*path, key.value)) for key, value in node.value}


def _value(key: yaml.Node, node: yaml.Node, lines: Sequence[str], path: Sequence[str]) -> Value:
    description, schema = _comment(lines, key.start_mark.line)
    if not description and isinstance(node, yaml.MappingNode) and node.value:
        return Value(path[-1], None, children=_block(node, lines, path))
    if not description:
        raise ValueError(f"Nothing describes the value {'.'.join(path)}: write `# -- …` above it.")
    return Value(path[-1], yaml.safe_load(yaml.serialize(node)), description, schema)


def _comment(lines: Sequence[str], key: int) -> tuple[str, _Schema]:
    start = key
    while start and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    comment = [line.lstrip().removeprefix("#").strip() for line in lines[start:key]]
    begins = [number for number, line in enumerate(comment) if line.startswith("--")]
    if not begins:
        return "", {}
    own = comment[begins[-1] :]
    schema = [line.removeprefix("@schema") for line in own if line.startswith("@schema")]
    words = [line for line in own if not line.startswith("@schema")]
    return " ".join(words).removeprefix("--").strip(), json.loads(schema[0]) if schema else {}
