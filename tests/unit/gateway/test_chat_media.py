"""Media in bodies: recognised by their first bytes, never by what a caller says of them."""

from __future__ import annotations

import base64
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_common.errors import InvalidRequest
from omni_common.request import Modality
from omni_gateway.chat.media import media_of_base64, media_of_url

HEADS = {
    b"\x89PNG\r\n\x1a\n": {Modality.IMAGE},
    b"\xff\xd8\xff\xe0": {Modality.IMAGE},
    b"RIFF\0\0\0\0WEBPVP8 ": {Modality.IMAGE},
    b"GIF89a": {Modality.IMAGE},
    b"RIFF\0\0\0\0WAVEfmt ": {Modality.AUDIO},
    b"fLaC": {Modality.AUDIO},
    b"OggS": {Modality.AUDIO},
    b"ID3\x04": {Modality.AUDIO},
    b"\xff\xfb\x90": {Modality.AUDIO},
    b"\xff\xf1\x50": {Modality.AUDIO},
    b"\0\0\0\x18ftypmp42": {Modality.AUDIO, Modality.VIDEO},
    b"\x1a\x45\xdf\xa3": {Modality.AUDIO, Modality.VIDEO},
    b"v=0\no=- 0 0 IN IP4 127.0.0.1": set[Modality](),  # SDP, which makes FFmpeg bind sockets
    b"#EXTM3U\nhttp://evil/": set[Modality](),
    b"<svg xmlns=": set[Modality](),
    b"just text": set[Modality](),
}
MEDIA = (Modality.IMAGE, Modality.AUDIO, Modality.VIDEO)


@pytest.mark.parametrize("modality", MEDIA)
@pytest.mark.parametrize("head", HEADS)
def test_a_file_is_taken_for_what_it_is(head: bytes, modality: Modality) -> None:
    text = base64.b64encode(head).decode()
    if modality in HEADS[head]:
        assert media_of_base64(modality, text, "here").data == head
    else:
        with pytest.raises(InvalidRequest) as caught:
            media_of_base64(modality, text, "here")
        assert (caught.value.param, caught.value.code) == ("here", "unsupported_format")


@pytest.mark.parametrize(
    "text", ["", "!!!!", "iVBORw0KGgo", "iVBO Rw0K", "iVBORw0K\n", "ï¿½", "data:audio/wav;base64,AAAA"]
)
def test_what_is_no_base64_of_anything_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        media_of_base64(Modality.IMAGE, text, "here")
    assert caught.value.code == "invalid_value"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a.png",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "/etc/passwd",
        "",
        "data:image/png,raw",
        "data:image/png;base64",
        "data:" + "x" * 300 + ";base64,iVBORw0KGgo=",
    ],
)
@pytest.mark.parametrize("modality", [Modality.IMAGE, Modality.VIDEO])
def test_a_url_that_holds_no_data_is_refused(url: str, modality: Modality) -> None:
    with pytest.raises(InvalidRequest) as caught:
        media_of_url(modality, url, "here")
    assert caught.value.code == f"invalid_{modality}_url"


@given(st.text(max_size=64), st.sampled_from(MEDIA))
def test_no_text_breaks_the_reader(text: str, modality: Modality) -> None:
    for read in (media_of_base64, media_of_url):
        with suppress(InvalidRequest):
            assert read(modality, text, "here").data
