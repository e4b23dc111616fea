"""A file of speech: its name's ending chooses the format, and it is there only when it is whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from omni_cli.conversation import write_wav
from omni_cli.errors import CommandError

Format = Literal["mp3", "opus", "aac", "flac", "pcm"]
# WAV is asked for as samples, so that the file's head can tell its length.
_FORMATS: Mapping[str, Format] = {
    ".wav": "pcm",
    ".pcm": "pcm",
    ".mp3": "mp3",
    ".opus": "opus",
    ".ogg": "opus",
    ".flac": "flac",
    ".aac": "aac",
}


def format_of(output: Path) -> Format:
    """What is asked for. OpenAI's chat has another name for pcm: pcm16."""
    return _FORMATS[output.suffix.lower()]


def require_speech_file(output: Path) -> None:
    """Refuses a place where nothing could be written, before anything is asked."""
    if output.suffix.lower() not in _FORMATS:
        raise CommandError(f"The name of {output} must end in one of {', '.join(_FORMATS)}.")
    if not output.parent.is_dir():
        raise CommandError(f"Cannot write {output}: there is no folder {output.parent}.")
    if output.is_dir():
        raise CommandError(f"Cannot write {output}: it is a folder.")


@contextmanager
def complete(output: Path) -> Iterator[BinaryIO]:
    """A file that gets its name at the end, and is removed if the end is not reached; samples get a head where they are
    to be WAV. Raises CommandError, at once where nothing can be written there."""
    partial = output.with_name(f".{output.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
        if output.suffix.lower() == ".wav":
            write_wav(partial, partial.read_bytes())
        partial.replace(output)
    except OSError as error:
        raise CommandError(f"Cannot write {output}: {error.strerror}.") from None
    finally:
        partial.unlink(missing_ok=True)
