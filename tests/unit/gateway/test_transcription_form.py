"""Forms of transcription requests: cut, broken, oversized, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_common.errors import InvalidRequest, OmniError, Reason
from omni_common.request import Media, Message, Modality, Role, Sampling, Task, Text
from omni_gateway.http.form import MAX_FIELD, MAX_PARTS, Form, parse_form
from omni_gateway.pipelines import PipelineView
from omni_gateway.transcription.parse import Wish, build_request, parse_wish

BOUNDARY = "b0undary"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"
WAV = b"RIFF\x24\0\0\0WAVEfmt \r\n--b0undar\r\n\0\xff"
FILE = ('name="file"; filename="a.wav"', WAV)
MODEL = ('name="model"', b"whisper")


def encode(*parts: tuple[str, bytes], boundary: str = BOUNDARY) -> bytes:
    """A form of parts: the rest of each Content-Disposition, and its content."""
    pieces = [
        b"--%s\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (boundary.encode(), rest.encode(), content)
        for rest, content in parts
    ]
    return b"".join(pieces) + b"--%s--\r\n" % boundary.encode()


def field(name: str, value: str) -> tuple[str, bytes]:
    return f'name="{name}"', value.encode()


def wish(*parts: tuple[str, bytes], task: Task = Task.TRANSCRIPTION) -> Wish:
    return parse_wish(parse_form(TYPE, encode(*parts)), task)


def pipeline(*languages: str) -> PipelineView:
    audio, text = frozenset({Modality.AUDIO}), frozenset({Modality.TEXT})
    return PipelineView("whisper", True, audio, text, (), "", frozenset({Task.TRANSCRIPTION}), languages, ())


def test_a_file_is_a_view_of_the_body_and_fields_are_text() -> None:
    body = bytearray(encode(FILE, MODEL, field("tag[]", "ä"), field("tag[]", "")))
    form = parse_form(TYPE, body)
    assert form.fields == {"model": ["whisper"], "tag[]": ["ä", ""]}
    (file,) = form.files["file"]
    assert file == WAV
    assert file.obj is body
    assert file.readonly


@given(st.lists(st.binary(max_size=40), max_size=8), st.text("ab-'", min_size=1, max_size=5))
def test_every_form_comes_back_as_it_was_written(contents: Sequence[bytes], boundary: str) -> None:
    contents = [c for c in contents if boundary.encode() not in c]
    body = encode(*((f'name="f{i}"; filename="x"', c) for i, c in enumerate(contents)), boundary=boundary)
    form = parse_form(f"multipart/form-data; boundary={boundary}", body)
    assert [bytes(*form.files[f"f{i}"]) for i in range(len(contents))] == contents
    assert not form.fields


@given(st.data())
def test_a_form_that_ends_early_is_refused(data: st.DataObject) -> None:
    body = encode(MODEL, FILE)
    end = body.rindex(b"--")  # what comes after the last two dashes may be missing
    with pytest.raises(InvalidRequest) as caught:
        parse_form(TYPE, body[: data.draw(st.integers(0, end))])
    assert caught.value.code == "invalid_form"


@given(st.data())
def test_a_spoilt_form_is_understood_or_refused_and_nothing_else(data: st.DataObject) -> None:
    body = bytearray(encode(MODEL, FILE, field("temperature", "0.5"), field("language", "en")))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    with suppress(OmniError):
        parse_wish(parse_form(TYPE, body), Task.TRANSCRIPTION)


@given(st.text(st.characters(max_codepoint=255), max_size=80), st.binary(max_size=200))
def test_no_bytes_break_the_reader(content_type: str, body: bytes) -> None:
    for kind in (content_type, TYPE, "multipart/form-data; boundary=a"):
        with suppress(InvalidRequest):
            parse_form(kind, body)


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'x' * 71}"]
)
def test_a_content_type_without_a_fit_boundary_is_refused(kind: str) -> None:
    with pytest.raises(InvalidRequest, match="boundary"):
        parse_form(kind, encode(MODEL))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nothing of the kind",
        encode(MODEL, boundary="another"),
        encode(("", b"without a name")),
        encode(MODEL).replace(b"form-data", b"attachment"),
        encode(MODEL).replace(b"Content-Disposition", b"Content-Deposition"),
        encode((f'name="model"; x="{"y" * 4096}"', b"")),
        encode(MODEL).replace(b"\r\n\r\n", b"\r\nx: y" * 9 + b"\r\n\r\n"),
        encode(*[MODEL] * (MAX_PARTS + 1)),
        encode(MODEL, FILE).replace(b"\r\n--b0undary\r\n", b"\r\n--b0undary \t\r\n"),
        f"--{BOUNDARY}\r\n".encode() + f"\r\n--{BOUNDARY}x".encode() * (MAX_PARTS + 1),
    ],
)
def test_what_is_no_form_within_the_bounds_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_form(TYPE, body)
    assert caught.value.code == "invalid_form"


def test_as_many_parts_as_there_may_be_are_read() -> None:
    form = parse_form(TYPE, encode(*[MODEL] * MAX_PARTS))
    assert form == Form({"model": ["whisper"] * MAX_PARTS})


@pytest.mark.parametrize(
    ("parts", "param", "code"),
    [
        ([MODEL], "file", "missing_required_parameter"),
        ([FILE], "model", "missing_required_parameter"),
        ([FILE, field("model", "")], "model", "missing_required_parameter"),
        ([MODEL, field("file", "RIFF")], "file", "invalid_value"),
        ([MODEL, FILE, FILE], "file", "invalid_value"),
        ([MODEL, FILE, field("file", "x")], "file", "invalid_value"),
        ([MODEL, MODEL, FILE], "model", "invalid_value"),
        ([MODEL, FILE, ('name="prompt"; filename="p"', b"x")], "prompt", "invalid_value"),
        ([MODEL, ('name="file"; filename=""', b"")], "file", "invalid_value"),
        ([MODEL, ('name="file"; filename="a.wav"', b"just text")], "file", "unsupported_format"),
        ([MODEL, FILE, field("made_up", "1")], "made_up", None),
        ([MODEL, FILE, field("made_up", "")], "made_up", None),
        ([MODEL, FILE, field("model[]", "x")], "model[]", None),
        ([MODEL, FILE, field("include[]", "logprobs")], "include[]", None),
        ([MODEL, FILE, field("languages[]", "en"), field("languages[]", "de")], "languages[]", None),
        ([MODEL, FILE, field("keywords[]", "mesh")], "keywords[]", None),
        ([MODEL, FILE, field("known_speaker_names[]", "agent")], "known_speaker_names[]", None),
        ([MODEL, FILE, field("chunking_strategy", '{"type": "server_vad"}')], "chunking_strategy", None),
        ([MODEL, FILE, field("chunking_strategy[type]", "server_vad")], "chunking_strategy[type]", None),
        ([MODEL, FILE, field("response_format", "diarized_json")], "response_format", None),
        ([MODEL, FILE, field("response_format", "docx")], "response_format", "invalid_value"),
        ([MODEL, FILE, field("temperature", "1.1")], "temperature", "invalid_value"),
        ([MODEL, FILE, field("temperature", "nan")], "temperature", "invalid_value"),
        ([MODEL, FILE, field("temperature", "warm")], "temperature", "invalid_value"),
        ([MODEL, FILE, field("language", "english")], "language", "invalid_value"),
        ([MODEL, FILE, field("stream", "perhaps")], "stream", "invalid_value"),
        ([MODEL, FILE, field("prompt", "x" * 4097)], "prompt", "string_above_max_length"),
        ([MODEL, FILE, field("prompt", "x" * (MAX_FIELD + 1))], "prompt", "invalid_value"),
        ([MODEL, FILE, ('name="prompt"', b"\xff\xfe")], "prompt", "invalid_value"),
        ([MODEL, FILE, field("timestamp_granularities[]", "word")], "timestamp_granularities", "invalid_value"),
        (
            [MODEL, FILE, field("timestamp_granularities[]", "page"), field("response_format", "verbose_json")],
            "timestamp_granularities[0]",
            "invalid_value",
        ),
        ([MODEL, FILE, field("stream", "true"), field("response_format", "srt")], "response_format", "invalid_value"),
    ],
)
def test_a_form_that_cannot_be_served_is_refused_with_its_place(
    parts: Sequence[tuple[str, bytes]], param: str, code: str | None
) -> None:
    with pytest.raises(OmniError) as caught:
        wish(*parts)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert caught.value.reason is (Reason.UNSUPPORTED if code is None else Reason.INVALID_REQUEST)


@pytest.mark.parametrize("name", ["language", "stream", "timestamp_granularities[]", "chunking_strategy"])
def test_a_translation_has_fewer_fields(name: str) -> None:
    with pytest.raises(OmniError) as caught:
        wish(MODEL, FILE, field(name, "en"), task=Task.TRANSLATION)
    assert (caught.value.reason, caught.value.param) == (Reason.UNSUPPORTED, name)


def test_a_form_with_nothing_but_the_necessary_asks_for_the_defaults() -> None:
    plain = wish(MODEL, FILE, field("language", ""), field("prompt", ""), field("stream", ""))
    assert plain == Wish(Task.TRANSCRIPTION, "whisper", Media(Modality.AUDIO, WAV, "file"), "", "json", None)


@pytest.mark.parametrize(
    ("given", "words", "segments"),
    [
        ([], False, True),
        (["segment"], False, True),
        (["word"], True, False),
        (["word", "segment"], True, True),
    ],
)
@pytest.mark.parametrize("name", ["timestamp_granularities[]", "timestamp_granularities"])
def test_granularities_are_read_in_both_spellings(given: list[str], name: str, words: bool, segments: bool) -> None:
    form = wish(MODEL, FILE, field("response_format", "verbose_json"), *[field(name, g) for g in given])
    assert (form.words, form.segments) == (words, segments)


@pytest.mark.parametrize(("given", "code"), [("en", "en"), ("EN", "en"), ("en-US", "en"), ("zh_Hans_CN", "zh")])
def test_a_language_is_told_by_its_first_part(given: str, code: str) -> None:
    assert wish(MODEL, FILE, field("language", given)).language == code


def test_a_language_that_the_model_does_not_know_is_refused() -> None:
    german = wish(MODEL, FILE, field("language", "de"))
    assert build_request(german, pipeline()).params.language == "de"
    with pytest.raises(InvalidRequest, match="it knows en, fr") as caught:
        build_request(german, pipeline("en", "fr"))
    assert caught.value.param == "language"


def test_the_request_of_the_mesh_is_complete() -> None:
    form = wish(
        MODEL,
        FILE,
        field("prompt", "Names: Ada."),
        field("temperature", "0.25"),
        field("language", "en"),
        field("response_format", "verbose_json"),
        field("timestamp_granularities[]", "word"),
    )
    request = build_request(form, pipeline("en"))
    assert request.messages == (
        Message(Role.SYSTEM, (Text("Names: Ada.", "prompt"),)),
        Message(Role.USER, (Media(Modality.AUDIO, WAV, "file"),)),
    )
    params = request.params
    assert params.modalities == {Modality.TEXT}
    assert params.sampling == Sampling(temperature=0.25)
    assert (params.task, params.language, params.word_times) == (Task.TRANSCRIPTION, "en", True)
