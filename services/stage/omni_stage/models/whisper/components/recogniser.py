"""The model of the transcribe stage: windows of many requests, read in one batch.

What reads is faster-whisper's `WhisperModel`, pinned, part by part: its own pipelines read one file, in one language,
from memory. A window gives the same tokens here, in whatever batch, as from `WhisperModel.transcribe` alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from ctranslate2 import DataType, Device, StorageView
from ctranslate2.models import WhisperGenerationResult
from faster_whisper import WhisperModel
from faster_whisper.audio import pad_or_trim
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_compression_ratio, get_suppressed_tokens
from faster_whisper.utils import get_end

from omni_stage.models.whisper.components import settings
from omni_stage.models.whisper.components.reading import Decoded, Reading, frames_to_seconds, is_good, lesser_evil
from omni_stage.models.whisper.payload_types import Passage, Window
from omni_stage.models.whisper.request_builders import Recognition

Job = tuple[Recognition, Window]


class Recogniser:
    def __init__(self, model: WhisperModel) -> None:
        self._model = model
        self._tokenizers: dict[tuple[str, str], Tokenizer] = {}

    @property
    def mels(self) -> int:
        return int(self._model.model.n_mels)

    def read(self, jobs: Sequence[Job]) -> Sequence[tuple[Passage, ...]]:
        """What is said in each window. The languages that nobody told are found, and noted in the recognitions."""
        readings = [Reading(wanted, window) for wanted, window in jobs]
        while left := [reading for reading in readings if not reading.is_over]:
            self._pass(left)
        return [tuple(reading.passages) for reading in readings]

    def _pass(self, readings: Sequence[Reading]) -> None:
        encoded = self._model.encode(np.stack([pad_or_trim(reading.rest()) for reading in readings]))
        self._find_languages(encoded, readings)
        prompts = [self._prompt(reading) for reading in readings]
        alike: dict[tuple[int, float], list[int]] = defaultdict(list)
        for index, (reading, prompt) in enumerate(zip(readings, prompts, strict=True)):
            # The model takes prompts of one length only, and one temperature.
            alike[len(prompt), reading.wanted.temperature or 0.0].append(index)
        for (_, temperature), indices in alike.items():
            results = self._generate(_rows(encoded, indices), [prompts[i] for i in indices], temperature)
            for index, result in zip(indices, results, strict=True):
                self._take(readings[index], result, _Row(encoded, index), prompts[index])

    def _find_languages(self, encoded: StorageView, readings: Sequence[Reading]) -> None:
        if not self._model.model.is_multilingual:
            for reading in readings:
                reading.wanted.language = "en"
            return
        unknown = [index for index, reading in enumerate(readings) if not reading.wanted.language]
        if not unknown:
            return
        found = self._model.model.detect_language(_rows(encoded, unknown))
        for index, ranking in zip(unknown, found, strict=True):
            wanted = readings[index].wanted
            # A request's first window decides, for the others too.
            wanted.language = wanted.language or ranking[0][0].removeprefix("<|").removesuffix("|>")

    def _prompt(self, reading: Reading) -> list[int]:
        tokenizer = self._tokenizer(reading.wanted)
        before = tokenizer.encode(f" {reading.prompt}") if reading.prompt else []
        # Written out in a text, the tokenizer takes marks for what they say: they would rule this window, or the batch.
        before = [token for token in before if token < tokenizer.eot]
        prompt: list[int] = self._model.get_prompt(tokenizer, before)  # its last 223 tokens
        return prompt

    def _generate(
        self, encoded: StorageView, prompts: list[list[int]], temperature: float
    ) -> Sequence[WhisperGenerationResult]:
        drawn = {
            "beam_size": 1,
            "num_hypotheses": settings.BEST_OF,
            "sampling_topk": 0,
            "sampling_temperature": temperature,
        }
        results: Sequence[WhisperGenerationResult] = self._model.model.generate(
            encoded,
            prompts,
            max_length=self._model.max_length,
            return_scores=True,
            return_no_speech_prob=True,
            suppress_tokens=self._suppressed,
            max_initial_timestamp_index=round(settings.MAX_INITIAL_TIMESTAMP / self._model.time_precision),
            **(drawn if temperature else {"beam_size": settings.BEAM_SIZE}),
        )
        return results

    def _take(self, reading: Reading, result: WhisperGenerationResult, row: _Row, prompt: list[int]) -> None:
        decoded = self._judged(reading, result, row, prompt)
        if decoded.no_speech_prob > settings.MAX_NO_SPEECH and decoded.avg_logprob <= settings.MIN_LOGPROB:
            reading.advance(reading.frames)
            return
        tokenizer = self._tokenizer(reading.wanted)
        offset = frames_to_seconds(reading.seek)
        frames = reading.frames - reading.seek
        parts, seek, is_complete = self._model._split_segments_by_timestamps(
            tokenizer=tokenizer,
            tokens=list(decoded.tokens),
            time_offset=offset,
            segment_size=frames,
            segment_duration=frames_to_seconds(frames),
            seek=reading.seek,
        )
        is_text = any(token < tokenizer.eot for token in decoded.tokens)
        if reading.wanted.word_times and is_text:
            self._model.add_word_timestamps(
                [parts], tokenizer, row.encoded, frames, settings.PREPENDED, settings.APPENDED, reading.last_spoken
            )
            spoken = get_end(parts)
            if not is_complete and spoken is not None and spoken > offset:
                seek = round(spoken * self._model.frames_per_second)
            reading.last_spoken = reading.last_spoken if spoken is None else spoken
        for part in parts:
            if part["start"] != part["end"] and tokenizer.decode(part["tokens"]).strip():
                reading.add(part, decoded)
        reading.advance(seek)

    def _judged(self, reading: Reading, result: WhisperGenerationResult, row: _Row, prompt: list[int]) -> Decoded:
        """The result, or a better one where it is too bad and the caller wants no temperature of his own."""
        tokenizer, temperature = self._tokenizer(reading.wanted), reading.wanted.temperature
        decoded = _decoded(tokenizer, result, temperature or 0.0)
        if temperature is not None or is_good(decoded):
            return decoded
        options = settings.transcription_options(settings.FALLBACK_TEMPERATURES, self._suppressed)
        result, avg_logprob, reached, ratio = self._model.generate_with_fallback(
            row.encoded, prompt, tokenizer, options
        )
        again = Decoded(result.sequences_ids[0], reached, avg_logprob, ratio, result.no_speech_prob)
        return again if is_good(again) else lesser_evil(decoded, again)

    def _tokenizer(self, wanted: Recognition) -> Tokenizer:
        spoken = wanted.language, wanted.task
        if spoken not in self._tokenizers:
            model = self._model
            self._tokenizers[spoken] = Tokenizer(
                model.hf_tokenizer, model.model.is_multilingual, task=wanted.task, language=wanted.language
            )
        return self._tokenizers[spoken]

    @cached_property
    def _suppressed(self) -> Sequence[int]:
        """Signs that nobody says. They are the same for all languages and tasks."""
        tokenizer = Tokenizer(self._model.hf_tokenizer, self._model.model.is_multilingual, "transcribe", "en")
        return list(get_suppressed_tokens(tokenizer, [-1]))


class _Row:
    """One window of an encoded batch, apart from the others when it is asked for."""

    def __init__(self, batch: StorageView, index: int) -> None:
        self._batch = batch
        self._index = index

    @cached_property
    def encoded(self) -> StorageView:
        return _rows(self._batch, [self._index])


def _rows(batch: StorageView, indices: Sequence[int]) -> StorageView:
    if len(indices) == batch.shape[0]:
        return batch
    values = np.array(batch.to_device(Device.cpu).to(DataType.float32))
    return StorageView.from_array(np.ascontiguousarray(values[list(indices)]))


def _decoded(tokenizer: Tokenizer, result: WhisperGenerationResult, temperature: float) -> Decoded:
    tokens = result.sequences_ids[0]
    # The score is the sum over the tokens divided by their number; the end token counts too, as in the reference.
    avg_logprob = result.scores[0] * len(tokens) / (len(tokens) + 1)
    ratio = get_compression_ratio(tokenizer.decode(tokens).strip())
    return Decoded(tokens, temperature, avg_logprob, ratio, result.no_speech_prob)
