"""What stands in a prompt in the place of tokens' embeddings: pictures, films and sound.

Two prompts with the same ids and positions differ in nothing else, so a block may be reused only where these rows are
the same, byte for byte, with the deepstack rows that the first layers add to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from omni_common.tensor import Tensor
from omni_stage.components.device_memory import bytes_of
from omni_stage.components.prefix_cache import BLOCK_TOKENS
from omni_stage.components.tensors import to_torch
from omni_stage.core.prefix_index import Contents
from omni_stage.models.qwen3_omni.payload_types import ImageFeatures, ThinkerInput


def media_of(ids: torch.Tensor, thinker: Any) -> torch.Tensor:
    """Marks the positions of pictures, films and sound."""
    return torch.isin(ids, torch.tensor([thinker.image_token_id, thinker.video_token_id, thinker.audio_token_id]))


def splice(
    embeds: torch.Tensor, ids: torch.Tensor, source: ThinkerInput, thinker: Any
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Puts the media's rows in their places. Of pictures and films: where they are [n], and their deepstack rows
    [d, v, H] in the order of the prompt."""
    image, audio = source.image, source.audio
    if audio is not None:
        embeds[ids == thinker.audio_token_id] = to_torch(audio.audio, embeds.device).to(embeds.dtype)
    if image is None:
        return None, None
    pictures, videos = ids == thinker.image_token_id, ids == thinker.video_token_id
    return pictures | videos, _spread(embeds, image, pictures, videos)


def spliced_digests(
    source: ThinkerInput, ids: torch.Tensor, thinker: Any, digest: Callable[[Contents], bytes]
) -> Sequence[bytes]:
    """For each block of the prompt, the shorter last one included, a digest of its rows; empty where it has none."""
    parts: list[list[memoryview | bytes]] = [[] for _ in range(-(-len(ids) // BLOCK_TOKENS))]
    image, audio = source.image, source.audio
    if image is not None:
        _cut(parts, b"image", ids == thinker.image_token_id, _layers(image.image, image.image_deepstack))
        _cut(parts, b"video", ids == thinker.video_token_id, _layers(image.video, image.video_deepstack))
    if audio is not None:
        _cut(parts, b"audio", ids == thinker.audio_token_id, _layers(audio.audio, None))
    return [digest(part) if part else b"" for part in parts]


def _layers(rows: Tensor | None, deepstack: Tensor | None) -> Sequence[torch.Tensor]:
    """The rows themselves, then those of each deepstack layer: [n, H] each, on the CPU."""
    if rows is None:
        return ()
    return [to_torch(rows), *(() if deepstack is None else to_torch(deepstack))]


def _cut(
    parts: Sequence[list[memoryview | bytes]], kind: bytes, places: torch.Tensor, layers: Iterable[torch.Tensor]
) -> None:
    """Gives each block its rows: they come in the order of the places that they take."""
    counts = [int(piece.sum()) for piece in torch.split(places, BLOCK_TOKENS)]
    for rows in layers:
        for part, own in zip(parts, torch.split(rows, counts), strict=True):
            if len(own):
                part += [kind, bytes_of(own).numpy().data]


def _spread(
    embeds: torch.Tensor, image: ImageFeatures, pictures: torch.Tensor, videos: torch.Tensor
) -> torch.Tensor | None:
    """Puts the rows of pictures and videos in their places; their deepstack rows in the order of the prompt."""
    visual = pictures | videos
    deepstack: torch.Tensor | None = None
    for rows, deep, places in (
        (image.image, image.image_deepstack, pictures),
        (image.video, image.video_deepstack, videos),
    ):
        if rows is None or deep is None:
            continue
        embeds[places] = to_torch(rows, embeds.device).to(embeds.dtype)
        layers = to_torch(deep, embeds.device).to(embeds.dtype)
        if deepstack is None:
            deepstack = embeds.new_zeros(layers.shape[0], int(visual.sum()), embeds.shape[1])
        deepstack[:, places[visual]] = layers
    return deepstack
