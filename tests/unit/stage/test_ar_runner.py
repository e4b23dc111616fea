"""What a runner says of its prompts and caches, with a model that only remembers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from omni_common.request import GenerationParams, RequestKey, Sampling
from omni_stage.components.ar_runner import ArRunner, ArSequence, StepInput
from omni_stage.components.attention import Packed
from omni_stage.components.kv_cache import GrowingStore
from omni_stage.components.sampler import Sampler
from omni_stage.scheduler.ar_contract import Batch, CacheUse
from omni_stage.scheduler.contract import NewRequest, Outgoing

A, B = RequestKey("a"), RequestKey("b")
WIDTH = 4
TOKEN = 2 * WIDTH * 4  # bytes of its key and value


class Remembering(ArRunner[ArSequence, StepInput]):
    """A request's payload is the length of its prompt."""

    def make(self, request: NewRequest) -> ArSequence:
        assert isinstance(request.payload, int)
        sampler = Sampler(Sampling(), device=torch.device("cpu"), seen=[])
        return ArSequence(key=request.key, expected=8, sampler=sampler, max_tokens=request.payload)

    def before(self, sequence: ArSequence) -> StepInput:
        new = 1 if sequence.generated else sequence.max_tokens
        sequence.generated += 1
        return StepInput(torch.zeros(new, WIDTH), torch.zeros(3, new))

    def forward(self, inputs: Sequence[StepInput], packed: Packed) -> torch.Tensor:
        for span in packed.spans:
            new = torch.zeros(1, span.length, WIDTH)
            packed.store.append(span.sequence, 0, new, new)
        return torch.zeros(1, WIDTH)

    def after(
        self, sequences: Sequence[ArSequence], inputs: Sequence[StepInput], hidden: torch.Tensor
    ) -> Sequence[Outgoing]:
        return ()


def test_prompts_are_counted_once_and_caches_as_they_grow() -> None:
    runner = Remembering(GrowingStore(layers=1))
    for key, prompt in ((A, 5), (B, 3)):
        runner.open(NewRequest(key, GenerationParams(), prompt))
    assert runner.cache_use() == CacheUse()
    runner.execute(Batch(prefill=(A,), decode=()))
    assert (runner.prompt_tokens, runner.cache_use()) == (5, CacheUse(5, 8 * TOKEN))
    runner.execute(Batch(prefill=(B,), decode=(A,)))
    assert (runner.prompt_tokens, runner.cache_use()) == (3, CacheUse(6 + 3, 16 * TOKEN))
    runner.execute(Batch(prefill=(), decode=(A, B)))
    assert runner.prompt_tokens == 0
    runner.close(A)
    runner.close(B)
    assert runner.cache_use() == CacheUse()
