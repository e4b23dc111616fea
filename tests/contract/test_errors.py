"""The error table: complete, and rendered as OpenAI's clients and gRPC callers expect."""

from __future__ import annotations

from datetime import timedelta

import grpc
import pytest

from omni.common.v1 import failure_pb2
from omni_common.errors import (
    SURFACE,
    Cancelled,
    ContextTooLong,
    InvalidRequest,
    OmniError,
    Overloaded,
    Reason,
    StageFailed,
    StageUnavailable,
    Unsupported,
    openai_error,
)
from omni_common.rpc.convert import error_of, failure_of
from omni_common.rpc.status import error_of_status, status_of

EXAMPLES = [
    InvalidRequest("'temperature' must be between 0 and 2.", param="temperature"),
    Unsupported("This server does not serve tools.", param="tools"),
    ContextTooLong(70_000, 65_536),
    Overloaded("256 requests are alive, which is all that this server takes."),
    StageUnavailable("talker", "has no replica that is ready"),
    StageFailed("thinker"),
    Cancelled(),
    OmniError(Reason.LEASE_LOST, "A tensor was lost.", code="refined", retry_after=timedelta(milliseconds=250)),
]


def facts(error: OmniError) -> tuple[object, ...]:
    return error.reason, error.message, error.param, error.stage, error.code, error.retry_after


def test_every_reason_has_a_surface_and_a_number_on_the_wire() -> None:
    numbered = failure_pb2.Reason.DESCRIPTOR.values_by_name
    on_the_wire = {name.removeprefix("REASON_") for name in numbered} - {"UNSPECIFIED"}
    assert set(SURFACE) == set(Reason)
    assert on_the_wire == {reason.value for reason in Reason} == {reason.name for reason in Reason}


def test_no_reason_looks_like_success_to_anybody() -> None:
    assert all(surface.grpc is not grpc.StatusCode.OK for surface in SURFACE.values())
    assert all(surface.http >= 400 for reason, surface in SURFACE.items() if reason is not Reason.CANCELLED)


def test_only_what_may_succeed_later_invites_a_retry() -> None:
    assert {reason for reason, surface in SURFACE.items() if surface.retry} == {
        Reason.OVERLOADED,
        Reason.STAGE_UNAVAILABLE,
        Reason.LEASE_LOST,
        Reason.DATA_CORRUPTED,
    }


@pytest.mark.parametrize(
    ("error", "status", "body", "headers"),
    [
        pytest.param(
            InvalidRequest("'temperature' must be between 0 and 2.", param="temperature"),
            400,
            {
                "message": "'temperature' must be between 0 and 2.",
                "type": "invalid_request_error",
                "param": "temperature",
                "code": None,
            },
            {"x-should-retry": "false"},
            id="bad request",
        ),
        pytest.param(
            ContextTooLong(70_000, 65_536),
            400,
            {
                "message": "The prompt has 70000 tokens; this model's context holds 65536.",
                "type": "invalid_request_error",
                "param": "messages",
                "code": "context_length_exceeded",
            },
            {"x-should-retry": "false"},
            id="prompt too long",
        ),
        pytest.param(
            OmniError(Reason.MODEL_NOT_FOUND, "There is no model 'gpt-9'.", param="model"),
            404,
            {
                "message": "There is no model 'gpt-9'.",
                "type": "invalid_request_error",
                "param": "model",
                "code": "model_not_found",
            },
            {"x-should-retry": "false"},
            id="unknown model",
        ),
        pytest.param(
            Overloaded("9 requests wait.", stage="thinker"),
            429,
            {"message": "9 requests wait.", "type": "rate_limit_error", "param": None, "code": "overloaded"},
            {"x-should-retry": "true", "retry-after": "1"},
            id="overloaded",
        ),
        pytest.param(
            StageFailed("talker"),
            500,
            {
                "message": "Stage 'talker' failed while serving this request.",
                "type": "server_error",
                "param": None,
                "code": "stage_failed",
            },
            {"x-should-retry": "false"},
            id="a stage failed, and a retry would only fail again",
        ),
        pytest.param(
            InvalidRequest("The voice is unknown.", param="audio.voice", code="voice_not_found"),
            400,
            {
                "message": "The voice is unknown.",
                "type": "invalid_request_error",
                "param": "audio.voice",
                "code": "voice_not_found",
            },
            {"x-should-retry": "false"},
            id="the error's own code comes before the reason's",
        ),
    ],
)
def test_openai_body(error: OmniError, status: int, body: dict[str, object], headers: dict[str, str]) -> None:
    assert openai_error(error) == (status, {"error": body}, headers)


def test_retry_after_is_whole_seconds_and_never_zero() -> None:
    soon = OmniError(Reason.OVERLOADED, "Full.", retry_after=timedelta(milliseconds=10))
    later = OmniError(Reason.OVERLOADED, "Full.", retry_after=timedelta(milliseconds=1500))
    assert [openai_error(error)[2]["retry-after"] for error in (soon, later)] == ["1", "2"]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: error.reason)
def test_a_failure_keeps_its_facts_across_a_hop(error: OmniError) -> None:
    assert facts(error_of(failure_of(error))) == facts(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: error.reason)
def test_a_status_keeps_the_facts_too(error: OmniError) -> None:
    back = error_of_status(status_of(error, request_id="r1"))
    assert back is not None
    assert facts(back) == facts(error)


@pytest.mark.parametrize("number", [0, 99])
def test_a_reason_that_only_a_newer_peer_knows_is_internal(number: int) -> None:
    failure = failure_pb2.Failure(message="?")
    failure.MergeFromString(bytes([0x08, number]))
    assert error_of(failure).reason is Reason.INTERNAL
