"""The commands of `omni` for a mesh that runs elsewhere: their options, their exit codes."""

from __future__ import annotations

from typing import Annotated

import typer

from omni_cli.conversation import open_client
from omni_cli.errors import CommandError
from omni_cli.run import said_plainly, to_the_end
from omni_cli.verify.show import verify as verifying
from omni_common.settings import parse_duration

DEFAULT_URL = "http://127.0.0.1:8000/v1"


def add_to(app: typer.Typer) -> None:
    app.command()(verify)


def verify(
    url: Annotated[str, typer.Argument(envvar="OMNI_URL", help="Where the mesh answers.")] = DEFAULT_URL,
    *,
    model: Annotated[str | None, typer.Option(help="Try this model only; default: every one that is served.")] = None,
    timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="How long each trial may take, such as 90s or 2m.")
    ] = "120s",
) -> None:
    """Speak to every model of a running mesh, and check that it answers: text, and speech that is not silent."""
    with said_plainly():
        seconds = parse_seconds(timeout, "--timeout")
        to_the_end(lambda: verifying(lambda: open_client(with_version(url)), model=model, timeout=seconds))


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


def with_version(url: str) -> str:
    """A URL without a path is the mesh's own, and its API begins at /v1."""
    scheme, separator, rest = url.rstrip("/").partition("://")
    return f"{scheme}{separator}{rest}" if "/" in rest or not separator else f"{scheme}{separator}{rest}/v1"
