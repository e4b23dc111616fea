"""Tensors on their way: from stage to stage, through the arenas, and between pods."""

from __future__ import annotations

from omni_cli.dashboards.panels import Board, Kind, Panel, Query, Row, p95
from omni_cli.dashboards.promql import rate, total

_EDGE = ("pipeline", "edge")
_WAY = (*_EDGE, "transport")
_NAME = "{{pipeline}} {{edge}} {{transport}}"

EDGE = Row(
    "Edges, as the sending stage counts them",
    (
        Panel(
            title="Bytes",
            says="Of tensors, by edge and transport.",
            queries=(Query(rate("omni_edge_bytes_total", *_WAY), _NAME),),
            unit="Bps",
            stacked=True,
        ),
        Panel(
            title="Tensors",
            says="Sent, by edge and transport.",
            queries=(Query(rate("omni_edge_transfers_total", *_WAY), _NAME),),
            unit="ops",
        ),
        Panel(
            title="Time on the way, p95",
            says="From a tensor's hand-over to the relay to the receiver's word that it has it.",
            queries=p95("omni_edge_transfer_seconds", *_WAY),
            unit="s",
        ),
        Panel(
            title="Wait for room, p95",
            says="How long a tensor waited for room in an arena before it could leave.",
            queries=p95("omni_edge_credit_wait_seconds", *_EDGE),
            unit="s",
        ),
        Panel(
            title="Sent again",
            says="By the next transport, after one had failed.",
            queries=(Query(rate("omni_edge_retries_total", *_WAY), _NAME),),
            unit="ops",
        ),
        Panel(
            title="Transport of large tensors",
            says="Which way each edge has, and why it is not a faster one.",
            queries=(Query(total("omni_edge_transport_info", *_WAY, "reason"), _NAME),),
            kind=Kind.TABLE,
        ),
        Panel(
            title="Copies that need not be",
            says="By why: `device` is a GPU's tensor that went by the host.",
            queries=(Query(rate("omni_tensor_copies_total", "pipeline", "reason"), "{{pipeline}} {{reason}}"),),
            unit="ops",
        ),
        Panel(
            title="Tensors that were not what was sent",
            says="Lost, or damaged: each one failed a request, and none should be.",
            queries=(Query(rate("omni_checksum_failures_total", "pipeline"), "{{pipeline}}"),),
            unit="ops",
        ),
    ),
)

ARENA = Row(
    "Arenas, as the stages see their shares",
    (
        Panel(
            title="In use",
            says="Bytes that are leased to tensors.",
            queries=(Query(total("omni_arena_in_use_bytes", "pipeline", "stage"), "{{pipeline}} {{stage}}"),),
            unit="bytes",
        ),
        Panel(
            title="Held",
            says="Bytes of the extents that the replicas have from the relay, in use or not.",
            queries=(Query(total("omni_arena_held_bytes", "pipeline", "stage"), "{{pipeline}} {{stage}}"),),
            unit="bytes",
        ),
        Panel(
            title="No room, and releases that never came",
            says="Tensors that had to wait because the arena was full, and slots that were taken back after their "
            "lease because the receiver had not given them back.",
            queries=(
                Query(rate("omni_arena_full_total", "pipeline"), "{{pipeline}} full"),
                Query(rate("omni_arena_reclaimed_total", "pipeline"), "{{pipeline}} taken back"),
            ),
            unit="ops",
        ),
    ),
)

RELAY = Row(
    "Relays",
    (
        Panel(
            title="Arena by holder",
            says="Bytes of the pods' arenas: free, lent to a stage or to another pod's relay, or revoked.",
            queries=(Query(total("omni_relay_arena_bytes", "pipeline", "holder"), "{{pipeline}} {{holder}}"),),
            unit="bytes",
            stacked=True,
        ),
        Panel(
            title="Bytes between pods",
            says="Of tensors, by direction and transport.",
            queries=(
                Query(
                    rate("omni_relay_bytes_total", "pipeline", "direction", "transport"),
                    "{{pipeline}} {{direction}} {{transport}}",
                ),
            ),
            unit="Bps",
        ),
        Panel(
            title="Transfers by outcome",
            says="Tensors moved between pods, by how that ended.",
            queries=(Query(rate("omni_relay_transfers_total", "direction", "outcome"), "{{direction}} {{outcome}}"),),
            unit="ops",
        ),
        Panel(
            title="Time on the wire, p95",
            says="From a push's arrival at the relay to the other relay's word.",
            queries=p95("omni_relay_transfer_seconds", *_WAY),
            unit="s",
        ),
        Panel(
            title="Wait for the other pod's room, p95",
            says="How long a push waited for space that the other relay grants.",
            queries=p95("omni_relay_credit_wait_seconds", *_EDGE),
            unit="s",
        ),
        Panel(
            title="Sent again, and damaged",
            says="Pieces or tensors sent again by reason, and pieces that came damaged.",
            queries=(
                Query(rate("omni_relay_retries_total", "transport", "reason"), "{{transport}} again: {{reason}}"),
                Query(rate("omni_relay_checksum_failures_total", "transport"), "{{transport}} damaged"),
            ),
            unit="ops",
        ),
        Panel(
            title="Connected relays",
            says="Of other pods, by direction, transport, and why it is that one.",
            queries=(
                Query(
                    total("omni_relay_peers", "direction", "transport", "reason"),
                    "{{direction}} {{transport}} {{reason}}",
                ),
            ),
        ),
        Panel(
            title="Connected stages",
            says="Of the relays' own pods.",
            queries=(Query(total("omni_relay_stages", "pipeline"), "{{pipeline}}"),),
        ),
        Panel(
            title="Refused connections",
            says="Relays whose certificate, version or behaviour is wrong.",
            queries=(Query(rate("omni_relay_refused_peers_total", "reason"), "{{reason}}"),),
            unit="ops",
        ),
        Panel(
            title="Taken back from the dead",
            says="Bytes of an arena whose producer died.",
            queries=(Query(rate("omni_relay_reclaimed_bytes_total", "holder"), "{{holder}}"),),
            unit="Bps",
        ),
    ),
)

EDGES = Board(
    "omni-edges",
    "omni / Edges and relay",
    "Tensors on their way: bytes, time, waits, transports, arenas and what went wrong.",
    (EDGE, ARENA, RELAY),
)
