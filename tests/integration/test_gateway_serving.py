"""What the log and the metrics are told of a request, however it ends."""

from __future__ import annotations

from contextlib import suppress

import anyio
import pytest
from starlette.types import Message as AsgiMessage
from tests.integration.gateway_mesh import MODEL, mesh

from omni_common.clock import monotonic
from omni_common.errors import Overloaded
from omni_common.request import GenerationRequest, Message, Role, Text
from omni_common.testing.scripts import Admit
from omni_gateway.call import Call
from omni_gateway.serving import Serving
from omni_gateway.settings import GatewaySettings

pytestmark = pytest.mark.anyio

SCOPE = {"type": "http", "headers": []}
REQUEST = GenerationRequest(MODEL, (Message(Role.USER, (Text("hi", "messages[0].content"),)),))


async def _silence() -> AsgiMessage:
    await anyio.sleep_forever()
    raise AssertionError


async def _send(message: AsgiMessage) -> None:
    del message


@pytest.mark.parametrize(
    ("end", "outcome"), [(ZeroDivisionError(), "internal"), (Overloaded("Full."), "overloaded"), (None, "completed")]
)
async def test_the_end_of_a_request_is_logged_by_what_it_was(
    end: Exception | None, outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    settings = GatewaySettings(bind="127.0.0.1:0", coordinators="127.0.0.1:1")

    async def work(call: Call) -> None:
        await call.read()
        if end is not None:
            raise end

    async with mesh() as here:
        here.coordinator.script(Admit(), anyio.Event())
        serving = Serving(here.gateway.client, settings, clock=monotonic)
        # The application answers the errors.
        with suppress(Overloaded, ExceptionGroup), serving.visit(SCOPE, _send, "/v1/chat/completions") as visit:
            await serving.answer(visit, _silence, REQUEST, work, streamed=False)
    (record,) = [r for r in caplog.records if r.getMessage() == "request ended"]
    assert vars(record)["outcome"] == outcome
    assert vars(record)["model"] == MODEL
