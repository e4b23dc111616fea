"""Whisper's stages: which scheduler and which code each has. What computes is imported when a stage is built."""

from __future__ import annotations

from collections.abc import Sequence

from omni_stage.core.stream_batch_queue import StreamBatchLimits
from omni_stage.models.whisper.callbacks import Writing
from omni_stage.models.whisper.config import PIPELINE, configure
from omni_stage.models.whisper.payload_types import PAYLOADS, End, Passages, Window
from omni_stage.models.whisper.request_builders import Recognition, recognition
from omni_stage.program import ModelFamily, StageContext, StageProgram
from omni_stage.scheduler.producing import ProducingScheduler
from omni_stage.scheduler.stream_batch import Item, StreamBatchScheduler
from omni_stage.scheduler.streaming import StreamScheduler

# Who leaves, and the first text of a batch, wait for the whole batch. On a CPU (tiny.en, int8, one thread) that buys
# little: CPU seconds for eight windows full of speech, and the longest step by the clock, twice, beside other work:
#
#   windows in a batch        1            2            4            8
#   CPU seconds           19.2, 20.9   18.4, 18.7   20.3, 18.4   19.0, 17.8
#   longest step           3.5, 3.8     6.8, 6.3   16.1, 10.1   19.2, 17.9
#
# For a GPU it is faster-whisper's usual size; not measured here.
_MAX_BATCH = {"cpu": 2, "cuda": 16}


def preprocess(context: StageContext) -> StageProgram:
    from omni_stage.models.whisper.components.preprocess import Preprocessor
    from omni_stage.models.whisper.components.warm_up import warm_preprocess
    from omni_stage.models.whisper.components.weights import open_folder

    folder = open_folder(context)
    preprocessor = Preprocessor(folder, configure(folder).languages)
    stage = context.stage
    scheduler = ProducingScheduler(
        preprocessor.pieces,
        stage=stage.name,
        max_running=stage.max_running,
        max_waiting=stage.max_waiting,
        threads=context.threads,
    )
    return StageProgram(scheduler, warm_up=warm_preprocess)


def transcribe(context: StageContext) -> StageProgram:
    from omni_stage.models.whisper.components.recogniser import Recogniser
    from omni_stage.models.whisper.components.warm_up import warm_recogniser
    from omni_stage.models.whisper.components.weights import load_model

    model = load_model(context)
    recogniser = Recogniser(model)

    def compute(items: Sequence[Item[Recognition]]) -> Sequence[Sequence[object]]:
        """A window becomes its passages, the end goes on, and of silence nothing is left."""
        read = iter(recogniser.read([(i.session, i.chunk) for i in items if isinstance(i.chunk, Window)]))
        chunks = [item.chunk for item in items]
        return [
            (Passages(next(read)),) if isinstance(chunk, Window) else (chunk,) if isinstance(chunk, End) else ()
            for chunk in chunks
        ]

    stage = context.stage
    scheduler = StreamBatchScheduler(
        recognition,
        compute,
        stage=stage.name,
        max_running=stage.max_running,
        max_waiting=stage.max_waiting,
        limits=StreamBatchLimits(max_batch=_MAX_BATCH[model.model.device]),
        # Whatever a window holds, it is padded to 30 seconds; for silence and ends the model has nothing to do.
        cost=lambda chunk: float(isinstance(chunk, Window)),
    )
    return StageProgram(scheduler, warm_up=lambda: warm_recogniser(recogniser))


def decode(context: StageContext) -> StageProgram:
    from omni_stage.models.whisper.components.text import Vocabulary
    from omni_stage.models.whisper.components.weights import open_folder

    vocabulary = Vocabulary(open_folder(context))
    stage = context.stage
    scheduler = StreamScheduler(
        lambda _: Writing(vocabulary.text_of),
        stage=stage.name,
        max_running=stage.max_running,
        max_waiting=stage.max_waiting,
    )
    return StageProgram(scheduler)


FAMILY = ModelFamily(
    pipeline=PIPELINE,
    factories={"preprocess": preprocess, "transcribe": transcribe, "decode": decode},
    payloads=PAYLOADS,
)
