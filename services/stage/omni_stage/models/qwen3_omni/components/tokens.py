"""Token ids to text as they come: whole characters only."""

from __future__ import annotations

import codecs
from functools import cache
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer


class Vocabulary:
    """The bytes of each token of a byte-level BPE; control tokens have none."""

    def __init__(self, folder: Path) -> None:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        added: dict[int, Any] = tokenizer.added_tokens_decoder
        self._tokenizer = tokenizer
        self._control = frozenset(n for n, token in added.items() if token.special) | set(tokenizer.all_special_ids)
        self._added: dict[int, bytes] = {n: token.content.encode() for n, token in added.items()}

    def bytes_of(self, token: int) -> bytes:
        if token in self._control:
            return b""
        if token in self._added:
            return self._added[token]
        piece: str | None = self._tokenizer.convert_ids_to_tokens(token)
        # Rows of the embedding above the vocabulary are padding, and a model may choose one: it says nothing.
        return b"" if piece is None else bytes(_letters()[letter] for letter in piece)


class Detokenizer:
    """One text. A character whose bytes are not all there yet is held back."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        return self._utf8.decode(self._vocabulary.bytes_of(token))

    def finish(self) -> str:
        """The replacement character if the text ends amid one, else nothing."""
        return self._utf8.decode(b"", final=True)


@cache
def _letters() -> dict[str, int]:
    """Byte-level BPE writes each byte as a printable letter: itself where it is one, else one from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
