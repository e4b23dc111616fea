"""`omni demo` on a fresh folder: a voice is heard, Qwen3-Omni answers with a tiny model, nothing is left."""

from __future__ import annotations

import re
import subprocess
import sys
import wave
from pathlib import Path

import pytest

MEDIA = Path(__file__).parents[1] / "media"
STAGES = ["preprocess", "aggregate", "image_encoder", "audio_encoder", "thinker", "talker", "decode", "code2wav"]


@pytest.mark.slow
@pytest.mark.timeout(240)  # it imports torch and loads a dozen stages; on a busy machine that takes a minute
def test_the_demo_speaks_hears_answers_and_says_that_the_model_is_random(tmp_path: Path) -> None:
    command = ["demo", "--image", str(MEDIA / "cat.jpg"), "--audio", str(MEDIA / "question.wav")]
    done = subprocess.run(
        [sys.executable, "-m", "omni_cli", *command],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    before, _, answer = done.stdout.partition("It answers:\n\n")
    assert "piper says:   Good morning." in before
    assert re.search(r"^whisper heard: .*\bhears\b", before, re.M)
    assert re.search(r"^Word error rate: [01] of 15 words", before, re.M)
    with wave.open(str(tmp_path / ".omni" / "spoken.wav")) as spoken:
        assert 3 < spoken.getnframes() / spoken.getframerate() < 8
    text, _, after = answer.partition("\n\n")
    assert text.strip()
    assert {stage for stage in STAGES if f"\n{stage} " in after} == set(STAGES)
    assert "tiny and random" in after
    assert "make demo MODEL=/path/or/hub-id" in after
    with wave.open(str(tmp_path / ".omni" / "demo.wav")) as file:
        assert (file.getnframes() + 555) % 1920 == 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".omni-", "omni-"))] == []
