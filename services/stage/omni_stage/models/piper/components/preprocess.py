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
    """Raises EspeakFailed when the program that knows how words sound is missing, ValueError for a voice unlike any."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self._alphabet = Alphabet(voice)
        self._espeak = Espeak(voice.told.espeak.voice)

    def sentences(self, request: NewRequest) -> Iterator[Sentence]:
        """Raises InvalidRequest for a text with nothing to say, or an unknown voice."""
        asked = expect(request.payload, GenerationRequest)
        speaker = self._speaker(asked.params.voice)
        said = [piece for piece in self.phonemes(text_of(asked)) if piece]
        if not said:
            raise InvalidRequest(
                "There is nothing to say in the input: it has no letters and no digits.", param="input"
            )
        for number, sentence in enumerate(said, start=1):
            for part, piece in enumerate(sentence, start=1):
                ids = self._alphabet.ids(piece)
                pause = part == len(sentence) and number < len(said)
                yield Sentence(Tensor(DType.INT16, ids.shape, memoryview(ids.tobytes())), speaker, pause)

    def phonemes(self, text: str) -> Sequence[Sequence[str]]:
        """For each sentence its pieces, as phonemes that the voice knows."""
        sentences = split(self._spelled_out(tidy(text)))
        spoken = iter(self._espeak.phonemes([clause.text for sentence in sentences for clause in sentence]))
        return [list(pieces(self._known(sentence, spoken))) for sentence in sentences]

    def warm_up(self) -> None:
        self.phonemes(_WARM_UP)

    def _known(self, sentence: Sequence[Clause], spoken: Iterator[str]) -> Sequence[str]:
        """The clauses with their marks, which the voice takes for pauses and intonation; mute ones are left out."""
        heard = [(self._alphabet.known(next(spoken)), self._alphabet.known(clause.mark)) for clause in sentence]
        return [phonemes + mark for phonemes, mark in heard if phonemes.strip()]

    def _spelled_out(self, text: str) -> str:
        name = self._voice.told.espeak.voice
        return english.spell_out(text, month_first=name == "en-us") if self._voice.language == "en" else text

    def _speaker(self, name: str) -> int:
        if name and name not in self._voice.names:
            there = ", ".join(self._voice.names)
            raise InvalidRequest(f"There is no voice '{name[:80]}'; there is {there}.", param="voice")
        return self._voice.speaker(name)
