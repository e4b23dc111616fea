"""The work of preprocess: from a request's text to sentences of phoneme ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from omni_common.errors import InvalidRequest
from omni_common.request import GenerationRequest
from omni_common.tensor import DType, Tensor
from omni_stage.models.piper.components import english
from omni_stage.models.piper.components.espeak import Espeak
from omni_stage.models.piper.components.phonemes import Alphabet, pieces
from omni_stage.models.piper.components.sentences import Clause, split
from omni_stage.models.piper.components.text import tidy
from omni_stage.models.piper.components.voice import Voice
from omni_stage.models.piper.payload_types import Sentence, expect
from omni_stage.models.piper.request_builders import text_of
from omni_stage.scheduler.contract import NewRequest

_WARM_UP = "Hello."


class Preprocessor:
    """Raises ValueError when the program that knows how words sound is missing, and for a voice unlike any."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self._alphabet = Alphabet(voice)
        self._espeak = Espeak(voice.told.espeak.voice)

    def sentences(self, request: NewRequest) -> Iterator[Sentence]:
        """Raises InvalidRequest for a text with nothing to say, or an unknown voice."""
        asked = expect(request.payload, GenerationRequest)
        speaker = self._speaker(asked.params.voice)
        sentences = self.split(text_of(asked))
        is_mute = True
        for number, spoken in enumerate(self.phonemes(sentences), start=1):
            for part, piece in enumerate(spoken, start=1):
                ids = self._alphabet.ids(piece)
                pause = part == len(spoken) and number < len(sentences)
                yield Sentence(Tensor(DType.INT16, ids.shape, memoryview(ids.tobytes())), speaker, pause)
                is_mute = False
        if is_mute:
            why = "There is nothing to say in the input: it has no letters and no digits."
            raise InvalidRequest(why, param="input")

    def split(self, text: str) -> Sequence[Sequence[Clause]]:
        """The sentences, as they are read aloud."""
        text = tidy(text)
        if self._voice.language == "en":
            text = english.spell_out(text, month_first=self._voice.told.espeak.voice == "en-us")
        return split(text)

    def phonemes(self, sentences: Sequence[Sequence[Clause]]) -> Iterator[Sequence[str]]:
        """For each sentence its pieces, as phonemes that the voice knows.

        The first has a run of the program for itself: all 4096 characters take 0.3 s, and they can be prepared while
        it is synthesised.
        """
        for some in filter(None, (sentences[:1], sentences[1:])):
            spoken = iter(self._espeak.phonemes([clause.text for sentence in some for clause in sentence]))
            for sentence in some:
                yield list(pieces(self._known(sentence, spoken)))

    def warm_up(self) -> None:
        list(self.phonemes(self.split(_WARM_UP)))

    def _known(self, sentence: Sequence[Clause], spoken: Iterator[str]) -> Sequence[str]:
        """The clauses with their marks, which the voice takes for pauses and intonation; mute ones are left out."""
        heard = [(self._alphabet.known(next(spoken)), self._alphabet.known(clause.mark)) for clause in sentence]
        return [phonemes + mark for phonemes, mark in heard if phonemes.strip()]

    def _speaker(self, name: str) -> int:
        if name and name not in self._voice.names:
            there = ", ".join(self._voice.names)
            raise InvalidRequest(f"There is no voice '{name[:80]}'; there is {there}.", param="voice")
        return self._voice.speaker(name)
