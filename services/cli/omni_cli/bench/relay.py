"""`omni bench relay`: where the time of one transfer between two pods goes."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping, Sequence
from math import ceil

import psutil
from rich.console import Console

from omni_cli.bench.journal import Journal, TransferKey
from omni_cli.bench.logs import LogsSince
from omni_cli.bench.pods import RunningPod, two_pods
from omni_cli.bench.profile import Profile, Round, parts_of, profile
from omni_cli.bench.tables import table_of
from omni_cli.bench.transfer import Ends, open_ends
from omni_cli.errors import CommandError
from omni_cli.launcher.ground import MIB
from omni_cli.launcher.plan import Wishes
from omni_cli.launcher.shape import fits_together
from omni_cli.launcher.transports import unusable
from omni_cli.top.tables import size_text
from omni_common.clock import monotonic
from omni_common.data_ref import checksum

# Before the first that counts: the relays connect, and lend each other space.
_WARM_UP = 3
# Small sizes are moved more often, or the kernel's count of CPU time, in hundredths of a second, says nothing.
_LEAST_BYTES = 256 * MIB
_MOST_ROUNDS = 4096
_PIECE = 1 * MIB  # of a tensor, on the wire
_WIDTH = 400

HOW = """
p50 and p99 are from the producer's call to the consumer's having a view of the tensor. That time has five parts, one
after the other, of which the medians are shown:
  hand-over     until the producer's relay had read the call
  credit wait   until it had space in the other arena
  wire          until the last byte was in the other arena, without the time for
  verification  the checksums that the other relay makes as the pieces come (made here, for the same bytes, and taken
                out of the time on the wire); 0 where the encryption does it
  arrival       until the consumer had it: the other relay's word, the consumer's event loop, its look at the slot
"known" is from the call to the producer's hearing that the tensor has arrived.
The clients and the relays' logs (level DEBUG, which costs some time after each transfer) tell these moments by the
machine's monotonic clock. Both clients are one process, and all share this machine's cores. CPU seconds per 10^9 bytes
are the kernel's, for the whole of each process."""


async def bench_relay(sizes: Sequence[int], rounds: int, wishes: Wishes, *, checksums: bool) -> None:
    """Measures transfers of each size, one at a time, and prints a table. Raises CommandError."""
    fits_together(wishes)
    for sentence in unusable(wishes.transports):
        raise CommandError(sentence)
    verifies = checksums and wishes.encryption not in {"tls", "aead"}
    async with (
        two_pods(wishes, max(sizes), checksums=checksums) as (here, there),
        open_ends(here, there) as ends,
    ):
        profiles = [await _measure(ends, here, there, size, rounds, verifies=verifies) for size in sizes]
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH, no_color=True)
    console.print(table_of(profiles))
    print(HOW)


async def _measure(
    ends: Ends, here: RunningPod, there: RunningPod, size: int, rounds: int, *, verifies: bool
) -> Profile:
    rounds = max(rounds, min(_MOST_ROUNDS, ceil(_LEAST_BYTES / size)))
    print(f"{size_text(size)}, {rounds} times", file=sys.stderr)
    slot, data = await ends.space(size)
    _fill(data)
    for _ in range(_WARM_UP):
        await ends.move(slot, size, expected=checksum(data))
    processes = [psutil.Process(here.pid), psutil.Process(there.pid), psutil.Process()]
    logs = LogsSince(here.log, there.log)
    before = [_cpu(process) for process in processes]
    seen: dict[TransferKey, Round] = {}
    for _ in range(rounds):
        moved = await ends.move(slot, size)
        seen[ends.transfer] = moved
    cpu = [_cpu(process) - spent for process, spent in zip(processes, before, strict=True)]
    verification = _verification(data) if verifies else 0.0
    ends.free(slot)
    return _profile(size, seen, await logs.until_both_tell_of(ends.transfer), verification, cpu)


def _profile(
    size: int, seen: Mapping[TransferKey, Round], journal: Journal, verification: float, cpu: Sequence[float]
) -> Profile:
    parts = [parts_of(moved, journal.pushed[key], journal.caught[key], verification) for key, moved in seen.items()]
    transports = sorted({journal.pushed[key].transport for key in seen})
    return profile(size, "+".join(transports), list(seen.values()), parts, cpu)


def _fill(data: memoryview) -> None:
    """With bytes that no two pieces have in common, as good as random for whoever would compress or cache them."""
    block = random.randbytes(MIB + 61)  # noqa: S311 -- no secret
    for start in range(0, data.nbytes, len(block)):
        stretch = data[start : start + len(block)]
        stretch[:] = block[: stretch.nbytes]


def _verification(data: memoryview) -> float:
    """What a relay spends on it: each piece is verified when it has just been written, from the processor's cache."""
    scratch = memoryview(bytearray(_PIECE))
    seconds = 0.0
    for start in range(0, data.nbytes, _PIECE):
        piece = data[start : start + _PIECE]
        written = scratch[: piece.nbytes]
        written[:] = piece
        begun = monotonic()
        checksum(written)
        seconds += monotonic() - begun
    return seconds


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
