"""Logs on the terminal: each line with the name of its process, until the last one has ended."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import anyio
import pytest

from omni_cli.launcher.logs import begin_life, last_lines, log_of, printed

pytestmark = pytest.mark.anyio


async def test_every_line_is_said_with_its_process_and_the_last_ones_are_not_lost(tmp_path: Path) -> None:
    said: list[str] = []
    async with printed(tmp_path, ["a", "b"], said.append):
        write(log_of(tmp_path, "a"), b"one\ntw")
        write(log_of(tmp_path, "b"), b"\n\xff\n")
        write(log_of(tmp_path, "a"), b"o\nand no end of line")
    assert sorted(said) == ["a | and no end of line", "a | one", "a | two", "b | �"]


async def test_a_process_can_write_more_than_a_pipe_holds_after_the_mesh_is_told_to_stop(tmp_path: Path) -> None:
    said: list[str] = []
    with anyio.fail_after(20), anyio.CancelScope() as stopping:
        async with printed(tmp_path, ["a"], said.append):
            stopping.cancel()
            with anyio.CancelScope(shield=True), log_of(tmp_path, "a").open("wb") as log:
                await anyio.run_process(["seq", "100000"], stdout=log, stderr=subprocess.DEVNULL)
    assert (len(said), said[-1]) == (100_000, "a | 100000")


async def test_a_pipe_has_no_last_lines_to_wait_for(tmp_path: Path) -> None:
    async with printed(tmp_path, ["a"], lambda line: None):
        assert begin_life(log_of(tmp_path, "a")) == 0
        assert last_lines(log_of(tmp_path, "a")) == ()


def write(log: Path, data: bytes) -> None:
    """As a process does that was given the log."""
    pipe = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.write(pipe, data)
    os.close(pipe)
