"""The way to the relay's socket in the pod's shared folder."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from omni_common.relay.packets import LineLost

SOCKET = "relay.sock"
"""The socket's file in the shared folder."""


def dial(folder: Path) -> socket.socket:
    """A connection to the folder's relay. Never waits. Raises LineLost."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        # Through the open folder, since a Unix socket's path may have 107 bytes only.
        at = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{at}/{SOCKET}")
        finally:
            os.close(at)
    except OSError as error:
        sock.close()
        raise LineLost(f"it cannot be reached ({error.strerror})") from error
    return sock
