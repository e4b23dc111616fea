"""Qwen3-Omni's stages: which scheduler and which code each has. torch is imported when a stage is built, not before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omni_common.errors import OmniError
from omni_common.request import GenerationRequest
from omni_stage.core.batching import BatchLimits
from omni_stage.models.qwen3_omni import routing
from omni_stage.models.qwen3_omni.config import PIPELINE
from omni_stage.models.qwen3_omni.payload_types import PAYLOADS, AudioInputs, ImageInputs, ThinkerInput, expect
from omni_stage.program import ModelFamily, StageContext, StageProgram
from omni_stage.scheduler.ar import ArScheduler
from omni_stage.scheduler.ar_contract import ModelRunner
from omni_stage.scheduler.contract import NewRequest
from omni_stage.scheduler.simple import BatchScheduler, SimpleScheduler
from omni_stage.scheduler.streaming import StreamScheduler
from omni_stage.tensor_parallel.rank import Following

# Prompts that run in one step beside the running sequences: more would make these wait longer for their next token.
_MAX_PREFILL = 4
# Pixels of one encoder batch: sixteen pictures of a megapixel. A larger request is a batch of its own.
_MAX_PIXELS = 3 * 16e6


def preprocess(context: StageContext) -> StageProgram:
    from omni_stage.models.qwen3_omni.components import weights
    from omni_stage.models.qwen3_omni.components.preprocess import Preprocessor

    preprocessor = Preprocessor(weights.open_folder(context))
    return StageProgram(
        scheduler=SimpleScheduler(
            lambda request: preprocessor.prepare(expect(request.payload, GenerationRequest)),
            stage=context.stage.name,
            max_waiting=context.stage.max_waiting,
        ),
        route=routing.after_preprocess,
        project={
            "aggregate": routing.prompt_of,
            "image_encoder": routing.images_of,
            "audio_encoder": routing.audios_of,
        },
    )


def image_encoder(context: StageContext) -> StageProgram:
    from omni_stage.models.qwen3_omni.components import image_encoder as component
    from omni_stage.models.qwen3_omni.components.warm_up import warm_image_encoder
    from omni_stage.models.qwen3_omni.components.weights import open_weights

    encoder = component.ImageEncoder(open_weights(context, component.PREFIX))

    def compute(requests: Sequence[NewRequest]) -> Sequence[object | OmniError]:
        return encoder.encode([expect(r.payload, ImageInputs) for r in requests])

    return StageProgram(
        scheduler=BatchScheduler(
            compute,
            stage=context.stage.name,
            max_waiting=context.stage.max_waiting,
            limits=BatchLimits(context.stage.max_running, context.stage.max_batch_wait_ms / 1000, _MAX_PIXELS),
            cost=lambda request: encoder.cost(expect(request.payload, ImageInputs)),
        ),
        warm_up=lambda: warm_image_encoder(encoder),
    )


def audio_encoder(context: StageContext) -> StageProgram:
    from omni_stage.models.qwen3_omni.components import audio_encoder as component
    from omni_stage.models.qwen3_omni.components.warm_up import warm_audio_encoder
    from omni_stage.models.qwen3_omni.components.weights import open_weights

    encoder = component.AudioEncoder(open_weights(context, component.PREFIX))
    return StageProgram(
        scheduler=SimpleScheduler(
            lambda request: encoder.encode(expect(request.payload, AudioInputs)),
            stage=context.stage.name,
            max_waiting=context.stage.max_waiting,
        ),
        warm_up=lambda: warm_audio_encoder(encoder),
    )


def aggregate(context: StageContext) -> StageProgram:
    return StageProgram(
        scheduler=SimpleScheduler(
            lambda request: expect(request.payload, ThinkerInput),
            stage=context.stage.name,
            max_waiting=context.stage.max_waiting,
        ),
        route=routing.after_aggregate,
        project={"talker": routing.talker_prompt},
        needs=routing.awaited,
        merge=routing.join,
    )


def thinker(context: StageContext) -> StageProgram:
    from omni_stage.models.qwen3_omni.components.text_model import open_text_model
    from omni_stage.models.qwen3_omni.components.thinker import ThinkerRunner
    from omni_stage.models.qwen3_omni.components.warm_up import warm_thinker

    opened = open_text_model(context)
    runner = ThinkerRunner(opened.weights, opened.store, prefix_cache=context.prefix_cache, text=opened.text)
    return StageProgram(
        scheduler=_autoregressive(context, runner),
        stream_to=routing.thinker_streams,
        warm_up=lambda: warm_thinker(runner, opened.weights),
    )


def thinker_follower(context: StageContext, following: Following) -> Callable[[], None]:
    from omni_stage.models.qwen3_omni.components.text_model import follow_text_model

    return follow_text_model(context, following)


def talker(context: StageContext) -> StageProgram:
    from omni_stage.components.kv_cache import GrowingStore
    from omni_stage.models.qwen3_omni.components import talker as component
    from omni_stage.models.qwen3_omni.components.warm_up import warm_talker
    from omni_stage.models.qwen3_omni.components.weights import open_weights

    weights = open_weights(context, component.PREFIX)
    layers = weights.config.talker_config.text_config.num_hidden_layers
    runner = component.TalkerRunner(weights, GrowingStore(layers))
    return StageProgram(scheduler=_autoregressive(context, runner), warm_up=lambda: warm_talker(runner, weights))


def decode(context: StageContext) -> StageProgram:
    from omni_stage.models.qwen3_omni.components import weights
    from omni_stage.models.qwen3_omni.components.decode import TextSession
    from omni_stage.models.qwen3_omni.components.tokens import Vocabulary

    vocabulary = Vocabulary(weights.open_folder(context))
    return StageProgram(
        scheduler=StreamScheduler(
            lambda request: TextSession(vocabulary, request.params),
            stage=context.stage.name,
            max_running=context.stage.max_running,
            max_waiting=context.stage.max_waiting,
        )
    )


def code2wav(context: StageContext) -> StageProgram:
    from omni_stage.models.qwen3_omni.components import code2wav as component
    from omni_stage.models.qwen3_omni.components.warm_up import warm_vocoder
    from omni_stage.models.qwen3_omni.components.weights import open_weights

    weights = open_weights(context, component.PREFIX)
    vocoder = component.load_vocoder(weights)
    return StageProgram(
        scheduler=StreamScheduler(
            lambda _: component.SpeechSession(vocoder, weights.device),
            stage=context.stage.name,
            max_running=context.stage.max_running,
            max_waiting=context.stage.max_waiting,
        ),
        warm_up=lambda: warm_vocoder(vocoder, weights),
    )


def _autoregressive(context: StageContext, runner: ModelRunner) -> ArScheduler:
    stage = context.stage
    return ArScheduler(
        runner,
        stage=stage.name,
        max_running=stage.max_running,
        max_waiting=stage.max_waiting,
        max_prefill=min(_MAX_PREFILL, stage.max_running),
    )


FAMILY = ModelFamily(
    pipeline=PIPELINE,
    factories={
        "preprocess": preprocess,
        "image_encoder": image_encoder,
        "audio_encoder": audio_encoder,
        "aggregate": aggregate,
        "thinker": thinker,
        "decode": decode,
        "talker": talker,
        "code2wav": code2wav,
    },
    payloads=PAYLOADS,
    followers={"thinker": thinker_follower},
)
