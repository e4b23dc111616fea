"""Text as people type it, made plain, whatever the language: what nobody says is gone, and signs have one form."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

# Marks of other scripts, as those that the voices know; a space says that the sentence or clause ends here.
_MARKS: Mapping[str, str] = {
    **dict.fromkeys("。．｡।॥։", ". "),
    **dict.fromkeys("！", "! "),
    **dict.fromkeys("？؟\u037e", "? "),
    **dict.fromkeys("，、､،", ", "),
    **dict.fromkeys("；؛", "; "),
    **dict.fromkeys("：", ": "),
    "…": "...",
    "‼": "!!",
    "⁇": "??",
    "⁈": "?!",
    "⁉": "!?",
}
_FORMS: Mapping[str, str] = {
    **dict.fromkeys("‘’‚‛′`´", "'"),
    **dict.fromkeys("“”„‟″«»‹›「」『』《》", '"'),
    **dict.fromkeys("‐‑‒−﹣－", "-"),
    **dict.fromkeys("–—―", "–"),
    **dict.fromkeys("[{【〔", "("),
    **dict.fromkeys("]}】〕", ")"),
    **dict.fromkeys("¿¡\u00ad", ""),
    **dict.fromkeys("\u2028\u2029\x0b\x0c\x85", "\n"),
    **dict.fromkeys("_|~^", " "),  # of markup; they are no words
}
_TABLE = str.maketrans({**_MARKS, **_FORMS})
_SAID_SYMBOLS = frozenset("°©®™№℃℉")
# Other symbols, among them emoji and what colours them; controls; what has no meaning.
_MUTE = frozenset(("So", "Sk", "Cc", "Cf", "Cs", "Co", "Cn"))
_LINE_SIGN = re.compile(r"^[ ]*(#+|[-•·*])[ ]+", re.MULTILINE)
_EMPHASIS = re.compile(r"(?<!\d)(?<!\d )\*+|\*+(?! ?\d)")  # the asterisk of 2 * 3 is said
_BREAK_IN_SENTENCE = re.compile(r"[ ]*\n[ ]*(?=[a-zà-öø-ÿ])")
_DASH = re.compile(r"(?<!\d)[ ]+-[ ]+|[ ]+-[ ]+(?!\d)|[ ]*--+[ ]*|(?<!\d)[ ]*–[ ]*|[ ]*–[ ]*(?!\d)")
_SPACES = re.compile(r"[^\S\n]+")


def tidy(text: str) -> str:
    """In NFC, with plain quotes, dashes and marks; without emoji, controls and list signs; newlines end sentences."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).translate(_TABLE)
    text = "".join(char if _is_said(char) else " " if char == "\t" else "" for char in text)
    text = _BREAK_IN_SENTENCE.sub(" ", _SPACES.sub(" ", text))
    return _DASH.sub(", ", _EMPHASIS.sub("", _LINE_SIGN.sub("", text))).strip()


def _is_said(char: str) -> bool:
    return char == "\n" or char in _SAID_SYMBOLS or unicodedata.category(char) not in _MUTE
