"""How much of what was said was heard."""

from __future__ import annotations

import re
from dataclasses import dataclass

import jiwer

_WORD = re.compile(r"\w+(?:'\w+)*")


@dataclass(frozen=True, slots=True)
class WordErrors:
    """`errors` counts the words to change, to add and to remove, of the `words` that were said."""

    errors: int
    words: int

    @property
    def rate(self) -> float:
        return self.errors / self.words


def word_errors(said: str, heard: str) -> WordErrors:
    """Case and punctuation do not count. Raises ValueError when nothing was said."""
    reference = _plain(said)
    if not reference:
        raise ValueError("nothing was said, so that nothing can be misheard")
    measured = jiwer.process_words(reference, _plain(heard))
    errors = measured.substitutions + measured.deletions + measured.insertions
    return WordErrors(errors, measured.hits + measured.substitutions + measured.deletions)


def _plain(text: str) -> str:
    return " ".join(_WORD.findall(text.lower().replace("’", "'")))
