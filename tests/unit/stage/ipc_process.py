"""A process that opens another one's tensor on a GPU. Run by test_cuda_ipc.py.

Reads a line that describes the handle, answers "sum N" (of its 32-bit numbers), and "again refused" when lending it on
was refused. Drops it at the next line, and answers "released" when that was noticed.
"""

from __future__ import annotations

import gc
import json
import sys
from dataclasses import asdict
from typing import Any

import torch

from omni_stage.components.cuda_ipc import CannotShare, IpcHandle, Shares, open_shared


def to_line(handle: IpcHandle) -> str:
    return json.dumps({name: _plain(value) for name, value in asdict(handle).items()})


def from_line(line: str) -> IpcHandle:
    return IpcHandle(**{name: _rich(value) for name, value in json.loads(line).items()})


def _plain(value: object) -> object:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def _rich(value: Any) -> Any:
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value


def main() -> None:
    torch.zeros(1, device="cuda")
    print("ready", flush=True)
    memory = open_shared(from_line(sys.stdin.readline()), lambda: print("released", flush=True))
    view = memory.tensor().view(torch.int32)[:]
    try:
        Shares().share(1, memory)
    except CannotShare:
        print("again refused", flush=True)
    del memory
    gc.collect()
    print("sum", view.sum(dtype=torch.int64).item(), flush=True)
    sys.stdin.readline()
    del view
    gc.collect()
    sys.stdin.readline()


if __name__ == "__main__":
    main()
