"""An answer in one body."""

from __future__ import annotations

import base64

from omni_gateway.audio.speech import SpeechFile
from omni_gateway.call import Call, Finished
from omni_gateway.chat.chunks import Completion, Speech
from omni_gateway.http.sse import Json
from omni_gateway.tally import Tally
from omni_gateway.timings import timings_body


async def gather(call: Call, tally: Tally, speech: SpeechFile | None) -> Finished:
    """Reads the whole answer. Raises the failure that ended it."""
    while tally.finished is None:
        batch = tally.see(await call.read())
        if speech is not None:
            await speech.add(batch.audio)
    return tally.finished


async def answer_whole(
    call: Call,
    tally: Tally,
    completion: Completion,
    *,
    file: SpeechFile | None,
    audio_id: str,
    expires_at: int,
    timings: bool,
) -> Json:
    """The body, once the answer is complete. `file` gathers the speech, where there is any."""
    finished = await gather(call, tally, file)
    speech = None
    if file is not None:
        data = base64.b64encode(await file.finish()).decode("ascii")
        speech = Speech(audio_id, data, expires_at)
    body = completion.whole(text=tally.text, speech=speech, finish=finished.finish_reason, usage=finished.usage)
    if timings:
        body["omni"] = timings_body(tally.request_id, finished.reports)
    return body
