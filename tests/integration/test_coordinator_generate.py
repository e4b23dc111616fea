"""Generate: the simple way in, for gRPC clients."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import grpc
import grpc.aio
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.integration.coordinator_process import SOLO, asking, running_coordinator

from omni.common.v1 import request_pb2
from omni.coordinator.v1 import coordinator_pb2 as pb
from omni.coordinator.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from omni_common.errors import OmniError, Reason
from omni_common.pipeline import PipelineConfig, StageConfig
from omni_common.request import (
    FinishReason,
    GenerationParams,
    GenerationRequest,
    Media,
    Message,
    Modality,
    Role,
    Segment,
    Task,
    TerminalResult,
    TextOutput,
    Usage,
)
from omni_common.rpc.channel import open_channel
from omni_common.rpc.contract import MAX_GENERATE_MESSAGE
from omni_common.rpc.convert import parse_output, render_request
from omni_common.rpc.status import translate_rpc_errors
from omni_common.testing.gateway import fake_gateway
from omni_common.testing.mail import PATIENCE
from omni_common.testing.stage import Place, Script, fake_stage
from omni_coordinator.core.events import Finished
from omni_coordinator.generate import OUTPUT_CREDITS, Admitted, Piece, generating
from omni_coordinator.submission import Submission

pytestmark = pytest.mark.anyio

DONE = TerminalResult(FinishReason.LENGTH, Usage(prompt_tokens=2, completion_text_tokens=1))
EAR = PipelineConfig(
    name="ear",
    entry="listen",
    stages=(StageConfig(name="listen", terminal=Modality.TEXT),),
    input_modalities=frozenset({Modality.AUDIO}),
    output_modalities=frozenset({Modality.TEXT}),
    tasks=frozenset({Task.TRANSCRIPTION}),
    languages=("en",),
)
SOLO_STAGE = Place("solo", "echo")
README = Path(__file__).parents[2] / "services/coordinator/README.md"


def generate(
    channel: grpc.aio.Channel, request: GenerationRequest, *, timeout: float | None = PATIENCE
) -> grpc.aio.UnaryStreamCall[pb.GenerateRequest, pb.GenerateResponse]:
    message = pb.GenerateRequest(request=render_request(request, None))
    call: grpc.aio.UnaryStreamCall[pb.GenerateRequest, pb.GenerateResponse] = CoordinatorServiceStub(channel).Generate(
        message, timeout=timeout
    )
    return call


async def read(call: grpc.aio.UnaryStreamCall[pb.GenerateRequest, pb.GenerateResponse]) -> pb.GenerateResponse:
    answer = await call.read()
    assert isinstance(answer, pb.GenerateResponse)
    return answer


async def test_an_answer_streams_and_its_end_says_why_and_what_it_cost(tmp_path: Path) -> None:
    script: Script = [TextOutput("hel"), TextOutput("lo"), DONE]
    async with (
        running_coordinator(tmp_path) as running,
        fake_stage(running.address, SOLO_STAGE, scripts=[script]) as stage,
        open_channel(running.address) as channel,
    ):
        await running.ready("solo")
        answers = [answer async for answer in generate(channel, asking())]
        assert [answer.WhichOneof("event") for answer in answers] == ["admitted", "output", "output", "finished"]
        assert answers[0].admitted.request_id == (await stage.dispatched.next()).key.request_id
        assert [answer.output.text for answer in answers[1:3]] == ["hel", "lo"]
        assert answers[3].finished.finish_reason == request_pb2.FINISH_REASON_LENGTH
        assert answers[3].finished.usage.prompt_tokens == 2
        await running.idle()


async def test_media_may_be_as_large_as_the_contract_says(tmp_path: Path) -> None:
    image = Media(Modality.IMAGE, bytes(range(256)) * (32 << 12), "picture")
    request = GenerationRequest("solo", (Message(Role.USER, (image,)),))
    async with (
        running_coordinator(tmp_path) as running,
        fake_stage(running.address, SOLO_STAGE, scripts=[[DONE]]) as stage,
        open_channel(running.address, max_message=MAX_GENERATE_MESSAGE) as channel,
    ):
        await running.ready("solo")
        assert len([answer async for answer in generate(channel, request, timeout=40)]) == 2
        assert (await stage.dispatched.next()).request.messages == request.messages
        assert running.coordinator.media.held == 0


async def test_a_refusal_is_the_status_of_the_call_with_its_reason_in_the_details(tmp_path: Path) -> None:
    async with running_coordinator(tmp_path) as running, open_channel(running.address) as channel:
        call = generate(channel, replace(asking(), model="nobody"))
        with pytest.raises(OmniError, match="solo") as refusal, translate_rpc_errors():
            await call.read()
        assert await call.code() is grpc.StatusCode.NOT_FOUND
        assert (refusal.value.reason, refusal.value.param) == (Reason.MODEL_NOT_FOUND, "model")


async def test_a_task_that_the_model_does_not_do_is_refused(tmp_path: Path) -> None:
    wanted = replace(asking(), params=GenerationParams(task=Task.TRANSCRIPTION))
    async with running_coordinator(tmp_path, [SOLO, EAR]) as running, open_channel(running.address) as channel:
        call = generate(channel, wanted)
        with pytest.raises(OmniError, match="no transcription; these can: ear") as refusal, translate_rpc_errors():
            await call.read()
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
        assert refusal.value.param == "model"


async def test_a_transcript_streams_by_segments_for_the_credit_of_text(tmp_path: Path) -> None:
    segments = [Segment(float(n), n + 1.0, f" {n}", "en") for n in range(3 * OUTPUT_CREDITS)]
    audio = Media(Modality.AUDIO, b"RIFF", "file")
    params = GenerationParams(task=Task.TRANSCRIPTION, language="en", word_times=True)
    request = GenerationRequest("ear", (Message(Role.USER, (audio,)),), params)
    async with (
        running_coordinator(tmp_path, [EAR]) as running,
        fake_stage(running.address, Place("ear", "listen"), scripts=[[*segments, DONE]]) as stage,
        open_channel(running.address) as channel,
    ):
        await running.ready("ear")
        answers = [parse_output(a.output)[1] async for a in generate(channel, request) if a.HasField("output")]
        assert answers == segments
        assert (await stage.dispatched.next()).request.params == params
        await running.idle()


async def test_a_failure_in_the_middle_ends_the_stream_with_its_status(tmp_path: Path) -> None:
    error = OmniError(Reason.CONTEXT_TOO_LONG, "The prompt is too long.", param="messages")
    async with (
        running_coordinator(tmp_path) as running,
        fake_stage(running.address, SOLO_STAGE, scripts=[[TextOutput("a"), error]]),
        open_channel(running.address) as channel,
    ):
        await running.ready("solo")
        call = generate(channel, asking())
        assert (await read(call)).HasField("admitted")
        assert (await read(call)).output.text == "a"
        with pytest.raises(OmniError) as failure, translate_rpc_errors():
            await call.read()
        assert (failure.value.reason, failure.value.param) == (Reason.CONTEXT_TOO_LONG, "messages")
        await running.idle()


async def test_a_cancelled_call_aborts_its_request(tmp_path: Path) -> None:
    async with (
        running_coordinator(tmp_path) as running,
        fake_stage(running.address, SOLO_STAGE, scripts=None) as stage,
        open_channel(running.address) as channel,
    ):
        await running.ready("solo")
        call = generate(channel, asking())
        await read(call)
        call.cancel()
        assert await stage.aborted.next() == (await stage.dispatched.next()).key
        await running.idle()


async def test_the_deadline_of_a_call_is_the_deadline_of_its_request(tmp_path: Path) -> None:
    async with (
        running_coordinator(tmp_path) as running,
        fake_stage(running.address, SOLO_STAGE, scripts=None) as stage,
        open_channel(running.address) as channel,
    ):
        await running.ready("solo")
        call = generate(channel, asking(), timeout=0.5)
        await read(call)
        with pytest.raises(OmniError) as failure, translate_rpc_errors():
            await call.read()
        assert failure.value.reason is Reason.DEADLINE_EXCEEDED
        await stage.aborted.next()
        await running.idle()


async def test_credit_goes_back_only_when_the_caller_comes_for_more(tmp_path: Path) -> None:
    pieces = 3 * OUTPUT_CREDITS
    script: Script = [*(TextOutput(str(n)) for n in range(pieces)), DONE]
    async with (
        running_coordinator(tmp_path) as running,
        fake_stage(running.address, SOLO_STAGE, scripts=[script]) as stage,
        fake_gateway(running.address) as gateway,
    ):
        await gateway.until_ready("solo")
        async with generating(running.coordinator, Submission(asking(), OUTPUT_CREDITS)) as notices:
            assert isinstance(await anext(notices), Admitted)
            assert await anext(notices) == Piece(0, TextOutput("0"))
            assert not stage.granted.waiting
            assert await anext(notices) == Piece(1, TextOutput("1"))
            assert (await stage.granted.next()).text == 1
            assert not stage.granted.waiting
            rest = [notice async for notice in notices]
        assert [notice.index for notice in rest if isinstance(notice, Piece)] == list(range(2, pieces))
        assert isinstance(rest[-1], Finished)
        await running.idle()


async def test_the_client_in_the_readme_works_as_it_stands(tmp_path: Path) -> None:
    found = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    pipeline = SOLO.model_copy(update={"name": "qwen3-omni"})
    async with (
        running_coordinator(tmp_path, [pipeline]) as running,
        fake_stage(running.address, Place("qwen3-omni", "echo"), scripts=[[TextOutput("A "), TextOutput("net"), DONE]]),
    ):
        await running.ready("qwen3-omni")
        client = found[1].replace("127.0.0.1:7070", running.address)
        assert client != found[1]
        with anyio.fail_after(30):
            ran = await anyio.run_process([sys.executable, "-c", client])
    assert ran.stdout.decode() == "A net"


@pytest.mark.parametrize("reflection", [True, False])
async def test_reflection_is_there_when_the_setting_says_so(tmp_path: Path, reflection: bool) -> None:
    async with (
        running_coordinator(tmp_path, reflection=reflection) as running,
        open_channel(running.address) as channel,
    ):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        if not reflection:
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await call.read()
            assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
            return
        services = {service.name for service in (await call.read()).list_services_response.service}
        assert "omni.coordinator.v1.CoordinatorService" in services
