"""What this step says instead of a traceback."""

from __future__ import annotations


class WeightsError(Exception):
    """The weights cannot be had; the message is a sentence for whoever asked for them."""


class UnknownModel(WeightsError):
    """The hub has no model of that name, or shows none to whoever asks."""
