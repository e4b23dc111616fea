"""Which transports cannot be used on this machine."""

from __future__ import annotations

import pytest

from omni_cli.launcher.transports import unusable


def test_tcp_is_always_there() -> None:
    assert unusable(["tcp"]) == ()


def test_one_that_cannot_be_used_is_said_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UCX_TLS", "pigeon")  # where the library is missing it is so without
    (sentence,) = unusable(["ucx", "tcp"])
    assert sentence.startswith("ucx cannot be used here: ")
    assert len(sentence) > len("ucx cannot be used here: ")


def test_one_whose_library_hangs_when_it_is_loaded_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omni_cli.launcher.transports._DEADLINE", 0.001)
    assert unusable(["tcp", "nixl"]) == ("nixl cannot be used here: loading its library ended badly.",)
