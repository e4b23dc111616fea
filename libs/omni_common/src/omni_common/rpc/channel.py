"""Channels to peers: one per address, long-lived (opening and closing them leaks native memory, cancelling streams
on them does too)."""

from __future__ import annotations

import grpc.aio

from omni_common.component import Component
from omni_common.rpc.contract import MAX_MESSAGE
from omni_common.rpc.tls import MeshTls

KEEPALIVE = 5.0
"""Seconds without traffic after which a peer is asked whether it lives, and that it has to answer. Together they bound
how long a vanished host goes unseen; a killed process is seen at once."""


def keepalive_options() -> list[tuple[str, int]]:
    """The same for both ends, so that neither takes the other's pings for abuse."""
    return [
        ("grpc.keepalive_time_ms", int(KEEPALIVE * 1000)),
        ("grpc.keepalive_timeout_ms", int(KEEPALIVE * 1000)),
        ("grpc.http2.ping_timeout_ms", int(KEEPALIVE * 1000)),  # else 60 s for a process that hangs on a live host
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", int(KEEPALIVE * 500)),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", int(KEEPALIVE * 500)),
    ]


def open_channel(
    address: str, *, max_message: int = MAX_MESSAGE, tls: MeshTls | None = None, peer: Component = Component.COORDINATOR
) -> grpc.aio.Channel:
    """A channel to host:port. It connects when first used; the caller closes it.

    With `tls`, the peer's certificate has to be that of the component `peer`, and this end shows the one that is in the
    files now: who keeps a channel makes another one when they have changed.
    """
    options = [
        *keepalive_options(),
        ("grpc.max_send_message_length", max_message),
        ("grpc.max_receive_message_length", max_message),
        ("grpc.enable_retries", 0),  # retries belong to the coordinator; two layers of them multiply
        ("grpc.enable_http_proxy", 0),  # peers are in the same network, whatever the environment says
        ("grpc.use_local_subchannel_pool", 1),  # one connection per channel: a dead one is this channel's alone
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
    ]
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options)
    named = ("grpc.ssl_target_name_override", str(peer))  # by its role: the address is a pod's, which no CA knows
    return grpc.aio.secure_channel(address, tls.channel_credentials(), options=[*options, named])
