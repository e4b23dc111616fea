"""The command `omni up`: its options, and what they make of a mesh."""

from __future__ import annotations

from typing import Annotated

import typer

from omni_cli import up as running
from omni_cli.launcher.plan import Encryption, Wishes
from omni_cli.run import said_plainly, until_stopped
from omni_cli.serving import choose
from omni_cli.wishes import (
    parse_device,
    parse_groups,
    parse_numbers,
    parse_otlp,
    parse_share,
    parse_transports,
)

# Text, speech and hearing: what a first mesh can show.
DEFAULT_PIPELINES = ("qwen3-omni", "piper", "whisper")

Several = list[str] | None
Verbose = Annotated[bool, typer.Option(help="Print what every process logs.")]
_Pipelines = Annotated[
    Several,
    typer.Option(
        metavar="FAMILY",
        help="A model family to serve, as `omni models` lists them; repeatable. "
        f"Default: {', '.join(DEFAULT_PIPELINES)}.",
    ),
]
_Weights = Annotated[
    Several,
    typer.Option(
        metavar="[PIPELINE=]WEIGHTS",
        help="A folder with a checkpoint, or its id on the hub; repeatable. "
        "Without PIPELINE, it is for the one that has no weights yet.",
    ),
]
_Host = Annotated[str, typer.Option(help="The address to listen on.")]
_Port = Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")]
_Replicas = Annotated[
    Several, typer.Option(metavar="[PIPELINE/]STAGE=N", help="More than one process for a stage; repeatable.")
]
_Spread = Annotated[
    Several,
    typer.Option(metavar="[PIPELINE/]STAGE=N", help="Spread each replica of a stage's model over N GPUs; repeatable."),
]
_Colocate = Annotated[
    Several, typer.Option(metavar="STAGE,STAGE", help="Stages of one pipeline that share a pod; repeatable.")
]
_Together = Annotated[
    Several,
    typer.Option(metavar="STAGE,STAGE", help="Stages of one pipeline that share a process, and so a pod; repeatable."),
]
_Apart = Annotated[
    bool, typer.Option("--apart", help="Every stage in a pod of its own: all tensors go from relay to relay.")
]
_Coordinators = Annotated[int, typer.Option(min=1, max=8, help="How many coordinators to run.")]
_Device = Annotated[str, typer.Option(help="Where the model's stages compute: auto, cpu, cuda, cuda:1.")]
_Arena = Annotated[str, typer.Option(metavar="SIZE", help="Shared memory for each stage, and once more for each pod.")]
_Encryption = Annotated[
    Encryption | None,
    typer.Option(
        help="How relays protect what goes from pod to pod, and with it TLS for gRPC; certificates are made.",
        show_default="none",
    ),
]
_Transports = Annotated[
    str,
    typer.Option(
        metavar="NAME,NAME", help="How relays may move tensors, the preferred way first: tcp, ucx, nixl. Default: tcp."
    ),
]
_Otlp = Annotated[
    str, typer.Option(metavar="HOST:PORT", help="Send traces to this collector, by OTLP over gRPC. Default: none.")
]


def add_to(app: typer.Typer) -> None:
    app.command()(up)


def up(
    *,
    pipeline: _Pipelines = None,
    model: _Weights = None,
    host: _Host = "127.0.0.1",
    port: _Port = 8000,
    replicas: _Replicas = None,
    tp: _Spread = None,
    colocate: _Colocate = None,
    together: _Together = None,
    apart: _Apart = False,
    coordinators: _Coordinators = 1,
    device: _Device = "auto",
    arena: _Arena = "64MiB",
    encryption: _Encryption = None,
    transports: _Transports = "",
    otlp: _Otlp = "",
    verbose: Verbose = False,
) -> None:
    """Run the mesh on this machine until Ctrl-C."""
    with said_plainly():
        wishes = Wishes(
            choose(pipeline or DEFAULT_PIPELINES, model or []),
            host=host,
            port=port,
            replicas=parse_numbers(replicas or [], "--replicas"),
            tp=parse_numbers(tp or [], "--tp"),
            colocate=parse_groups(colocate or [], "--colocate"),
            together=parse_groups(together or [], "--together"),
            apart=apart,
            coordinators=coordinators,
            device=parse_device(device),
            share=parse_share(arena),
            encryption=encryption,
            transports=parse_transports(transports),
            otlp=parse_otlp(otlp),
        )
        until_stopped(lambda: running.up(wishes, verbose=verbose))
