"""What a process wrote last."""

from __future__ import annotations

import json
from pathlib import Path

from omni_cli.launcher.logs import begin_life, last_lines


def test_only_the_lines_of_the_last_life_are_shown(tmp_path: Path) -> None:
    log = tmp_path / "thinker-0.log"
    log.write_text("before\n")
    since = begin_life(log)
    log.write_text("before\nafter\n")
    assert last_lines(log, since) == ("after",)


def test_a_long_log_is_shown_by_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {i}\n" for i in range(100_000)))
    assert last_lines(log) == tuple(f"line {i}" for i in range(99_988, 100_000))


def test_a_traceback_inside_a_json_line_is_shown_as_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(json.dumps({"level": "ERROR", "msg": "it broke", "exception": "Traceback:\n  here"}) + "\n{ no")
    assert last_lines(log) == ("ERROR it broke Traceback:", "  here", "{ no")


def test_a_sentence_at_the_end_is_all_that_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "log"
    lines = [{"level": "ERROR", "msg": "it broke", "exception": "Traceback"}, {"level": "ERROR", "msg": "It has no X."}]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert last_lines(log) == ("It has no X.",)


def test_what_a_line_is_about_is_shown_with_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    line = {"ts": "now", "level": "INFO", "service": "stage", "logger": "a.b", "msg": "session ended", "stage": "join"}
    log.write_text(json.dumps(line | {"peer": "coordinator-0", "trace_id": ""}) + "\n")
    assert last_lines(log) == ("INFO session ended stage=join peer=coordinator-0",)


def test_a_log_that_grew_too_long_starts_anew_with_the_next_life(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * (9 << 20))
    assert begin_life(log) == 0
    assert log.stat().st_size == 0


def test_a_process_that_never_wrote_has_no_last_lines(tmp_path: Path) -> None:
    assert begin_life(tmp_path / "none") == 0
    assert last_lines(tmp_path / "none") == ()
