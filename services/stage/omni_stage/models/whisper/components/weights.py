"""The model folder, opened for the stage that computes with it."""

from __future__ import annotations

from pathlib import Path

import ctranslate2
from faster_whisper import WhisperModel

from omni_stage.program import StageContext


def open_folder(context: StageContext) -> Path:
    if context.model is None:
        raise ValueError(f"Stage '{context.stage.name}' of {context.pipeline.name} needs a model folder.")
    return context.model


def load_model(context: StageContext) -> WhisperModel:
    """Raises ValueError when the weights take another spectrogram than the folder's settings make."""
    folder = open_folder(context)
    device, index = device_of(context.device)
    model = WhisperModel(
        str(folder),
        device=device,
        device_index=index,
        compute_type=compute_type(context.dtype, device),
        cpu_threads=context.threads,
        num_workers=1,
    )
    made, taken = model.feature_extractor.mel_filters.shape[0], model.model.n_mels
    if made != taken:
        raise ValueError(f"The model in {folder} takes {taken} mels, but its preprocessor_config.json makes {made}.")
    return model


def device_of(name: str) -> tuple[str, int]:
    """CTranslate2's kind and number of a device."""
    if name in {"", "auto"}:
        return ("cuda" if ctranslate2.get_cuda_device_count() else "cpu"), 0
    kind, _, number = name.partition(":")
    return kind, int(number or 0)


def compute_type(dtype: str, device: str) -> str:
    """8-bit weights take two thirds of the time on a CPU; tiny.en made no more errors with them."""
    if dtype in {"", "auto"}:
        return "float16" if device == "cuda" else "int8"
    return dtype
