"""Requests to a mesh of `mesh.py`, read to their ends."""

from __future__ import annotations

from tests.integration.mesh import Mesh, say

from omni_common.errors import OmniError
from omni_common.request import AudioOutput, Media, TerminalResult, TextOutput
from omni_common.telemetry import names
from omni_common.testing.gateway import Piece, Ticket

LONG = " ".join(["word"] * 400)
DIVERSE = " ".join(f"word{number}" for number in range(100))


def failovers(outcome: str, pipeline: str = "echo") -> float:
    """So far, in this process."""
    [family] = names.FAILOVERS.collect()
    wanted = {"pipeline": pipeline, "outcome": outcome}
    return sum(s.value for s in family.samples if s.name.endswith("_total") and wanted.items() <= s.labels.items())


async def answer(ticket: Ticket) -> tuple[str, bytes, TerminalResult]:
    """Reads a request to its good end."""
    await ticket.admitted()
    return await rest(ticket)


async def rest(ticket: Ticket, *had: Piece) -> tuple[str, bytes, TerminalResult]:
    """As `answer`, of a request that was read from before: these are the pieces, whose credits are returned here."""
    text, audio = "", b""
    pieces = list(had)
    while True:
        for piece in pieces:
            match piece.output:
                case TextOutput(said):
                    text += said
                    ticket.read(text=1)
                case AudioOutput(pcm):
                    audio += pcm
                    ticket.read(audio=1)
        if isinstance(notice := await ticket.notices.next(), TerminalResult):
            return text, audio, notice
        assert isinstance(notice, Piece), repr(notice)
        pieces = [notice]


async def ask(made: Mesh, text: str, *media: Media, spoken: bool = False) -> tuple[str, bytes, TerminalResult]:
    return await answer(made.gateway.submit(say(text, *media, spoken=spoken)))


async def ended(ticket: Ticket) -> TerminalResult | OmniError:
    """How it ended, reading on."""
    ticket.read(text=1000, audio=1000)
    while isinstance(notice := await ticket.notices.next(), Piece):
        pass
    assert isinstance(notice, TerminalResult | OmniError)
    return notice
