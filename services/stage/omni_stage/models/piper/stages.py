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

# Costs are phoneme ids, padded to the longest sentence of a batch; one is two frames, so 400 are nine seconds.
#
# On a CPU a batch takes at least as long as its sentences one after the other, unless there are threads to share it.
# Measured on an AMD EPYC with 24 sentences of 40 to 240 ids, three each for eight requests at once:
#
#   sentences in a batch (spread)      1      2 (1.1)   4 (1.1)   4 (1.25)
#   CPU seconds for 79 s of speech     6.2    6.3       6.3       6.6         one thread
#   first audio, median, seconds       1.6    1.8       1.9       2.0
#
# With two threads four sentences of 100 ids take 0.12 s each, and one alone 0.17 s. So there are two in a batch for
# each thread, much alike, and of 400 ids at most: 0.75 s of work, and 0.6 GB in all. A batch holds one sentence of
# a request, whose first then never waits for its second and which sounds the same to the last bit whenever it is alone.
_CPU_COST = 400
_CPU_SPREAD = 1.1
_BATCH_PER_THREAD = 2
# Not measured: no GPU with onnxruntime's CUDA was at hand. A GPU is filled.
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
            limits=_GPU_LIMITS if synthesiser.on_gpu else _cpu_limits(context.threads),
            cost=lambda chunk: expect(chunk, Sentence).ids.shape[0],
            one_per_request=not synthesiser.on_gpu,
        ),
        warm_up=synthesiser.warm_up,
    )


def _cpu_limits(threads: int) -> StreamBatchLimits:
    return StreamBatchLimits(max_batch=_BATCH_PER_THREAD * threads, max_cost=_CPU_COST, max_spread=_CPU_SPREAD)


FAMILY = ModelFamily(
    pipeline=PIPELINE,
    factories={"preprocess": preprocess, "synthesise": synthesise},
    payloads=PAYLOADS,
)
