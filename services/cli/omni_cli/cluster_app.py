"""The commands of `omni` for a mesh that runs elsewhere: their options, their exit codes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from omni_cli.capacity.show import Target
from omni_cli.capacity.show import plan as planning
from omni_cli.cluster.access import DEFAULT_RELEASE, Where
from omni_cli.doctor.show import doctor as examining
from omni_cli.errors import CommandError
from omni_cli.run import said_plainly, to_the_end
from omni_cli.top.source import open_source
from omni_common.settings import parse_duration

DEFAULT_URL = "http://127.0.0.1:8000/v1"
_ON_CLUSTER = "Kubernetes"

Kubernetes = Annotated[
    bool, typer.Option("--kubernetes", help="Look at a release on a cluster.", rich_help_panel=_ON_CLUSTER)
]
Namespace = Annotated[
    str, typer.Option("--namespace", "-n", help="Default: the context's own.", rich_help_panel=_ON_CLUSTER)
]
Release = Annotated[str, typer.Option(help="The Helm release. Default: omni.", rich_help_panel=_ON_CLUSTER)]
Kubeconfig = Annotated[
    Path | None, typer.Option(help="Default: KUBECONFIG, ~/.kube/config.", rich_help_panel=_ON_CLUSTER)
]
Context = Annotated[str, typer.Option(help="A context of the kubeconfig.", rich_help_panel=_ON_CLUSTER)]


def where(kubernetes: bool, namespace: str, release: str, kubeconfig: Path | None, context: str) -> Where | None:
    """None where nothing speaks of a cluster."""
    if not (kubernetes or namespace or release or kubeconfig or context):
        return None
    return Where(namespace, release or DEFAULT_RELEASE, kubeconfig, context)


def add_to(app: typer.Typer) -> None:
    for command in (verify, plan, doctor):
        app.command()(command)


def verify(
    url: Annotated[str, typer.Argument(envvar="OMNI_URL", help="Where the mesh answers.")] = DEFAULT_URL,
    *,
    ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The CA of the mesh's certificate; default: OMNI_CA_FILE.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file with the API key; default: OMNI_API_KEY.")
    ] = None,
    server_name: Annotated[
        str, typer.Option(metavar="NAME", help="Whom the certificate is for, where that is not the host of URL.")
    ] = "",
    model: Annotated[str | None, typer.Option(help="Try this model only; default: every one that is served.")] = None,
    timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="How long each trial may take, such as 90s or 2m.")
    ] = "120s",
) -> None:
    """Speak to every model of a running mesh, and check that it answers: text, and speech that is not silent."""
    from omni_cli.conversation import open_client
    from omni_cli.verify.show import verify as verifying

    with said_plainly():
        seconds = parse_seconds(timeout, "--timeout")
        key = read_key(api_key_file)
        connect = partial(open_client, with_version(url), ca=ca, api_key=key, server_name=server_name)
        to_the_end(lambda: verifying(connect, model=model, timeout=seconds))


def plan(
    urls: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[URL]...", help="Where processes serve metrics; default: those of your newest `omni up`."
        ),
    ] = None,
    *,
    requests_per_second: Annotated[float, typer.Option(min=0.001, max=1e6, help="The load to plan for.")],
    audio_seconds: Annotated[
        float | None,
        typer.Option(min=0.01, max=36_000, help="Of an answer, on average; default: as the measured ones."),
    ] = None,
    utilisation: Annotated[
        float, typer.Option(min=0.05, max=1.0, help="How much of a replica is used at most; the rest is for bursts.")
    ] = 0.7,
    pipeline: Annotated[str | None, typer.Option(help="Plan for this one only; default: every one seen.")] = None,
    over: Annotated[
        str, typer.Option(metavar="DURATION", help="Measure for so long; default: since the processes began.")
    ] = "",
    kubernetes: Kubernetes = False,
    namespace: Namespace = "",
    release: Release = "",
    kubeconfig: Kubeconfig = None,
    context: Context = "",
) -> None:
    """Say how many replicas each placement group needs for a load, from what the stages of a running mesh measured."""
    target = Target(requests_per_second, audio_seconds, utilisation)

    async def look_and_plan() -> None:
        async with open_source(urls or (), where(kubernetes, namespace, release, kubeconfig, context)) as source:
            await planning(source, target, pipeline=pipeline, over=parse_seconds(over, "--over") if over else 0.0)

    with said_plainly():
        to_the_end(look_and_plan)


def doctor(
    *,
    namespace: Namespace = "",
    release: Release = "",
    kubeconfig: Kubeconfig = None,
    context: Context = "",
) -> None:
    """Say what is wrong with a release on a cluster: its pods, events, nodes, certificates and metrics.

    Exit code 0: nothing. 1: something. 2: no cluster, or no such release, is reached.
    """
    place = Where(namespace, release or DEFAULT_RELEASE, kubeconfig, context)
    found: list[bool] = []

    async def look() -> None:
        found.append(await examining(place))

    with said_plainly():
        to_the_end(look)
    if not all(found):
        raise typer.Exit(1)


def parse_seconds(text: str, option: str) -> float:
    """Raises CommandError."""
    try:
        duration = parse_duration(text)
    except ValueError:
        raise CommandError(f"{option} {text} is not a duration such as 30s, 500ms or 2m.") from None
    seconds: float = duration.total_seconds()  # type: ignore[attr-defined]
    if not seconds:
        raise CommandError(f"{option} {text} leaves no time.")
    return seconds


def read_key(file: Path | None) -> str | None:
    """As Secrets are mounted: a file with the key, and with a line's end or without. Raises CommandError."""
    if file is None:
        return None
    try:
        key = file.read_text().strip()
    except OSError as error:
        raise CommandError(f"Cannot read {file}: {error.strerror}.") from None
    except UnicodeError:
        raise CommandError(f"{file} holds no API key: it is no text.") from None
    if not key.isascii() or not key.isprintable() or not key:
        raise CommandError(f"{file} holds no API key: one is a line of ASCII.")
    return key


def with_version(url: str) -> str:
    """A URL without a path is the mesh's own, and its API begins at /v1."""
    scheme, separator, rest = url.rstrip("/").partition("://")
    return f"{scheme}{separator}{rest}" if "/" in rest or not separator else f"{scheme}{separator}{rest}/v1"
