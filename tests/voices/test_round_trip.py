"""What is said is what is heard: fifty sentences through the running mesh, by a real voice and a real recogniser."""

from __future__ import annotations

import re

import anyio
import pytest
from tests.running import Running
from tests.voices.audio import Speech
from tests.voices.sentences import SENTENCES
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from omni_cli.word_errors import WordErrors, word_errors

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

# Whisper's own scoring: "five dollars" and "$5" are the same words.
whisper_normal = EnglishTextNormalizer({})
# Abbreviations that it does not know, as they are read out.
READ_OUT = {
    "kg": "kilograms",
    "cm": "centimeters",
    "e.g.": "for example",
    "St.": "Street",
    "U.S.A.": "USA",
    "U.K.": "UK",
}


def normal(text: str) -> str:
    for short, long in READ_OUT.items():
        text = re.sub(rf"(?<!\w){re.escape(short)}(?!\w)", long, text)
    return str(whisper_normal(text))


async def heard(running: Running, sentence: str) -> str:
    speech = await Speech.of(running.client, sentence, "wav")
    reply = await running.client.audio.transcriptions.create(model="whisper", file=("said.wav", speech.data))
    return reply.text


@pytest.mark.timeout(240)
async def test_of_fifty_sentences_at_most_every_twentieth_word_is_misheard(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    found: dict[str, tuple[str, WordErrors]] = {}
    places = anyio.CapacityLimiter(4)

    async def listen(sentence: str) -> None:
        async with places:
            text = await heard(running, sentence)
        found[sentence] = text, word_errors(normal(sentence), normal(text))

    async with anyio.create_task_group() as tasks:
        for sentence in SENTENCES:
            tasks.start_soon(listen, sentence)

    errors = sum(score.errors for _, score in found.values())
    words = sum(score.words for _, score in found.values())
    with capsys.disabled():
        print(f"\nword error rate over {len(found)} sentences: {errors} of {words} words, {errors / words:.1%}")
        for sentence, (text, score) in found.items():
            if score.errors:
                print(f"  said:  {sentence}\n  heard: {text}")
    assert len(found) == len(SENTENCES)
    assert errors / words <= 0.05
