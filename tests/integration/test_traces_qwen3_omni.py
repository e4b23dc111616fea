"""A chat with the tiny Qwen3-Omni, told of in all detail: its trace has every stage, and nothing has its words."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import anyio.to_thread
import httpx2
import pytest
from tests.integration.otlp_collector import Spanned, collecting
from tests.integration.up_process import Up, up

from omni_cli.checkpoint import make_tiny_checkpoint
from omni_common.telemetry import spans

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(300)]

MEDIA = Path(__file__).parents[1] / "media"
STAGES = ("preprocess", "aggregate", "image_encoder", "audio_encoder", "thinker", "talker", "decode", "code2wav")
PHOTO = base64.b64encode((MEDIA / "cat.jpg").read_bytes()).decode()
QUESTION = base64.b64encode((MEDIA / "question.wav").read_bytes()).decode()
BROKEN = base64.b64encode(b"\xff\xd8\xff\xe0" + b"Schwalbenschwanz4410" * 20).decode()
WORD = "Kornblumenblau7319"
SERVICES = ("GATEWAY", "COORDINATOR", "STAGE", "RELAY")


def chat(image: str, **more: object) -> dict[str, object]:
    content = [
        {"type": "text", "text": f"What is {WORD}?"},
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{image}"}},
        {"type": "input_audio", "input_audio": {"data": QUESTION, "format": "wav"}},
    ]
    return {"model": "qwen3-omni", "messages": [{"role": "user", "content": content}], "max_tokens": 16, **more}


async def post(mesh: Up, body: object) -> httpx2.Response:
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
        return await http.post(f"http://127.0.0.1:{mesh.port}/v1/chat/completions", json=body)


def stages_of(some: list[Spanned]) -> dict[str, Spanned]:
    return {str(span.attributes[spans.STAGE]): span for span in some if spans.STAGE in span.attributes}


async def test_a_chat_is_one_trace_of_every_stage_and_nothing_quotes_it(tmp_path: Path) -> None:
    model = tmp_path / "tiny"
    await anyio.to_thread.run_sync(make_tiny_checkpoint, "qwen3-omni", model)
    told = {f"OMNI_{service}_LOG_LEVEL": "DEBUG" for service in SERVICES}
    async with collecting() as collector:
        options = ["--pipeline", "qwen3-omni", "--model", f"qwen3-omni={model}", "--verbose"]
        async with up(tmp_path, *options, "--otlp", collector.address, settings=told) as mesh:
            await mesh.ready()
            speech = {"modalities": ["text", "audio"], "audio": {"voice": "ethan", "format": "mp3"}}
            good = await post(mesh, chat(PHOTO, **speech))
            assert good.status_code == 200, good.text
            await collector.until(lambda made: stages_of(made).keys() >= set(STAGES), within=30)
            bad = await post(mesh, chat(BROKEN))
            assert bad.status_code == 400
            made = await collector.until(lambda made: sum(span.name == spans.GATEWAY for span in made) == 2)
            made = await collector.until(lambda made: any(s.failed for s in made if s.name == "stage.preprocess"))
            mesh.ask_to_stop()
            rest, code = await mesh.to_the_end()
        assert code == 0
        raw = bytes(collector.raw).decode(errors="replace")

    traces = {span.trace for span in made}
    assert len(traces) == 2
    first = [span for span in made if span.trace == made[0].trace]
    stages = stages_of(first)
    assert stages.keys() == set(STAGES)
    (request,) = (span for span in first if span.name == spans.COORDINATOR)
    assert {span.parent for name, span in stages.items() if span.name == spans.stage_span(name)} == {request.id}
    assert {span.outcome for span in stages.values()} == {"completed"}
    assert stages["thinker"].start <= stages["talker"].end

    logs = "".join([*mesh.said, *rest])
    said = json.loads(good.text)["choices"][0]["message"]["audio"]
    private = [
        WORD,
        "Schwalbenschwanz4410",
        *(data[at : at + 32] for data in (PHOTO, QUESTION, BROKEN) for at in (0, 99)),
    ]
    private += [text for text in (said["transcript"], said["data"][:64]) if len(text) > 12]
    assert [text for text in private if text in logs or text in raw] == []
    assert "request over here" in logs
