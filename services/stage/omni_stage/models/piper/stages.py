"""Piper's stages: which scheduler and which code each has. onnxruntime is imported when a stage is built."""

from __future__ import annotations

from omni_stage.core.stream_batch_queue import StreamBatchLimits
from omni_stage.models.piper.callbacks import Speech
from omni_stage.models.piper.config import PIPELINE
from omni_stage.models.piper.payload_types import PAYLOADS, Sentence, expect
from omni_stage.program import ModelFamily, StageContext, StageProgram
from omni_stage.scheduler.producing import ProducingScheduler
from omni_stage.scheduler.stream_batch import StreamBatchScheduler

# Texts that are turned into phonemes at a time: it is another program's work, and one that hangs must not stop all.
_PREPROCESS_THREADS = 4

# Costs are phoneme ids, padded to the longest sentence of a batch. On a CPU a batch takes as long as its sentences one
# after the other (100 ids: 0.20 s alone, 0.18 s each in a batch of 4 or 8, one thread of an EPYC), so it is kept
# small enough that nobody waits long for the others: 400 ids are 0.75 s of work and 0.6 GB. It holds one
# sentence of a request, whose first then never waits for its second and is the same to the last bit whenever the
# request is alone. A GPU is filled.
_CPU_LIMITS = StreamBatchLimits(max_batch=4, max_cost=400, max_spread=1.25)
_GPU_LIMITS = StreamBatchLimits(max_batch=32, max_cost=6400, max_spread=2.0)


def preprocess(context: StageContext) -> StageProgram:
    from omni_stage.models.piper.components.preprocess import Preprocessor
    from omni_stage.models.piper.components.voice import open_voice

    preprocessor = Preprocessor(open_voice(context))
    return StageProgram(
        scheduler=ProducingScheduler(
            preprocessor.sentences,
            stage=context.stage.name,
            max_running=context.stage.max_running,
            max_waiting=context.stage.max_waiting,
            threads=_PREPROCESS_THREADS,
        ),
        warm_up=preprocessor.warm_up,
    )


def synthesise(context: StageContext) -> StageProgram:
    from omni_stage.models.piper.components.synthesiser import open_synthesiser
    from omni_stage.models.piper.components.voice import open_voice

    voice = open_voice(context)
    synthesiser = open_synthesiser(voice, context)
    return StageProgram(
        scheduler=StreamBatchScheduler(
            lambda request: Speech(request, voice.sample_rate),
            synthesiser.compute,
            stage=context.stage.name,
            max_running=context.stage.max_running,
            max_waiting=context.stage.max_waiting,
            limits=_GPU_LIMITS if synthesiser.on_gpu else _CPU_LIMITS,
            cost=lambda chunk: expect(chunk, Sentence).ids.shape[0],
            one_per_request=not synthesiser.on_gpu,
        ),
        warm_up=synthesiser.warm_up,
    )


FAMILY = ModelFamily(
    pipeline=PIPELINE,
    factories={"preprocess": preprocess, "synthesise": synthesise},
    payloads=PAYLOADS,
)
