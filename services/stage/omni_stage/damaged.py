"""What libraries say of damaged files, as sentences with the file's name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def reading(file: Path, *says: type[Exception]) -> Iterator[None]:
    """`says`: what the library raises for a file that is not what it should be. Raises ValueError in its place."""
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(f"There is no file {file}.") from error
    except says as error:
        why = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ValueError(f"{file} is damaged, or is something else: {why}.") from error
