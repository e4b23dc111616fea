"""Phonemes by espeak-ng, which is called as a program and never linked: it is under the GPL.

The program reads its input line by line and answers each with one line or more (it ends one at what it takes for the
end of a clause, and every hundred words or so). What belongs together is therefore kept apart by a line of raw
phonemes that no text is turned into; the first of them tells how this voice writes it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence

PROGRAM = "espeak-ng"
INSTALL = "apt-get install espeak-ng (Debian, Ubuntu), brew install espeak-ng (macOS)"
# The 4096 characters of a request take 0.3 s on one core, and 2.7 s where each of them is read by its name (Chinese by
# an English voice), 4.5 s beside other work; they also bound what comes back, to 100 kB. Four such texts may be under
# way at once. A machine that needs longer than this is not going to speak.
_DEADLINE = 20.0
# In bytes. The program cuts a line at 999, and drops what is more than 1000 phonemes.
_LONGEST_LINE = 400
# Raw phonemes stand in double brackets, which no other line has: they are taken out of what the caller sends.
_BORDER = "[[llllllll]]"


class EspeakFailed(Exception):
    """The program did not answer."""


class Espeak:
    """The program, for one of its voices. Raises ValueError when it is not installed."""

    def __init__(self, voice: str, *, deadline: float = _DEADLINE) -> None:
        found = shutil.which(PROGRAM)
        if found is None:
            raise ValueError(f"A Piper voice needs the program {PROGRAM}, which is not installed: {INSTALL}.")
        self._voice = voice
        self._deadline = deadline
        self._command = (found, "-q", "--ipa", "-b", "1", "-v", voice)

    def phonemes(self, texts: Sequence[str]) -> Sequence[str]:
        """IPA for each text, words apart by spaces. Raises EspeakFailed when there is no answer in time."""
        lines = [_BORDER]
        for text in texts:
            lines += [*_lines(text), _BORDER]
        said = self._run("\n".join(lines).encode("utf-8", "replace") + b"\n").decode("utf-8", "replace").splitlines()
        made = list(_between_borders(said))
        if len(made) != len(texts):
            raise EspeakFailed(f"{PROGRAM} answered {len(texts)} texts with {len(made)}.")
        return made

    def _run(self, text: bytes) -> bytes:
        try:
            # The program's full path and the checked name of a voice; the text goes in as data, never as an argument.
            done = subprocess.run(self._command, input=text, capture_output=True, timeout=self._deadline, check=False)  # noqa: S603
        except subprocess.TimeoutExpired as late:
            raise EspeakFailed(f"{PROGRAM} did not answer within {self._deadline:g} s and was killed.") from late
        if done.returncode != 0:
            why = done.stderr.decode("utf-8", "replace").strip()[:200]
            raise EspeakFailed(f"{PROGRAM} ended with {done.returncode} for the voice '{self._voice}': {why}")
        return done.stdout


def _lines(text: str) -> Iterator[str]:
    """The text in lines that the program takes whole, cut at spaces where there are any."""
    line = ""
    for word in text.replace("[", " ").replace("]", " ").split():
        for part in _parts(word):
            longer = f"{line} {part}" if line else part
            if len(longer.encode("utf-8", "replace")) > _LONGEST_LINE:
                yield line
                line = part
            else:
                line = longer
    if line:
        yield line


def _parts(word: str) -> Iterator[str]:
    """A word, or what a script without spaces takes for one, in parts that each fit a line."""
    size = _LONGEST_LINE // 4  # characters have at most four bytes
    return (word[at : at + size] for at in range(0, len(word), size))


def _between_borders(said: Sequence[str]) -> Iterator[str]:
    if not said:
        return
    border, held = said[0], list[str]()
    for line in said[1:]:
        if line == border:
            yield " ".join(held)
            held = []
        else:
            held += line.split()
