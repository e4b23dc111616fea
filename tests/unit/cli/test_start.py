"""How light `omni` starts."""

from __future__ import annotations

import subprocess
import sys


def test_commands_that_talk_to_no_mesh_do_not_wait_for_openais_client() -> None:
    """It takes longer to import than all else together."""
    script = "import sys, omni_cli.app; print('openai' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
