"""The model folder, opened for the stage that computes with it."""

from __future__ import annotations

import json
from pathlib import Path

import ctranslate2
from faster_whisper import WhisperModel

from omni_stage.damaged import reading
from omni_stage.program import StageContext

_OF_DEVICES = ("cuda", "cublas", "cudnn", "driver", "device", "memory", "alloc")


def open_folder(context: StageContext) -> Path:
    if context.model is None:
        raise ValueError(f"Stage '{context.stage.name}' of {context.pipeline.name} needs a model folder.")
    return context.model


def load_model(context: StageContext) -> WhisperModel:
    """Raises ValueError when a file is damaged, and when the weights take another spectrogram than settings make."""
    folder = open_folder(context)
    for settings in sorted(folder.glob("*.json")):  # the libraries say what is wrong in one, and not in which
        with reading(settings, ValueError):
            json.loads(settings.read_bytes())
    device, index = device_of(context.device)
    model = _open(folder, device, index, context)
    made, taken = model.feature_extractor.mel_filters.shape[0], model.model.n_mels
    if made != taken:
        raise ValueError(f"The model in {folder} takes {taken} mels, but its preprocessor_config.json makes {made}.")
    return model


def _open(folder: Path, device: str, index: int, context: StageContext) -> WhisperModel:
    try:
        return WhisperModel(
            str(folder),
            device=device,
            device_index=index,
            compute_type=compute_type(context.dtype, device),
            cpu_threads=context.threads,
            num_workers=1,
        )
    except RuntimeError as error:
        # CTranslate2 has one kind of error for all; those of a device are not the file's.
        if any(word in str(error).lower() for word in _OF_DEVICES):
            raise
        with reading(folder / "model.bin", RuntimeError):
            raise


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
