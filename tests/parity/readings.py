"""The texts that the mesh and the reference must read aloud alike."""

from __future__ import annotations

from tests.parity.cases import FRAMES, Draw

from omni_common.request import GenerationParams, GenerationRequest, Message, Modality, Role, Sampling, Task, Text

GREEDY = Draw(None)
SENTENCE = "The licence applies to the program."
TEXTS = {
    "one token": "a",
    "a sentence": SENTENCE,
    "more tokens than frames": "Each of the 3 copies costs £5, and é is a letter, too.\n" * 4,
}


def turn(text: str, instructions: str = "") -> str:
    """What the model is asked to do."""
    asked = "Read this text aloud, word for word:\n\n"
    return f"{instructions}\n\n{asked}{text.strip()}" if instructions else f"{asked}{text.strip()}"


def request(
    text: str, draw: Draw = GREEDY, *, instructions: str = "", voice: str = "", talker: Sampling | None = None
) -> GenerationRequest:
    temperature = 0.0 if draw.seed is None else None
    system = (Message(Role.SYSTEM, (Text(instructions),)),) if instructions else ()
    params = GenerationParams(
        modalities=frozenset({Modality.AUDIO}),
        sampling=Sampling(seed=draw.seed, max_tokens=1),  # of text that is written, and none is
        stage_sampling={"talker": talker or Sampling(temperature=temperature, max_tokens=FRAMES)},
        voice=voice,
        task=Task.SPEECH,
    )
    return GenerationRequest("qwen3-omni", (*system, Message(Role.USER, (Text(text, "input"),))), params)
