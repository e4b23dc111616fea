"""The command `omni`: its commands, its options, its exit codes.

OpenAI's client takes longer to import than all else together: commands that talk to a mesh do so when they run.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from omni_cli import cluster_app, up_app
from omni_cli.bench import relay as benching
from omni_cli.checkpoint import make_tiny_checkpoint
from omni_cli.launcher.plan import Encryption, Wishes
from omni_cli.run import said_plainly, to_the_end, until_stopped
from omni_cli.serving import choose
from omni_cli.top import show as topping
from omni_cli.wishes import Form, parse_sizes, parse_transports

DEFAULT_URL = "http://127.0.0.1:8000/v1"

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The omni mesh on one machine, and its tools.")
models = typer.Typer(invoke_without_command=True, help="The models there are, and what a running mesh serves.")
app.add_typer(models, name="models")
bench = typer.Typer(no_args_is_help=True, help="Measurements of parts of the mesh on this machine.")
app.add_typer(bench, name="bench")
cluster_app.add_to(app)
up_app.add_to(app)

Url = Annotated[str, typer.Option(envvar="OMNI_URL", help="Where the mesh answers.")]
Images = Annotated[list[Path] | None, typer.Option(help="An image to show; may be given several times.")]
Audios = Annotated[list[Path] | None, typer.Option(help="A recording to play; may be given several times.")]
Videos = Annotated[list[Path] | None, typer.Option(help="A video to show; may be given several times.")]
Model = Annotated[str | None, typer.Option(help="A folder with a checkpoint, or its id on the hub.")]


@app.command()
def chat(
    text: Annotated[str, typer.Argument(help="What to say to the model.")] = "",
    *,
    image: Images = None,
    audio: Audios = None,
    video: Videos = None,
    speak: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Ask for speech too and write it there; the ending chooses the format, as for speak."
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    model: Annotated[str | None, typer.Option(help="The model to ask; default: the first served.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of text at most.")] = None,
    timings: Annotated[bool, typer.Option(help="Show when each stage worked.")] = False,
) -> None:
    """Ask a running mesh; the text comes as it is made."""
    from omni_cli import chat as chatting
    from omni_cli.conversation import Question

    with said_plainly():
        question = Question(text, image or (), audio or (), video or (), max_tokens)
        to_the_end(lambda: chatting.chat(question, url=url, model=model, speak=speak, timings=timings))


@app.command()
def speak(
    text: Annotated[str, typer.Argument(help="What to say; - reads it from standard input.")],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write it; the ending chooses the format.")
    ] = Path("speech.wav"),
    voice: Annotated[str, typer.Option(help="A voice of the model; default: its own.")] = "",
    speed: Annotated[float, typer.Option(help="From 0.25 to 4; the pitch stays.")] = 1.0,
    url: Url = DEFAULT_URL,
    model: Annotated[str | None, typer.Option(help="The model that speaks; default: one that is made for it.")] = None,
) -> None:
    """Let a running mesh say a text."""
    from omni_cli import speak as speaking

    with said_plainly():
        script = speaking.Script(speaking.text_or_stdin(text), voice, speed)
        to_the_end(lambda: speaking.speak(script, output, url=url, model=model))


@app.command()
def transcribe(
    file: Annotated[Path, typer.Argument(help="A recording: WAV, MP3, M4A, WebM, Ogg or FLAC.")],
    *,
    form: Annotated[Form, typer.Option("--format", help="What to print.")] = "text",
    words: Annotated[bool, typer.Option("--words", help="With verbose_json: when each word was said.")] = False,
    language: Annotated[str, typer.Option(help="ISO 639-1 code, where the model knows several.")] = "",
    prompt: Annotated[str, typer.Option(help="Words and spellings to expect.")] = "",
    translate: Annotated[bool, typer.Option("--translate", help="Write it in English.")] = False,
    url: Url = DEFAULT_URL,
    model: Annotated[str | None, typer.Option(help="The model that listens; default: one that is made for it.")] = None,
) -> None:
    """Let a running mesh write down what is said in a file; text comes as it is heard."""
    from omni_cli import transcribe as transcribing

    with said_plainly():
        recording = transcribing.Recording(file, language, prompt)
        work = transcribing.transcribe
        to_the_end(lambda: work(recording, form=form, words=words, translate=translate, url=url, model=model))


@app.command()
def top(
    urls: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[URL]...", help="Where processes serve metrics; default: those of your newest `omni up`."
        ),
    ] = None,
    *,
    interval: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show one interval and end.")] = False,
    kubernetes: cluster_app.Kubernetes = False,
    namespace: cluster_app.Namespace = "",
    release: cluster_app.Release = "",
    kubeconfig: cluster_app.Kubeconfig = None,
    context: cluster_app.Context = "",
) -> None:
    """Watch a running mesh: its stages, what goes over its edges and how, the memory of its relays."""
    with said_plainly():
        where = cluster_app.where(kubernetes, namespace, release, kubeconfig, context)
        until_stopped(lambda: topping.top(urls or (), interval=interval, once=once, where=where))


@app.command()
def demo(
    *,
    model: Model = None,
    image: Annotated[Path, typer.Option(help="The photo to show.")] = Path("tests/media/cat.jpg"),
    audio: Annotated[Path, typer.Option(help="The question to play.")] = Path("tests/media/question.wav"),
    speak: Annotated[Path, typer.Option(metavar="WAV", help="Where to write the answer.")] = Path(".omni/demo.wav"),
    verbose: up_app.Verbose = False,
) -> None:
    """Start a mesh, let it speak and hear itself, ask it about a photo by voice, show how it answered, stop it."""
    from omni_cli import demo as demonstration
    from omni_cli.conversation import Question, message

    with said_plainly():
        question = Question("", images=(image,), audios=(audio,))
        message(question)  # what cannot be read is told before anything starts
        if model is None:
            question = demonstration.for_tiny(question)
        weights = f"{demonstration.FAMILY}={model or demonstration.tiny_checkpoint()}"
        served = choose((demonstration.FAMILY, *demonstration.VOICES), [weights])
        to_the_end(lambda: demonstration.demo(question, served, speak=speak, verbose=verbose))
        if model is None:
            print(demonstration.ABOUT_TINY)


@bench.command("relay")
def bench_relay(
    *,
    sizes: Annotated[str, typer.Option(metavar="SIZE,SIZE", help="What to move.")] = "64KiB,1MiB,16MiB,256MiB",
    rounds: Annotated[
        int, typer.Option(min=1, max=100_000, help="How often to move each; small ones are moved more often.")
    ] = 20,
    transport: Annotated[str, typer.Option(metavar="NAME", help="How to move it: tcp, ucx, nixl.")] = "tcp",
    encryption: Annotated[Encryption, typer.Option(help="How to protect it.")] = "none",
    checksums: Annotated[bool, typer.Option(help="Whether the relays verify what is not encrypted.")] = True,
) -> None:
    """Show where the time goes when a tensor is moved between the relays of two pods on this machine."""
    with said_plainly():
        wishes = Wishes((), encryption=encryption, transports=parse_transports(transport, "--transport"))
        to_the_end(lambda: benching.bench_relay(parse_sizes(sizes), rounds, wishes, checksums=checksums))


@models.callback()
def list_models(context: typer.Context, url: Url = DEFAULT_URL) -> None:
    """List the model families, and what the mesh at --url serves."""
    from omni_cli import models as listing

    if context.invoked_subcommand is None:
        with said_plainly():
            to_the_end(lambda: listing.list_models(url, named=url != DEFAULT_URL))


@models.command("make-tiny")
def make_tiny(
    family: Annotated[str, typer.Argument(help="The model family, as `omni models` lists it.")],
    folder: Annotated[Path, typer.Argument(help="Where to write it.")],
) -> None:
    """Make a tiny random checkpoint: of the real shape, knowing nothing."""
    with said_plainly():
        make_tiny_checkpoint(family, folder)
        print(f"Made a tiny random {family} in {folder}.", file=sys.stderr)
