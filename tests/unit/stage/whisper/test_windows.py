"""Where a long recording is cut. Here a sample of 1 is speech; real speech is in test_preprocess."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from omni_stage.models.whisper.components.windows import Cutting, Samples, Span, Stretch, cut

CUTTING = Cutting(window=100, margin=4)


def recording(*lengths: int) -> Samples:
    """Silence and speech in turn."""
    return np.concatenate([np.full(length, n % 2, np.float32) for n, length in enumerate(lengths)])


def find_speech(samples: Samples) -> Sequence[Span]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0.0], samples, [0.0]])))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def blocks_of(samples: Samples, size: int = 7) -> Iterator[Samples]:
    return (samples[at : at + size] for at in range(0, len(samples), size))


def stretches(samples: Samples) -> list[Stretch]:
    return list(cut(blocks_of(samples), find_speech, CUTTING))


def windows(samples: Samples) -> list[tuple[int, int]]:
    return [(s.start, s.start + s.length) for s in stretches(samples) if s.samples is not None]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        pytest.param((30, 10, 60), [(0, 100)], id="what fits one window is one, with all its silence"),
        pytest.param((100,), [], id="nobody speaks"),
        pytest.param((350,), [], id="nobody speaks for long"),
        pytest.param((0, 70, 20, 60), [(0, 74), (86, 150)], id="cut in a silence, which is left out but for margins"),
        pytest.param((0, 70, 4, 60), [(0, 72), (72, 134)], id="a short silence is halved"),
        pytest.param((0, 55, 20, 20, 3, 60), [(0, 59), (71, 158)], id="cut in the longest silence"),
        pytest.param((0, 20, 20, 55, 3, 60), [(0, 96), (96, 158)], id="silences of the first half do not count"),
        pytest.param((0, 20, 40, 80), [(0, 24), (56, 140)], id="one that reaches into the later half does"),
        pytest.param((0, 250), [(0, 100), (100, 200), (200, 250)], id="who never pauses is cut hard"),
        pytest.param((250, 90, 20), [(246, 343)], id="a window begins with speech, after any silence"),
        pytest.param((80, 90), [(76, 170)], id="and then has its whole length"),
    ],
)
def test_a_recording_is_cut(lengths: tuple[int, ...], expected: list[tuple[int, int]]) -> None:
    assert windows(recording(*lengths)) == expected


def test_no_more_than_a_window_is_read_ahead() -> None:
    read = 0

    def blocks() -> Iterator[Samples]:
        nonlocal read
        for block in blocks_of(recording(0, 70, 20, 70, 20, 70, 20, 400)):
            read += len(block)
            yield block

    for stretch in cut(blocks(), find_speech, CUTTING):
        assert read <= stretch.start + CUTTING.window + 1 + 7


@given(st.lists(st.integers(1, 180), min_size=1, max_size=12), st.integers(1, 150))
def test_all_speech_is_in_a_window_once_and_every_sample_is_in_its_place(lengths: list[int], size: int) -> None:
    samples = recording(*lengths)
    made = list(cut(blocks_of(samples, size), find_speech, CUTTING))
    heard: NDArray[np.int64] = np.zeros(len(samples), np.int64)

    at = 0
    for stretch in made:
        assert stretch.start >= at
        at = stretch.start + stretch.length
        if stretch.samples is not None:
            assert 0 < stretch.length <= CUTTING.window
            assert np.array_equal(stretch.samples, samples[stretch.start : at])
            assert stretch.samples.any()
            heard[stretch.start : at] += 1
    assert at == len(samples)
    assert heard.max(initial=0) <= 1
    assert heard[samples == 1].all()
