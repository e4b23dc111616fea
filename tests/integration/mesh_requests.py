"""Requests to a mesh of `mesh.py`, read to their ends."""

from __future__ import annotations

from tests.integration.mesh import Mesh, say

from omni_common.errors import OmniError
from omni_common.request import AudioOutput, Media, TerminalResult, TextOutput
from omni_common.testing.gateway import Piece, Ticket

LONG = " ".join(["word"] * 400)


async def answer(ticket: Ticket) -> tuple[str, bytes, TerminalResult]:
    """Reads a request to its good end."""
    await ticket.admitted()
    text, audio = "", b""
    while not isinstance(notice := await ticket.notices.next(), TerminalResult):
        assert isinstance(notice, Piece), repr(notice)
        match notice.output:
            case TextOutput(piece):
                text += piece
                ticket.read(text=1)
            case AudioOutput(pcm):
                audio += pcm
                ticket.read(audio=1)
    return text, audio, notice


async def ask(made: Mesh, text: str, *media: Media, spoken: bool = False) -> tuple[str, bytes, TerminalResult]:
    return await answer(made.gateway.submit(say(text, *media, spoken=spoken)))


async def ended(ticket: Ticket) -> TerminalResult | OmniError:
    """How it ended, reading on."""
    ticket.read(text=1000, audio=1000)
    while isinstance(notice := await ticket.notices.next(), Piece):
        pass
    assert isinstance(notice, TerminalResult | OmniError)
    return notice
