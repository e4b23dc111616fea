"""Runs in a pod of the cluster, by nothing but the standard library: chats without a pause until the file STOP is
there, each on a connection of its own, and never tries one again. Then it writes one line of JSON: how many, and what
went wrong with which.

It is given to `python -c`, so it reads all it needs from its environment.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import threading
import time
from pathlib import Path

HOST = os.environ["LOAD_HOST"]
PORT = int(os.environ["LOAD_PORT"])
MODEL = os.environ["LOAD_MODEL"]
AT_ONCE = int(os.environ.get("LOAD_AT_ONCE", "4"))
SECONDS = float(os.environ.get("LOAD_SECONDS", "900"))
CA = os.environ["LOAD_CA"]
STOP = Path("/tmp/stop")  # noqa: S108  # in a container of its own
BODY = json.dumps(
    {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Count to ten."}],
        "modalities": ["text", "audio"],
        "audio": {"voice": "ethan", "format": "pcm16"},
        "max_tokens": 24,
        "stream": True,
    }
)

sent = 0
failed: list[str] = []
counting = threading.Lock()


def ask() -> str:
    """Empty when all went well."""
    context = ssl.create_default_context(cafile=CA)
    connection = http.client.HTTPSConnection(HOST, PORT, timeout=120, context=context)
    try:
        connection.request("POST", "/v1/chat/completions", BODY, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode()
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    except http.client.HTTPException as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    if answer.status != 200:
        return f"{answer.status}: {text[:300]}"
    if '"error"' in text or "data: [DONE]" not in text:
        return f"a stream that did not end well: {text[-300:]}"
    return ""


def work(deadline: float) -> None:
    global sent
    while not STOP.exists() and time.monotonic() < deadline:
        began = time.strftime("%H:%M:%S")
        trouble = ask()
        with counting:
            sent += 1
            if trouble:
                failed.append(f"{began} {trouble}")


workers = [threading.Thread(target=work, args=(time.monotonic() + SECONDS,)) for _ in range(AT_ONCE)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print(json.dumps({"sent": sent, "failed": failed[:20], "failures": len(failed)}), flush=True)
