"""Any other rank: it does to its own caches what rank 0 did to its, and takes part in each of its forwards."""

from __future__ import annotations

import torch

from omni_stage.components.attention import Packed, Span
from omni_stage.components.kv_cache import KvStore
from omni_stage.components.pair_group import GroupFailed
from omni_stage.components.tensor_parallel.group import RankGroup
from omni_stage.components.tensor_parallel.leader import Forward
from omni_stage.components.tensor_parallel.message import decode, places
from omni_stage.components.tensor_parallel.mirrored_store import repeat
from omni_stage.components.tensor_parallel.rows import unpack
from omni_stage.tensor_parallel.rank import Following, RankFailed


def follow(following: Following, group: RankGroup, store: KvStore, forward: Forward, device: torch.device) -> None:
    """Until rank 0 has ended. A fault ends this process, and by that the others. Raises RankFailed."""
    try:
        _obey(following, group, store, forward, device)
    except GroupFailed as error:
        raise RankFailed(f"The group of ranks {error}.") from error


def _obey(following: Following, group: RankGroup, store: KvStore, forward: Forward, device: torch.device) -> None:
    with torch.inference_mode():
        while (data := following.listen()) is not None:
            message = decode(data)
            for operation in message.operations:
                repeat(store, operation)
            if not message.spans:
                continue
            _, length = places(message.tensors)
            shared = torch.empty(length, dtype=torch.uint8, device=device)
            group.share(shared)
            spans = [Span(sequence, tokens) for sequence, tokens in message.spans]
            forward(unpack(shared, message.tensors), Packed(store, spans))
