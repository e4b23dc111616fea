"""What comes back: pieces of output, results of terminal stages, reports, usage."""

from __future__ import annotations

from omni.common.v1 import request_pb2
from omni_common.errors import InvalidRequest
from omni_common.request import (
    AudioOutput,
    FinishReason,
    Output,
    Segment,
    StageReport,
    TerminalResult,
    TextOutput,
    Usage,
    Word,
)
from omni_common.rpc.convert.envelope import duration_of, seconds_of

_FINISH = {
    None: request_pb2.FINISH_REASON_UNSPECIFIED,
    FinishReason.STOP: request_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: request_pb2.FINISH_REASON_LENGTH,
}
_FINISH_OF = {number: reason for reason, number in _FINISH.items()}


def render_output(output: Output, index: int) -> request_pb2.Output:
    match output:
        case TextOutput(text):
            return request_pb2.Output(index=index, text=text)
        case AudioOutput(pcm, sample_rate):
            return request_pb2.Output(index=index, audio=request_pb2.AudioPiece(pcm=pcm, sample_rate=sample_rate))
        case Segment():
            return request_pb2.Output(index=index, segment=_render_segment(output))


def parse_output(message: request_pb2.Output) -> tuple[int, Output]:
    match message.WhichOneof("piece"):
        case "text":
            return message.index, TextOutput(message.text)
        case "audio":
            if len(message.audio.pcm) % 2 or not message.audio.sample_rate:
                raise InvalidRequest("A piece of audio is not made of 16-bit samples at a known rate.")
            return message.index, AudioOutput(message.audio.pcm, message.audio.sample_rate)
        case "segment":
            return message.index, _parse_segment(message.segment)
        case None:
            raise InvalidRequest("A piece of output holds neither text nor audio nor a segment.")


def _render_segment(segment: Segment) -> request_pb2.Segment:
    return request_pb2.Segment(
        start=segment.start,
        end=segment.end,
        text=segment.text,
        language=segment.language,
        tokens=segment.tokens,
        temperature=segment.temperature,
        avg_logprob=segment.avg_logprob,
        compression_ratio=segment.compression_ratio,
        no_speech_prob=segment.no_speech_prob,
        words=[request_pb2.Word(word=w.word, start=w.start, end=w.end) for w in segment.words],
    )


def _parse_segment(message: request_pb2.Segment) -> Segment:
    return Segment(
        start=message.start,
        end=message.end,
        text=message.text,
        language=message.language,
        tokens=tuple(message.tokens),
        temperature=message.temperature,
        avg_logprob=message.avg_logprob,
        compression_ratio=message.compression_ratio,
        no_speech_prob=message.no_speech_prob,
        words=tuple(Word(w.word, w.start, w.end) for w in message.words),
    )


def render_finish_reason(reason: FinishReason | None) -> request_pb2.FinishReason.ValueType:
    return _FINISH[reason]


def parse_finish_reason(number: request_pb2.FinishReason.ValueType) -> FinishReason | None:
    try:
        return _FINISH_OF[number]
    except KeyError:
        raise InvalidRequest(f"Finish reason {number} is not one that this version knows.") from None


def render_usage(usage: Usage) -> request_pb2.Usage:
    return request_pb2.Usage(
        prompt_tokens=usage.prompt_tokens,
        prompt_audio_tokens=usage.prompt_audio_tokens,
        prompt_image_tokens=usage.prompt_image_tokens,
        completion_text_tokens=usage.completion_text_tokens,
        completion_audio_tokens=usage.completion_audio_tokens,
        prompt_audio_seconds=usage.prompt_audio_seconds,
        prompt_cached_tokens=usage.prompt_cached_tokens,
    )


def parse_usage(message: request_pb2.Usage) -> Usage:
    return Usage(
        prompt_tokens=message.prompt_tokens,
        prompt_audio_tokens=message.prompt_audio_tokens,
        prompt_image_tokens=message.prompt_image_tokens,
        completion_text_tokens=message.completion_text_tokens,
        completion_audio_tokens=message.completion_audio_tokens,
        prompt_audio_seconds=message.prompt_audio_seconds,
        prompt_cached_tokens=message.prompt_cached_tokens,
    )


def render_report(report: StageReport) -> request_pb2.StageReport:
    return request_pb2.StageReport(
        stage=report.stage,
        replica=report.replica,
        first_input=duration_of(report.first_input),
        first_output=duration_of(report.first_output),
        end=duration_of(report.end),
    )


def parse_report(message: request_pb2.StageReport) -> StageReport:
    return StageReport(
        stage=message.stage,
        replica=message.replica,
        first_input=seconds_of(message.first_input),
        first_output=seconds_of(message.first_output),
        end=seconds_of(message.end),
    )


def render_result(result: TerminalResult) -> request_pb2.TerminalResult:
    return request_pb2.TerminalResult(
        finish_reason=render_finish_reason(result.finish_reason),
        usage=render_usage(result.usage),
        reports=map(render_report, result.reports),
    )


def parse_result(message: request_pb2.TerminalResult) -> TerminalResult:
    return TerminalResult(
        finish_reason=parse_finish_reason(message.finish_reason),
        usage=parse_usage(message.usage),
        reports=tuple(map(parse_report, message.reports)),
    )
