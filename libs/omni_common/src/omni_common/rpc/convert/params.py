"""What a caller may set. Ranges are checked here, for gRPC callers and again for every hop: it costs microseconds."""

from __future__ import annotations

import math

from omni.common.v1 import request_pb2
from omni_common.errors import InvalidRequest
from omni_common.request import GenerationParams, Modality, Sampling, Task

_MODALITIES = {
    Modality.TEXT: request_pb2.MODALITY_TEXT,
    Modality.IMAGE: request_pb2.MODALITY_IMAGE,
    Modality.AUDIO: request_pb2.MODALITY_AUDIO,
    Modality.VIDEO: request_pb2.MODALITY_VIDEO,
}
_MODALITY_OF = {number: modality for modality, number in _MODALITIES.items()}
_OUTPUTS = frozenset({Modality.TEXT, Modality.AUDIO})

_TASKS = {
    Task.CHAT: request_pb2.TASK_CHAT,
    Task.SPEECH: request_pb2.TASK_SPEECH,
    Task.TRANSCRIPTION: request_pb2.TASK_TRANSCRIPTION,
    Task.TRANSLATION: request_pb2.TASK_TRANSLATION,
}
_TASK_OF = {number: task for task, number in _TASKS.items()} | {request_pb2.TASK_UNSPECIFIED: Task.CHAT}

MAX_STOPS = 4
_STOP_LENGTH = 256  # characters; a stop string is compared at every token


def render_modality(modality: Modality) -> request_pb2.Modality.ValueType:
    return _MODALITIES[modality]


def parse_modality(number: request_pb2.Modality.ValueType, *, param: str = "params.modalities") -> Modality:
    try:
        return _MODALITY_OF[number]
    except KeyError:
        raise InvalidRequest(f"Modality {number} is not one that this server knows.", param=param) from None


def render_task(task: Task) -> request_pb2.Task.ValueType:
    return _TASKS[task]


def parse_task(number: request_pb2.Task.ValueType) -> Task:
    try:
        return _TASK_OF[number]
    except KeyError:
        raise InvalidRequest(f"Task {number} is not one that this server knows.", param="params.task") from None


def render_params(params: GenerationParams) -> request_pb2.GenerationParams:
    return request_pb2.GenerationParams(
        modalities=sorted(map(render_modality, params.modalities)),
        sampling=render_sampling(params.sampling),
        stage_sampling={stage: render_sampling(sampling) for stage, sampling in params.stage_sampling.items()},
        stop=params.stop,
        voice=params.voice,
        task=render_task(params.task),
        language=params.language,
        word_times=params.word_times,
        fallback_seed=params.fallback_seed,
    )


def parse_params(message: request_pb2.GenerationParams) -> GenerationParams:
    modalities = frozenset(map(parse_modality, message.modalities)) or frozenset({Modality.TEXT})
    if not modalities <= _OUTPUTS:
        raise InvalidRequest("Only text and audio can be produced.", param="params.modalities")
    if len(message.stop) > MAX_STOPS:
        raise InvalidRequest(f"There may be at most {MAX_STOPS} stop strings.", param="params.stop")
    if not all(0 < len(stop) <= _STOP_LENGTH for stop in message.stop):
        raise InvalidRequest(f"A stop string has 1 to {_STOP_LENGTH} characters.", param="params.stop")
    return GenerationParams(
        modalities=modalities,
        sampling=parse_sampling(message.sampling),
        stage_sampling={
            stage: parse_sampling(sampling, param=f"params.stage_sampling.{stage}")
            for stage, sampling in message.stage_sampling.items()
        },
        stop=tuple(message.stop),
        voice=message.voice,
        task=parse_task(message.task),
        language=message.language,
        word_times=message.word_times,
        fallback_seed=message.fallback_seed,
    )


def render_sampling(sampling: Sampling) -> request_pb2.Sampling:
    return request_pb2.Sampling(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        repetition_penalty=sampling.repetition_penalty,
        seed=sampling.seed,
        max_tokens=sampling.max_tokens,
    )


def parse_sampling(message: request_pb2.Sampling, *, param: str = "params.sampling") -> Sampling:
    sampling = Sampling(
        temperature=message.temperature if message.HasField("temperature") else None,
        top_p=message.top_p if message.HasField("top_p") else None,
        top_k=message.top_k if message.HasField("top_k") else None,
        repetition_penalty=message.repetition_penalty if message.HasField("repetition_penalty") else None,
        seed=message.seed if message.HasField("seed") else None,
        max_tokens=message.max_tokens if message.HasField("max_tokens") else None,
    )
    _within(sampling.temperature, 0.0, 2.0, f"{param}.temperature")
    _within(sampling.top_p, 0.0, 1.0, f"{param}.top_p")
    _within(sampling.repetition_penalty, 0.01, 100.0, f"{param}.repetition_penalty")
    _within(sampling.max_tokens, 1, math.inf, f"{param}.max_tokens")
    return sampling


def _within(value: float | None, least: float, most: float, param: str) -> None:
    if value is None or least <= value <= most:  # false for NaN
        return
    name = param.rpartition(".")[2]
    bound = f"at least {least:g}" if math.isinf(most) else f"between {least:g} and {most:g}"
    raise InvalidRequest(f"'{name}' must be {bound}.", param=param)
