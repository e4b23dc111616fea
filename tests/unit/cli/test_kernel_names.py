"""What `ps` shows of a process."""

from __future__ import annotations

import pytest

from omni_cli.launcher.child import kernel_name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("echo-split-0", "echo-split-0"),
        ("qwen3-omni-thinker-0", "-omni-thinker-0"),
        ("relay-echo-0", "relay-echo-0"),
        ("relay-qwen3-omni-thinker-0", "relay-thinker-0"),
    ],
)
def test_a_long_name_is_cut_so_that_replicas_and_relays_are_told_apart(name: str, shown: str) -> None:
    assert kernel_name(name) == shown
