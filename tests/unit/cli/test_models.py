"""What `omni models` says of a family and of a model that is served."""

from __future__ import annotations

import pytest
from openai.types import Model

from omni_cli.errors import CommandError
from omni_cli.models import describe_family, describe_model


def model(**more: object) -> Model:
    return Model.model_validate({"id": "m", "created": 0, "object": "model", "owned_by": "omni"} | more)


def test_a_family_is_described_by_its_tasks_and_what_goes_in_and_out() -> None:
    described = describe_family("echo")
    assert described == "  echo             chat: audio, image, text, video → audio, text; 7 stages"


def test_a_served_model_is_described_by_its_tasks_and_voices() -> None:
    abilities = {"tasks": ["chat", "speech"], "voices": ["low", "high"], "ready": True}
    assert describe_model(model(omni=abilities)) == "  m                chat, speech; voices low, high"
    assert describe_model(model(omni={"tasks": ["transcription"]})) == "  m                transcription"


def test_a_model_of_another_server_is_just_named() -> None:
    assert describe_model(model()) == "  m"


def test_what_no_gateway_says_of_a_model_is_refused() -> None:
    with pytest.raises(CommandError, match="not understood"):
        describe_model(model(omni={"tasks": "chat"}))
