"""How faster-whisper is told to read: its own defaults, which are those of Whisper's reference code, but for two.

The text before a window is no prompt for it, because windows are read side by side. And a window that went wrong is
tried again twice, not five times, because all the batch waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from faster_whisper.transcribe import TranscriptionOptions

BEAM_SIZE = 5
BEST_OF = 5
FALLBACK_TEMPERATURES = (0.4, 0.8)  # tried in turn where 0 goes wrong and the caller wants none
MAX_COMPRESSION_RATIO = 2.4  # above it, the model repeats itself
MIN_LOGPROB = -1.0  # below it, on average, it guesses
MAX_NO_SPEECH = 0.6  # above it, a guess is none at all
MAX_INITIAL_TIMESTAMP = 1.0
PREPENDED = "\"'“¿([{-"
APPENDED = "\"'.。,，!！?？:：”)]}、"


def transcription_options(temperatures: Sequence[float], suppressed: Sequence[int]) -> TranscriptionOptions:
    return TranscriptionOptions(
        beam_size=BEAM_SIZE,
        best_of=BEST_OF,
        patience=1,
        length_penalty=1,
        repetition_penalty=1,
        no_repeat_ngram_size=0,
        log_prob_threshold=MIN_LOGPROB,
        no_speech_threshold=MAX_NO_SPEECH,
        compression_ratio_threshold=MAX_COMPRESSION_RATIO,
        condition_on_previous_text=False,
        prompt_reset_on_temperature=0.5,
        temperatures=list(temperatures),
        initial_prompt=None,
        prefix=None,
        suppress_blank=True,
        suppress_tokens=list(suppressed),
        without_timestamps=False,
        max_initial_timestamp=MAX_INITIAL_TIMESTAMP,
        word_timestamps=False,
        prepend_punctuations=PREPENDED,
        append_punctuations=APPENDED,
        multilingual=False,
        max_new_tokens=None,
        clip_timestamps="0",
        hallucination_silence_threshold=None,
        hotwords=None,
    )
