"""Generation requests and the media in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from omni.common.v1 import request_pb2, tensor_pb2
from omni_common.errors import InvalidRequest
from omni_common.request import GenerationRequest, Media, Message, Modality, Part, Role, Text
from omni_common.rpc.contract import INLINE_LIMIT
from omni_common.rpc.convert.params import parse_params, render_params

FetchMedia = Callable[[tensor_pb2.DataRef], bytes | memoryview]
PutBlob = Callable[[bytes | memoryview], tensor_pb2.DataRef]

_ROLES = {
    Role.SYSTEM: request_pb2.ROLE_SYSTEM,
    Role.USER: request_pb2.ROLE_USER,
    Role.ASSISTANT: request_pb2.ROLE_ASSISTANT,
}
_ROLE_OF = {number: role for role, number in _ROLES.items()}


def render_request(request: GenerationRequest, put_blob: PutBlob | None) -> request_pb2.GenerationRequest:
    """Media up to 64 KiB ride in the message, and all of it where there is no `put_blob`."""
    return request_pb2.GenerationRequest(
        model=request.model,
        messages=[
            request_pb2.Message(
                role=_ROLES[message.role], parts=[_render_part(part, put_blob) for part in message.parts]
            )
            for message in request.messages
        ],
        params=render_params(request.params),
    )


def parse_request(message: request_pb2.GenerationRequest, media: FetchMedia | None) -> GenerationRequest:
    """`media` finds the blob of a reference; without it, media must be in the message itself."""
    if not message.messages:
        raise InvalidRequest("A request needs at least one message.", param="messages")
    return GenerationRequest(
        model=message.model,
        messages=tuple(_parse_messages(message.messages, media)),
        params=parse_params(message.params),
    )


def _parse_messages(messages: Iterable[request_pb2.Message], media: FetchMedia | None) -> Iterable[Message]:
    for i, message in enumerate(messages):
        role = _ROLE_OF.get(message.role)
        if role is None:
            raise InvalidRequest("The role must be system, user or assistant.", param=f"messages[{i}].role")
        yield Message(
            role,
            tuple(
                _parse_part(part, media, part.param or f"messages[{i}].parts[{j}]")
                for j, part in enumerate(message.parts)
            ),
        )


def _render_part(part: Part, put_blob: PutBlob | None) -> request_pb2.Part:
    if isinstance(part, Text):
        return request_pb2.Part(text=part.text, param=part.param)
    media = _render_media(part.data, put_blob)
    match part.modality:
        case Modality.IMAGE:
            return request_pb2.Part(image=media, param=part.param)
        case Modality.AUDIO:
            return request_pb2.Part(audio=media, param=part.param)
        case Modality.VIDEO:
            return request_pb2.Part(video=media, param=part.param)
        case Modality.TEXT:
            raise ValueError("text is not a media file")


def _render_media(data: bytes | memoryview, put_blob: PutBlob | None) -> request_pb2.Media:
    if put_blob is None or len(data) <= INLINE_LIMIT:
        return request_pb2.Media(data=bytes(data))
    return request_pb2.Media(ref=put_blob(data))


def _parse_part(part: request_pb2.Part, media: FetchMedia | None, param: str) -> Part:
    match part.WhichOneof("content"):
        case "text":
            return Text(part.text, param)
        case "image":
            return Media(Modality.IMAGE, _parse_media(part.image, media, param), param)
        case "audio":
            return Media(Modality.AUDIO, _parse_media(part.audio, media, param), param)
        case "video":
            return Media(Modality.VIDEO, _parse_media(part.video, media, param), param)
        case None:
            raise InvalidRequest("A part must hold text, an image, audio or video.", param=param)


def _parse_media(message: request_pb2.Media, media: FetchMedia | None, param: str) -> bytes | memoryview:
    match message.WhichOneof("source"):
        case "data":
            return message.data
        case "ref" if media is not None:
            return media(message.ref)
        case "ref":
            raise InvalidRequest("A media file must be in the request itself here.", param=param)
        case None:
            raise InvalidRequest("The media file is missing.", param=param)
