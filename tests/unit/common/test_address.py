"""Hosts and ports of either family as text."""

from __future__ import annotations

import pytest

from omni_common.address import join_host_port


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("10.0.0.7", "10.0.0.7:7070"),
        ("omni-coordinator", "omni-coordinator:7070"),
        ("fd00::7", "[fd00::7]:7070"),
        ("[fd00::7]", "[fd00::7]:7070"),
        ("::", "[::]:7070"),
    ],
)
def test_an_ipv6_address_stands_in_brackets(host: str, text: str) -> None:
    assert join_host_port(host, 7070) == text
