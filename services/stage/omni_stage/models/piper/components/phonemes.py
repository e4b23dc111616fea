"""From IPA to the phoneme ids of a voice, as the voice was trained with them."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from omni_stage.models.piper.components.voice import Voice

logger = logging.getLogger(__name__)

_PAD, _BEGIN, _END = "_", "^", "$"
_CONTROL = frozenset((_PAD, _BEGIN, _END))
# espeak-ng marks a word that it reads as another language's, "(fr)café(en-us)": the marks are not phonemes.
_LANGUAGE_MARK = re.compile(r"\([^)]*\)")
# Of one piece. An id lasts about two frames of 11.6 ms, so that 400 ids are nine seconds of speech; on one CPU thread
# they take 0.75 s and, for a moment, 0.3 GB.
MAX_IDS = 400
MAX_PHONEMES = (MAX_IDS - 3) // 2


class Alphabet:
    """The symbols that a voice knows. Raises ValueError with a sentence when it lacks those that frame a sentence."""

    def __init__(self, voice: Voice) -> None:
        self._ids = voice.told.phoneme_id_map
        self._stand_ins = voice.told.phoneme_map
        if missing := sorted(_CONTROL - self._ids.keys()):
            raise ValueError(f"The voice {voice.model.name} has no ids for the symbols {' '.join(missing)}.")

    def ids(self, phonemes: str) -> npt.NDArray[np.int16]:
        """Beginning, pad, each phoneme and a pad, end. What the voice does not know is left out."""
        pad = self._ids[_PAD]
        ids = [*self._ids[_BEGIN], *pad]
        for symbol in phonemes:
            ids += [*self._ids[symbol], *pad]
        return np.array([*ids, *self._ids[_END]], np.int16)

    def known(self, ipa: str) -> str:
        """The symbols of the voice in it: decomposed, since a voice knows a letter and its accent one by one."""
        symbols = unicodedata.normalize("NFD", _LANGUAGE_MARK.sub("", ipa))
        symbols = "".join("".join(self._stand_ins.get(symbol, symbol)) for symbol in symbols)
        known = "".join(symbol for symbol in symbols if symbol in self._ids and symbol not in _CONTROL)
        if len(known) < len(symbols):
            logger.debug("symbols unknown to the voice were left out", extra={"count": len(symbols) - len(known)})
        return known


def pieces(clauses: Sequence[str]) -> Iterator[str]:
    """The clauses of a sentence, joined to as few pieces of at most MAX_PHONEMES as there can be in their order."""
    piece = ""
    for part in (part for clause in clauses for part in _bounded(clause)):
        longer = f"{piece} {part}" if piece else part
        if len(longer) > MAX_PHONEMES:
            yield piece
            piece = part
        else:
            piece = longer
    if piece:
        yield piece


def _bounded(clause: str) -> Iterator[str]:
    """A clause that is too long, in equal parts that end between words; a word that is too long, anywhere."""
    wanted = -(-len(clause) // -(-len(clause) // MAX_PHONEMES)) if clause else 1
    while len(clause) > MAX_PHONEMES:
        space = clause.find(" ", wanted, MAX_PHONEMES + 1)
        if space < 0:
            space = clause.rfind(" ", 1, MAX_PHONEMES + 1)
        at = space if space > 0 else MAX_PHONEMES
        yield clause[:at]
        clause = clause[at:].lstrip()
    yield clause
