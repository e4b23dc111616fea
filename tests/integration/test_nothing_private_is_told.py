"""What callers say, show and authenticate with is in no log, no span and no metric, even where everything is told."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import httpx2
import pytest
from tests.integration.otlp_collector import collecting
from tests.integration.up_process import Up, up
from tests.outsider import install

from omni_cli.launcher.state import newest_state

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PHOTO = Path(__file__).parents[1] / "media" / "cat.jpg"
WORD = "Kornblumenblau7319"
KEY = "sk-zitronenfalter-5521"
WRONG_KEY = "sk-hirschkaefer-8874"
SHOWN = base64.b64encode(PHOTO.read_bytes()).decode()
PRIVATE = (WORD, KEY, WRONG_KEY, *(SHOWN[at : at + 32] for at in range(0, len(SHOWN) - 32, 997)))

# Echo, but for a stage whose code fails and quotes what it was given.
CONFIG = """
from omni_stage.models.echo.config import PIPELINE as ECHO

PIPELINE = ECHO.model_copy(update={"name": "crow"})
"""
CODE = """
from dataclasses import replace

from omni_stage.models.echo import stages
from omni_stage.program import StageProgram


def upper(context):
    def fail(request):
        try:
            {}[repr(request.payload)]
        except KeyError as error:
            raise ValueError(f"cannot read {request.payload}") from error

    return StageProgram(stages._simple(fail, context))


FAMILY = replace(stages.FAMILY, factories={**stages.FAMILY.factories, "upper": upper})
"""


def bodies() -> list[tuple[str, bytes]]:
    """What is sent to which route: good, broken, and refused."""
    photo = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{SHOWN}"}}
    broken = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{SHOWN[:200]}"}}
    speech = {"modalities": ["text", "audio"], "audio": {"voice": "low", "format": "mp3"}}
    words = {"type": "text", "text": f"hello {WORD}"}

    def chat(*parts: object, **more: object) -> tuple[str, bytes]:
        messages = [{"role": "system", "content": WORD}, {"role": "user", "content": list(parts)}]
        return "/v1/chat/completions", json.dumps({"model": "echo", "messages": messages, **more}).encode()

    return [
        chat(words, photo, **speech),
        chat(words, photo, stream=True, stream_options={"include_usage": True}, **{**speech, "audio": PCM}),
        chat(words, broken),
        chat(words, photo, model="crow"),
        chat(words, photo, model="crow", stream=True),
        chat(words, model=WORD),
        chat(words, temperature=WORD),
        chat(words, user=WORD, metadata={WORD: WORD}),
        chat(words, **{WORD: WORD}),
        chat({"type": WORD, "text": WORD}),
        ("/v1/chat/completions", f'{{"model": "echo", "messages": [{{"role": "user", "content": "{WORD}'.encode()),
        ("/v1/audio/speech", json.dumps({"model": "echo", "input": WORD, "voice": WORD}).encode()),
        (f"/v1/{WORD}?{WORD}={WORD}", WORD.encode()),
    ]


PCM = {"voice": "low", "format": "pcm16"}


async def ask_everything(mesh: Up) -> list[tuple[int, bytes]]:
    answers = []
    async with httpx2.AsyncClient(trust_env=False, timeout=20, base_url=f"http://127.0.0.1:{mesh.port}") as http:
        for path, body in bodies():
            headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json", "user-agent": WORD}
            reply = await http.post(path, content=body, headers=headers)
            answers.append((reply.status_code, reply.content))
        path, body = bodies()[0]
        for strange in ({"authorization": f"Bearer {WRONG_KEY}"}, {"authorization": WRONG_KEY}, {"cookie": KEY}):
            reply = await http.post(path, content=body, headers=strange)
            answers.append((reply.status_code, reply.content))
        files = {"file": (f"{WORD}.wav", b"RIFF" + PHOTO.read_bytes())}
        data = {"model": "echo", "prompt": WORD}
        headers = {"authorization": f"Bearer {KEY}"}
        heard = await http.post("/v1/audio/transcriptions", data=data, files=files, headers=headers)
        answers.append((heard.status_code, heard.content))
    return answers


async def metrics_of(run: Path) -> str:
    """Of every process, in both formats."""
    state = newest_state(run)
    assert state is not None
    formats = ("text/plain", "application/openmetrics-text; version=1.0.0")
    async with httpx2.AsyncClient(trust_env=False, timeout=5) as http:
        pages = [
            (await http.get(f"http://{process.metrics}/metrics", headers={"accept": accept})).text
            for process in state.processes
            for accept in formats
        ]
    return "\n".join(pages)


async def test_nothing_private_is_in_logs_spans_or_metrics(tmp_path: Path) -> None:
    install(tmp_path / "site", "crow", {"config.py": CONFIG, "stages.py": CODE})
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": {"caller": {"sha256": hashlib.sha256(KEY.encode()).hexdigest()}}}))
    told = {f"OMNI_{service}_LOG_LEVEL": "DEBUG" for service in ("GATEWAY", "COORDINATOR", "STAGE", "RELAY")}
    settings = {**told, "OMNI_GATEWAY_API_KEYS": str(keys), "OMNI_STAGE_INLINE_LIMIT": "0"}
    async with collecting() as collector:
        options = ["--pipeline", "crow", "--apart", "--verbose", "--otlp", collector.address]
        async with up(tmp_path, *options, python_path=str(tmp_path / "site"), settings=settings) as mesh:
            await mesh.ready()
            answers = await ask_everything(mesh)
            metrics = await metrics_of(tmp_path)
            mesh.ask_to_stop()
            rest, code = await mesh.to_the_end()
        assert code == 0
        spans = bytes(collector.raw).decode(errors="replace")
    logs = "".join([*mesh.said, *rest])

    codes = [code for code, _ in answers]
    assert codes[:5] == [200, 200, 200, 500, 500]
    assert {code // 100 for code in codes[5:]} == {2, 4}
    assert codes[13:16] == [401, 401, 401]
    assert WORD.upper() in answers[0][1].decode()  # it did come to the stages, and back
    # All of it was told of: the failure with its place, the requests, the transfers.
    assert "the model's code raised" in logs
    assert "in fail" in logs
    assert '"pushed"' in logs
    assert "request over here" in logs
    assert "stage.upper" in spans
    assert "omni_relay_bytes_total" in metrics
    for name, where in (("logs", logs), ("spans", spans), ("metrics", metrics)):
        low = where.lower()
        assert [secret for secret in PRIVATE if secret.lower() in low] == [], name
    assert hashlib.sha256(KEY.encode()).hexdigest() not in logs + spans + metrics
