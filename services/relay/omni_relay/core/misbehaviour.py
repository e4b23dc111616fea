"""The other relay breaks the contract between relays: its connection is cut."""

from __future__ import annotations


class Misbehaved(Exception):
    """Completes the sentence "the other relay …"."""
