"""The first lines of every process that the launcher starts: tie it to the launcher, give it its settings, run it.

python -m omni_cli.launcher.child PARENT_PID SERVICE
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
from collections.abc import Mapping

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_NAME_LENGTH = 15
_RELAY = "relay-"


def tie_to_parent(parent: int) -> None:
    """From here on this process dies when the thread that started it does, even when that one is killed by SIGKILL.

    SIGKILL and not SIGTERM: nobody is left to answer, and a drain would only hold the ports.
    Only Linux has this; elsewhere processes of a killed launcher stay until they are stopped by hand.
    """
    if sys.platform != "linux":
        return
    if _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) was refused")
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)


def name_process(name: str) -> None:
    """What `ps -o comm` and `top` show."""
    if sys.platform == "linux":
        _prctl(_PR_SET_NAME, ctypes.c_char_p(kernel_name(name).encode()))


def kernel_name(name: str) -> str:
    """The kernel keeps 15 characters: the last ones, which tell replicas apart, and of a relay that it is one."""
    if len(name) > _NAME_LENGTH and name.startswith(_RELAY):
        return _RELAY + name[len(_RELAY) - _NAME_LENGTH :]
    return name[-_NAME_LENGTH:]


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child: ours and its settings."""
    return {**os.environ, **settings}  # noqa: TID251 -- it is handed on here, not read


def adopt(settings: Mapping[str, str]) -> None:
    """Gives the settings to a forked process, which has the environment of its parent."""
    os.environ.update(settings)  # noqa: TID251 -- it is handed on here, not read


def run(service: str) -> None:
    """Runs a service as `python -m SERVICE` would."""
    importlib.import_module(f"{service}.__main__").main()


def _prctl(option: int, value: int | ctypes.c_char_p) -> int:
    result: int = ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
    return result


if __name__ == "__main__":
    tie_to_parent(int(sys.argv[1]))
    name_process(sys.argv[3])
    run(sys.argv[2])
