"""From an OpenAI body to a request of the mesh. Pure."""

from __future__ import annotations

from omni_common.request import GenerationParams, GenerationRequest, Message, Modality, Role, Sampling, Task, Text
from omni_gateway.pipelines import PipelineView
from omni_gateway.sampling import seed_of, stage_sampling_of
from omni_gateway.schemas import voice_name
from omni_gateway.speech.schemas import SpeechRequest


def build_request(speech: SpeechRequest, pipeline: PipelineView) -> GenerationRequest:
    """The body's meaning for one pipeline, which can speak: its voice and stages checked."""
    messages = [Message(Role.USER, (Text(speech.input, "input"),))]
    if speech.instructions.strip():
        messages.insert(0, Message(Role.SYSTEM, (Text(speech.instructions, "instructions"),)))
    params = GenerationParams(
        task=Task.SPEECH,
        modalities=frozenset({Modality.AUDIO}),
        sampling=Sampling(seed=seed_of(speech.seed)),
        stage_sampling=stage_sampling_of(speech.stage_sampling, pipeline),
        voice=pipeline.voice_called(voice_name(speech.voice), "voice"),
    )
    return GenerationRequest(pipeline.name, tuple(messages), params)
