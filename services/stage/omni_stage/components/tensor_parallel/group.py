"""The ranks' collectives: NCCL between GPUs, gloo where there are none.

Made of torch's process groups without its global state, as the pairs are: see `components.pair_group`.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist

from omni_common.clock import monotonic
from omni_common.deadline import Deadline
from omni_stage.components.pair_group import GroupFailed, left, meet_at, patient_nccl, said
from omni_stage.tensor_parallel.rank import Rank

# Seconds for the others to import what they need, on a machine that has much else to do. Of one that dies meanwhile
# rank 0 hears otherwise.
_MEETING = 600.0


class RankGroup(Protocol):
    """One rank's end. One thread uses it, but for `interrupt`; after GroupFailed nothing may follow."""

    def add(self, term: torch.Tensor) -> None:
        """Makes it the sum of all ranks' terms. Raises GroupFailed."""

    def share(self, data: torch.Tensor) -> None:
        """Fills it with what rank 0 has in it. Raises GroupFailed."""

    def settle(self) -> None:
        """Returns when all that was begun is over; after an interrupt it is over, and its results are nothing."""

    def interrupt(self) -> None:
        """From any thread: what is under way is in vain."""


class GlooRanks:
    """Over TCP on this machine. A rank that dies is noticed at once, one that hangs when the time is over."""

    def __init__(self, rank: Rank, deadline: Deadline) -> None:
        options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        options._devices = [dist.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
        options._timeout = left(deadline)
        with said("did not come about"):
            store = meet_at(rank.meeting, rank.size, deadline)
            self._group: Any = dist.ProcessGroupGloo(store, rank.number, rank.size, options)
        self._adding, self._sharing = dist.AllreduceOptions(), dist.BroadcastOptions()
        self._adding.timeout = self._sharing.timeout = timedelta(seconds=rank.timeout)

    def add(self, term: torch.Tensor) -> None:
        with said("broke"):
            self._group.allreduce([term], self._adding).wait()

    def share(self, data: torch.Tensor) -> None:
        with said("broke"):
            self._group.broadcast([data], self._sharing).wait()

    def settle(self) -> None:
        """It has been waited for."""

    def interrupt(self) -> None:
        """The others have ended by then, which gloo notices by itself."""


class NcclRanks:
    """Between as many GPUs. The thread that makes it must have chosen the device.

    The collectives are work of the GPU's stream like any other, so a rank that is gone shows in `settle` only, and
    `interrupt` ends that wait.
    """

    def __init__(self, rank: Rank, device: torch.device, deadline: Deadline) -> None:
        patient_nccl(deadline)
        with said("did not come about"):
            store = meet_at(rank.meeting, rank.size, deadline)
            self._group: Any = dist.ProcessGroupNCCL(store, rank.number, rank.size, dist.ProcessGroupNCCL.Options())
            self._device = device
            self._make_sure(rank)

    def add(self, term: torch.Tensor) -> None:
        with said("broke"):
            self._group.allreduce([term]).wait()  # has the stream wait, not this thread

    def share(self, data: torch.Tensor) -> None:
        with said("broke"):
            self._group.broadcast(data, 0).wait()

    def settle(self) -> None:
        with said("broke"):
            torch.cuda.current_stream(self._device).synchronize()

    def interrupt(self) -> None:
        with suppress(RuntimeError):  # it cannot be ended, as this process is about to
            self._group.abort()

    def _make_sure(self, rank: Rank) -> None:
        """The first collective makes the communicator."""
        first = torch.ones(1, device=self._device)
        self.add(first)
        if int(first) != rank.size:
            raise GroupFailed(f"added {rank.size} ones up to {int(first)}")


class RanksApart(ValueError):
    """The ranks have not found each other. A sentence."""


def meet(rank: Rank, device: torch.device) -> RankGroup:
    """Waits for the other ranks. Raises RanksApart."""
    deadline = Deadline.after(_MEETING, monotonic)
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)
            return NcclRanks(rank, device, deadline)
        return GlooRanks(rank, deadline)
    except GroupFailed as error:
        raise RanksApart(f"The group of its {rank.size} ranks {error}.") from error
