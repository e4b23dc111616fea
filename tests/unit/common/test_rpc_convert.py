"""Wire messages and domain values: inverse of each other, and strict."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni.common.v1 import request_pb2, tensor_pb2
from omni_common.errors import InvalidRequest
from omni_common.request import (
    AudioOutput,
    Binding,
    Envelope,
    FinishReason,
    GenerationParams,
    GenerationRequest,
    Media,
    Message,
    Modality,
    Output,
    RequestKey,
    Role,
    Sampling,
    Segment,
    StageReport,
    Task,
    TerminalResult,
    Text,
    TextOutput,
    TraceContext,
    Usage,
    Word,
)
from omni_common.rpc.contract import INLINE_LIMIT
from omni_common.rpc.convert import (
    parse_envelope,
    parse_output,
    parse_params,
    parse_request,
    parse_result,
    render_envelope,
    render_output,
    render_params,
    render_request,
    render_result,
)

U32 = st.integers(0, 2**32 - 1)
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0.001, 1),
    top_k=st.none() | U32,
    repetition_penalty=st.none() | st.floats(0.01, 100),
    seed=st.none() | st.integers(0, 2**64 - 1),
    max_tokens=st.none() | st.integers(1, 2**32 - 1),
)
PARAMS = st.builds(
    GenerationParams,
    modalities=st.frozensets(st.sampled_from([Modality.TEXT, Modality.AUDIO]), min_size=1),
    sampling=SAMPLINGS,
    stage_sampling=st.dictionaries(st.text(max_size=8), SAMPLINGS, max_size=3),
    stop=st.lists(st.text(min_size=1, max_size=9), max_size=4).map(tuple),
    voice=st.text(max_size=8),
    task=st.sampled_from(Task),
    language=st.text(max_size=3),
    word_times=st.booleans(),
)
PARTS = st.builds(Text, st.text(max_size=20), st.text(min_size=1, max_size=5)) | st.builds(
    Media,
    st.sampled_from([Modality.IMAGE, Modality.AUDIO, Modality.VIDEO]),
    st.binary(max_size=50),
    st.text(min_size=1, max_size=5),
)
MESSAGES = st.builds(Message, st.sampled_from(Role), st.lists(PARTS, max_size=3).map(tuple))
REQUESTS = st.builds(
    GenerationRequest, st.text(max_size=9), st.lists(MESSAGES, min_size=1, max_size=3).map(tuple), PARAMS
)
REPORTS = st.builds(StageReport, st.text(max_size=5), st.text(max_size=5), *[st.integers(0, 9).map(float)] * 3)
TIMES = st.floats(0, 1e6)
WORDS = st.builds(Word, st.text(max_size=9), TIMES, TIMES)
SEGMENTS = st.builds(
    Segment,
    start=TIMES,
    end=TIMES,
    text=st.text(max_size=20),
    language=st.text(max_size=3),
    tokens=st.lists(U32, max_size=4).map(tuple),
    temperature=st.floats(0, 1),
    avg_logprob=st.floats(-100, 0),
    compression_ratio=st.floats(0, 100),
    no_speech_prob=st.floats(0, 1),
    words=st.lists(WORDS, max_size=3).map(tuple),
)
RESULTS = st.builds(
    TerminalResult,
    st.none() | st.sampled_from(FinishReason),
    st.builds(Usage, U32, U32, U32, U32, U32, st.floats(0, 1e6)),
    st.lists(REPORTS, max_size=3).map(tuple),
)


@given(PARAMS)
def test_params_survive_a_hop(params: GenerationParams) -> None:
    assert parse_params(render_params(params)) == params


@given(REQUESTS)
def test_a_request_survives_a_hop(request: GenerationRequest) -> None:
    assert parse_request(render_request(request, None), None) == request


@given(RESULTS)
def test_a_result_survives_a_hop(result: TerminalResult) -> None:
    assert parse_result(render_result(result)) == result


@given(SEGMENTS)
def test_a_segment_survives_a_hop(segment: Segment) -> None:
    assert parse_output(render_output(segment, 7)) == (7, segment)


def test_a_request_that_names_no_task_is_a_chat() -> None:
    assert parse_params(request_pb2.GenerationParams()).task is Task.CHAT


@pytest.mark.parametrize("output", [TextOutput("né"), TextOutput(""), AudioOutput(b"\x01\x02", 24_000)])
def test_an_output_survives_a_hop(output: Output) -> None:
    assert parse_output(render_output(output, 7)) == (7, output)


def test_large_media_leave_as_blobs_and_come_back() -> None:
    large, small = bytes(range(256)) * 257, b"x" * INLINE_LIMIT
    request = GenerationRequest(
        "m", (Message(Role.USER, (Media(Modality.IMAGE, large, "a"), Media(Modality.AUDIO, small, "b"))),)
    )
    blobs: list[bytes | memoryview] = []

    def put(data: bytes | memoryview) -> tensor_pb2.DataRef:
        blobs.append(data)
        return tensor_pb2.DataRef(blob=len(blobs))

    message = render_request(request, put)
    assert blobs == [large]
    assert parse_request(message, lambda ref: blobs[ref.blob - 1]) == request


def test_an_envelope_crosses_to_a_process_with_another_clock() -> None:
    envelope = Envelope(
        key=RequestKey("r1", 2),
        pipeline="p",
        coordinator="c",
        deadline=130.0,
        origin=95.5,
        bindings={"thinker": Binding("t0", "10.0.0.1:7000", "pod-a")},
        terminals=frozenset({"decode", "code2wav"}),
        params=GenerationParams(stop=("!",)),
        output_credits=16,
        trace=TraceContext("00-" + "1" * 32 + "-" + "2" * 16 + "-01", "a=b"),
    )
    there = parse_envelope(render_envelope(envelope, now=100.0), now=5000.0)
    assert (there.deadline, there.origin) == (5030.0, 4995.5)
    assert parse_envelope(render_envelope(there, now=5000.0), now=100.0) == envelope


def test_a_deadline_that_nobody_set_does_not_overflow() -> None:
    envelope = Envelope(
        RequestKey("r"), "p", "c", math.inf, 0.0, {}, frozenset({"t"}), GenerationParams(), output_credits=1
    )
    assert parse_envelope(render_envelope(envelope, now=0.0), now=0.0).deadline >= 86_400


def edit(change: Callable[[request_pb2.GenerationRequest], object]) -> request_pb2.GenerationRequest:
    message = request_pb2.GenerationRequest(
        model="m",
        messages=[request_pb2.Message(role=request_pb2.ROLE_USER, parts=[request_pb2.Part(text="hi")])],
        params=request_pb2.GenerationParams(sampling=request_pb2.Sampling()),
    )
    change(message)
    return message


@pytest.mark.parametrize(
    ("change", "param"),
    [
        pytest.param(lambda m: m.ClearField("messages"), "messages", id="no messages"),
        pytest.param(lambda m: m.messages[0].ClearField("role"), "messages[0].role", id="no role"),
        pytest.param(lambda m: m.messages[0].MergeFromString(b"\x08\x63"), "messages[0].role", id="role unknown here"),
        pytest.param(lambda m: m.messages[0].parts.add(), "messages[0].parts[1]", id="empty part"),
        pytest.param(
            lambda m: m.messages[0].parts[0].image.SetInParent(), "messages[0].parts[0]", id="image without bytes"
        ),
        pytest.param(
            lambda m: m.messages[0].parts[0].audio.ref.SetInParent(),
            "messages[0].parts[0]",
            id="blob where none is",
        ),
        pytest.param(lambda m: m.params.modalities.append(9), "params.modalities", id="unknown modality"),
        pytest.param(lambda m: m.params.MergeFromString(b"\x30\x63"), "params.task", id="task unknown here"),
        pytest.param(
            lambda m: m.params.modalities.append(request_pb2.MODALITY_VIDEO), "params.modalities", id="video out"
        ),
        pytest.param(lambda m: m.params.stop.extend("abcde"), "params.stop", id="five stop strings"),
        pytest.param(lambda m: m.params.stop.append(""), "params.stop", id="empty stop string"),
        pytest.param(
            lambda m: m.params.sampling.MergeFrom(request_pb2.Sampling(temperature=math.nan)),
            "params.sampling.temperature",
            id="temperature is no number",
        ),
        pytest.param(
            lambda m: m.params.sampling.MergeFrom(request_pb2.Sampling(top_p=1.5)),
            "params.sampling.top_p",
            id="top_p",
        ),
        pytest.param(
            lambda m: m.params.sampling.MergeFrom(request_pb2.Sampling(repetition_penalty=math.inf)),
            "params.sampling.repetition_penalty",
            id="endless penalty",
        ),
        pytest.param(
            lambda m: m.params.stage_sampling["talker"].MergeFrom(request_pb2.Sampling(max_tokens=0)),
            "params.stage_sampling.talker.max_tokens",
            id="nothing to make",
        ),
    ],
)
def test_a_wrong_request_is_refused_with_the_place(
    change: Callable[[request_pb2.GenerationRequest], object], param: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_request(edit(change), None)
    assert refused.value.param == param
    assert refused.value.message.endswith(".")


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(request_pb2.Output(), id="nothing in it"),
        pytest.param(request_pb2.Output(audio=request_pb2.AudioPiece(pcm=b"abc", sample_rate=1)), id="half a sample"),
        pytest.param(request_pb2.Output(audio=request_pb2.AudioPiece(pcm=b"ab")), id="no rate"),
    ],
)
def test_a_wrong_output_is_refused(message: request_pb2.Output) -> None:
    with pytest.raises(InvalidRequest):
        parse_output(message)
