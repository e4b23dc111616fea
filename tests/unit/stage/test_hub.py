"""What is said when a hub fails."""

from __future__ import annotations

import httpx
import pytest

from omni_stage.weights import hub
from omni_stage.weights.errors import WeightsError


def test_an_error_without_words_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_off(*_: object, **__: object) -> None:
        raise httpx.ReadError("")

    monkeypatch.setattr("huggingface_hub.snapshot_download", break_off)
    with pytest.raises(WeightsError, match="somebody/fish cannot be fetched: ReadError"):
        hub.fetch_into_cache("somebody/fish", ["*"])
