"""Where sentences and their clauses end. Abbreviations are spelled out before; what is left follows the marks alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Marks, and quotes or brackets that close with them, before a space or the end; so not those in 3.14 or 10:30.
_MARKS = re.compile(r"""\s*(?P<marks>[.!?,;:]+)["')]*(?=\s|$)|\n""")
_ENDING = ".!?"
_SYMBOLS = frozenset("&%@#+=<>$£€¥₹°©®™№℃℉")


@dataclass(frozen=True, slots=True)
class Clause:
    """`mark` is what ends it: a comma, semicolon or colon within a sentence; a full stop, question or exclamation mark
    at its end."""

    text: str
    mark: str


def split(text: str) -> Sequence[Sequence[Clause]]:
    """Sentences of clauses. Those without a letter, digit or symbol that has a name are left out."""
    sentences: list[list[Clause]] = [[]]
    for words, mark in _clauses(text):
        if is_speakable(words):
            sentences[-1].append(Clause(words, mark))
        elif mark in _ENDING and sentences[-1]:
            sentences[-1][-1] = Clause(sentences[-1][-1].text, mark)
        if mark in _ENDING and sentences[-1]:
            sentences.append([])
    return [sentence for sentence in sentences if sentence]


def is_speakable(text: str) -> bool:
    return any(char.isalnum() or char in _SYMBOLS for char in text)


def _clauses(text: str) -> Iterator[tuple[str, str]]:
    begin = 0
    for found in _MARKS.finditer(text):
        mark = _mark(found["marks"] or ".", text[found.end() :])
        if mark:
            yield text[begin : found.start()].strip(), mark
            begin = found.end()
    if rest := text[begin:].strip():
        yield rest, "."


def _mark(marks: str, after: str) -> str:
    """One mark for several; none where a full stop belongs to its word: the sentence goes on in small letters."""
    for strong in "?!":
        if strong in marks:
            return strong
    goes_on = after.lstrip()[:1].islower()
    if marks == "." and goes_on:
        return ""
    if goes_on and marks.startswith(".."):
        return ","
    return "." if "." in marks else marks[0]
