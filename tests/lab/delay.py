"""Delays the packets that iptables queues: `python -m tests.lab.delay SECONDS JITTER`, on the node they arrive at.

Speaks netfilter's queue protocol itself (linux/netfilter/nfnetlink_queue.h), so it needs no library. Only the packets'
numbers come here, their bytes stay in the kernel. Ends when its standard input does: with the process that started it.
"""

from __future__ import annotations

import heapq
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator

QUEUE = 0
NETLINK_NETFILTER = 12
_PACKET, _VERDICT, _CONFIG = 0x300, 0x301, 0x302
_REQUEST, _ACK = 1, 4
_ERROR = 2
_COMMAND, _PARAMETERS, _MAX_LENGTH, _MASK, _FLAGS = 1, 2, 3, 4, 5
_PACKET_HEAD, _VERDICT_HEAD = 1, 2
_BIND = 1
_COPY_META = 1
# Accept what does not fit the queue instead of losing it; leave packets as large as segmentation offload makes them.
_FAIL_OPEN, _KEEP_LARGE = 1, 4
_ACCEPT = 1
# Packets that wait at a time.
_LENGTH = 65536
_NETLINK_HEAD = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")


def _attribute(kind: int, data: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % 4)


def _message(kind: int, flags: int, *attributes: bytes) -> bytes:
    # The queue's number is in network order, as all of netfilter's own fields are.
    body = struct.pack("!BBH", 0, 0, QUEUE) + b"".join(attributes)
    return _NETLINK_HEAD.pack(_NETLINK_HEAD.size + len(body), kind, _REQUEST | flags, 0, 0) + body


def _messages(datagram: bytes) -> Iterator[tuple[int, bytes]]:
    """The kinds and bodies of the netlink messages in what one receive gave."""
    while datagram:
        length, kind, *_ = _NETLINK_HEAD.unpack_from(datagram)
        yield kind, datagram[_NETLINK_HEAD.size : length]
        datagram = datagram[(length + 3) // 4 * 4 :]


def _packet_number(body: bytes) -> int:
    rest = body[4:]
    while rest:
        length, kind = _ATTRIBUTE.unpack_from(rest)
        if kind == _PACKET_HEAD:
            return int(struct.unpack_from("!I", rest, _ATTRIBUTE.size)[0])
        rest = rest[(length + 3) // 4 * 4 :]
    raise ValueError("a packet without a head")


def _accept(number: int) -> bytes:
    return _message(_VERDICT, 0, _attribute(_VERDICT_HEAD, struct.pack("!II", _ACCEPT, number)))


def _configure(queue: socket.socket, *attributes: bytes) -> None:
    """Raises OSError if the kernel refuses."""
    queue.send(_message(_CONFIG, _ACK, *attributes))
    for kind, body in _messages(queue.recv(1 << 16)):
        if kind == _ERROR and (code := -struct.unpack_from("=i", body)[0]):
            raise OSError(code, "netfilter refuses the queue")


def _open_queue() -> socket.socket:
    queue = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    queue.bind((0, 0))
    queue.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    _configure(queue, _attribute(_COMMAND, struct.pack("!BBH", _BIND, 0, socket.AF_INET)))
    _configure(
        queue,
        _attribute(_PARAMETERS, struct.pack("!IB", 0, _COPY_META)),
        _attribute(_MAX_LENGTH, struct.pack("!I", _LENGTH)),
        _attribute(_MASK, struct.pack("!I", _FAIL_OPEN | _KEEP_LARGE)),
        _attribute(_FLAGS, struct.pack("!I", _FAIL_OPEN | _KEEP_LARGE)),
    )
    return queue


def _run(queue: socket.socket, seconds: float, jitter: float) -> None:
    waiting: list[tuple[float, int]] = []
    while True:
        pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        ready, _, _ = select.select([queue, sys.stdin], [], [], pause)
        if sys.stdin in ready:
            return
        now = time.monotonic()
        if queue in ready:
            for kind, body in _messages(queue.recv(1 << 16)):
                if kind == _PACKET:
                    due = now + max(0.0, seconds + random.uniform(-jitter, jitter))  # noqa: S311  # no secret
                    heapq.heappush(waiting, (due, _packet_number(body)))
        while waiting and waiting[0][0] <= now:
            queue.send(_accept(heapq.heappop(waiting)[1]))


def main() -> None:
    with _open_queue() as queue:
        print("ready", flush=True)
        _run(queue, float(sys.argv[1]), float(sys.argv[2]))


if __name__ == "__main__":
    main()
