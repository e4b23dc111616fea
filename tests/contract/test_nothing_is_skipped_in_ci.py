"""Where CI is set, a missing tool fails the tests that need it; what no CI has may be skipped, and says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest

@pytest.fixture
def tool():
    pytest.skip("There is no tool.")

def test_in_its_setup(tool): ...

def test_in_its_call():
    pytest.skip("There is no tool.")

@pytest.mark.skipif(True, reason="There is no tool.")
def test_by_its_mark(): ...

@pytest.mark.xfail(reason="A bug that is known.")
def test_that_fails_as_expected():
    raise AssertionError

@pytest.mark.gpu
def test_of_a_gpu(tool): ...
"""


@pytest.mark.parametrize(
    ("ci", "said"),
    [("true", "1 failed, 1 skipped, 1 xfailed, 2 errors"), ("", "4 skipped, 1 xfailed")],
    ids=["CI", "elsewhere"],
)
def test_a_skip_is_a_failure_only_in_ci(ci: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    gpu: needs a GPU\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider", str(tmp_path)]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "CI": ci}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert said in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("There is no tool.") >= (3 if ci else 0)
