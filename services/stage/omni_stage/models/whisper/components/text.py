"""Tokens to text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer


class Vocabulary:
    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        end = self._tokenizer.token_to_id("<|endoftext|>")
        if end is None:
            raise ValueError(f"The tokenizer of {folder} has no token that ends a text.")
        self._end: int = end

    def text_of(self, tokens: Sequence[int]) -> tuple[str, int]:
        """Their text, and how many of them are text: those from the end token on are times and marks."""
        ids = [token for token in tokens if token < self._end]
        return self._tokenizer.decode(ids), len(ids)
