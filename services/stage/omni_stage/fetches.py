"""What a session's events refer to on the device of the stage before: it is opened there, or fetched, as soon as its
event has come. What cannot be had so is asked for, and comes as a blob."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from omni.common.v1.tensor_pb2 import DataRef, DeviceSlot
from omni.stage.v1 import stage_pb2
from omni_common.deadline import Deadline
from omni_common.request import RequestKey
from omni_common.rpc import convert
from omni_common.tensor import DeviceMemory
from omni_stage.core.device_way import Reach
from omni_stage.devices import Catcher, DeviceSide
from omni_stage.loop import LoopThread

Reply = stage_pb2.DeliverReply


@dataclass(slots=True)
class _Fetch:
    key: RequestKey
    slot: DeviceSlot
    wanted: bool = True

    @property
    def in_place(self) -> bool:
        return self.slot.HasField("cuda_ipc")


class Fetches:
    """One session's, by the numbers of their transfers; they are bounded by the sender's loans. Belongs to the event
    loop.

    `arrived` is called with the request of a tensor that is here. `fail` is, once the stream has ended, with each one
    whose tensors do not come any more, or lie in the memory of a process that is gone: nobody may look at them then.
    """

    def __init__(
        self,
        side: DeviceSide,
        loop: LoopThread,
        *,
        reply: Callable[[Reply], None],
        arrived: Callable[[RequestKey], None],
        fail: Callable[[RequestKey], None],
    ) -> None:
        self._side = side
        self._loop = loop
        self._reply = reply
        self._arrived = arrived
        self._fail = fail
        self._catcher: Catcher | None = None
        self._lost = False
        self._under_way: dict[int, _Fetch] = {}
        self._here: dict[int, tuple[RequestKey, DeviceMemory]] = {}
        self._asked: dict[int, RequestKey] = {}
        self._open: dict[int, RequestKey] = {}

    def __len__(self) -> int:
        """What is under way, unread, or open."""
        return len(self._under_way) + len(self._here.keys() | self._open.keys())

    @property
    def reach(self) -> Reach:
        return self._side.reach

    def begin(self, key: RequestKey, refs: Sequence[DataRef], deadline: Deadline) -> None:
        """Has them come; those that were begun before go on."""
        for ref in refs:
            number = ref.device.transfer.number
            if not (number in self._under_way or number in self._here or number in self._asked):
                self._begin(key, ref, deadline)

    def came_as_blob(self, number: int) -> None:
        self._asked.pop(number, None)

    # As the receiver's `DeviceTensors`.

    def has(self, slot: DeviceSlot) -> bool:
        return slot.transfer.number in self._here

    def take(self, slot: DeviceSlot) -> DeviceMemory | None:
        self._asked.pop(slot.transfer.number, None)
        _, memory = self._here.pop(slot.transfer.number, (None, None))
        return memory

    def give_up(self, slot: DeviceSlot) -> None:
        number = slot.transfer.number
        if number in self._under_way:
            self._cancel(number)
        elif number in self._here:
            del self._here[number]
        elif number in self._asked:
            del self._asked[number]
        elif number not in self._open:
            self._catch(slot).decline(slot)
            self._release(number)

    # The end.

    def drop(self, key: RequestKey) -> None:
        """The request is over."""
        for number in [number for number, fetch in self._under_way.items() if fetch.key == key]:
            self._cancel(number)
        for number in [number for number, (of, _) in self._here.items() if of == key]:
            del self._here[number]
        for number in [number for number, of in self._asked.items() if of == key]:
            del self._asked[number]

    def lose(self) -> None:
        """The stream has ended. A sender that leaves by rights waits until all it has lent is back."""
        self._lost = True
        if self._catcher is not None:
            self._catcher.close()
        for key in {*self._asked.values(), *self._open.values()}:
            self._fail(key)

    # Inside.

    def _begin(self, key: RequestKey, ref: DataRef, deadline: Deadline) -> None:
        slot = DeviceSlot()
        slot.CopyFrom(ref.device)
        number = slot.transfer.number
        self._under_way[number] = _Fetch(key, slot)
        self._catch(slot).fetch(
            ref,
            deadline,
            partial(self._loop.call, self._ended, number),
            partial(self._loop.call, self._released, number),
        )

    def _catch(self, slot: DeviceSlot) -> Catcher:
        """All that comes on a stream comes from one process."""
        if self._catcher is None:
            self._catcher = self._side.catcher(slot.transfer.source)
        return self._catcher

    def _cancel(self, number: int) -> None:
        self._under_way[number].wanted = False
        if self._catcher is not None:
            self._catcher.cancel(number)

    def _ended(self, number: int, memory: DeviceMemory | None) -> None:
        fetch = self._under_way.pop(number)
        if memory is not None:
            self._come(number, fetch, memory)
        elif fetch.wanted:
            self._ask(number, fetch.key)
        else:
            self._release(number)

    def _come(self, number: int, fetch: _Fetch, memory: DeviceMemory) -> None:
        if fetch.in_place:
            self._open[number] = fetch.key
            self._say(fetch.key, opened=number)
        else:
            self._release(number)
        if self._lost and fetch.in_place:
            self._fail(fetch.key)
        elif fetch.wanted:
            self._here[number] = (fetch.key, memory)
            self._arrived(fetch.key)

    def _ask(self, number: int, key: RequestKey) -> None:
        if self._lost:
            self._fail(key)
            return
        self._asked[number] = key
        self._say(key, wanted=number)

    def _released(self, number: int) -> None:
        """The last view of what was opened is gone."""
        self._open.pop(number, None)
        self._release(number)

    def _release(self, number: int) -> None:
        self._reply(Reply(release=stage_pb2.ReleaseReply(transfers=[number])))

    def _say(self, key: RequestKey, *, opened: int | None = None, wanted: int | None = None) -> None:
        fetch = stage_pb2.FetchReply(
            key=convert.render_key(key),
            opened=[] if opened is None else [opened],
            wanted=[] if wanted is None else [wanted],
        )
        self._reply(Reply(fetch=fetch))
