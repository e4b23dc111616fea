"""The changed graph says what the voice's own graph says; the noise is ours."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from tests.unit.stage.one_process import context

from omni_common.tensor import DType, Tensor
from omni_stage.models.piper.components.graph import DURATION_NOISE, LATENT_NOISE, load_graph
from omni_stage.models.piper.components.noise import Noise
from omni_stage.models.piper.components.phonemes import Alphabet
from omni_stage.models.piper.components.synthesiser import Synthesiser, open_synthesiser, to_pcm
from omni_stage.models.piper.components.voice import load_voice
from omni_stage.models.piper.payload_types import Sentence
from omni_stage.models.piper.stages import FAMILY

Feed = dict[str, npt.NDArray[np.generic]]

LONG = "ðə kwˈɪk bɹˈaʊn fˈɑːks dʒˈʌmps ˌoʊvɚ ðə lˈeɪzi dˈɑːɡ."
SHORT = "həlˈoʊ ðˈɛɹ, hˈaʊ ɑːɹ juː?"


@pytest.fixture(scope="module")
def model(joe: Path) -> Path:
    return joe / "en_US-joe-medium.onnx"


@pytest.fixture(scope="module")
def say(joe: Path) -> dict[str, Sentence]:
    alphabet = Alphabet(load_voice(joe))
    return {text: sentence(alphabet.ids(text)) for text in (LONG, SHORT)}


def sentence(ids: npt.NDArray[np.int16], speaker: int = 0) -> Sentence:
    return Sentence(Tensor(DType.INT16, ids.shape, memoryview(ids.tobytes())), speaker, pause=False)


def test_without_noise_the_changed_graph_is_the_voice_s_own(model: Path, say: dict[str, Sentence]) -> None:
    graph = load_graph(model)
    ids = np.frombuffer(say[LONG].ids.data, np.int16).astype(np.int64)[None]
    feed: Feed = {
        "input": ids,
        "input_lengths": np.array([ids.shape[1]], np.int64),
        "scales": np.array([0.0, 1.0, 0.0], np.float32),
    }
    noise: Feed = {
        DURATION_NOISE: np.ones((1, 2, ids.shape[1]), np.float32),
        LATENT_NOISE: np.ones((1, graph.channels, 8), np.float32),
    }

    (own,) = run(model, feed)
    ours, durations = run(graph.model, feed | noise)
    assert np.array_equal(ours, own)
    assert int(durations.sum()) * 256 == own.shape[-1]


def run(model: Path | bytes, feed: Feed) -> list[npt.NDArray[np.float32]]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    made: list[npt.NDArray[np.float32]] = session.run(None, feed)
    return made


def test_the_same_sentence_and_seed_give_the_same_samples(synthesiser: Synthesiser, say: dict[str, Sentence]) -> None:
    one, again, other = (synthesiser.synthesise([say[SHORT]], [seed])[0][0] for seed in (7, 7, 8))

    assert np.array_equal(one, again)
    assert len(one) != len(other) or not np.array_equal(one, other)


def test_a_row_of_a_padded_batch_is_the_sentence_alone(synthesiser: Synthesiser, say: dict[str, Sentence]) -> None:
    """To a few steps of 16 bits: at its end the vocoder sees the padding, and a batch is summed in another order."""
    batch = synthesiser.synthesise([say[SHORT], say[LONG], say[SHORT]], [0, 0, 5])
    for row, (text, seed) in zip(batch, ((SHORT, 0), (LONG, 0), (SHORT, 5)), strict=True):
        (alone,) = synthesiser.synthesise([say[text]], [seed])
        assert row[1] == alone[1]
        assert len(row[0]) == len(alone[0]) == 256 * alone[1]
        assert np.abs(row[0] - alone[0]).max() < 2e-4


def test_speech_is_as_long_as_speech_is_and_not_silent(synthesiser: Synthesiser, say: dict[str, Sentence]) -> None:
    samples, frames = synthesiser.synthesise([say[LONG]], [0])[0]

    assert 1.5 < frames * 256 / 22050 < 6
    assert 0.1 < np.abs(samples).max() <= 1


def test_noise_is_normal_and_longer_noise_begins_with_shorter() -> None:
    noise = Noise(3, 0, np.arange(50, dtype=np.int16))
    drawn = noise.latents(2000, 192)

    assert np.array_equal(noise.latents(100, 192), drawn[:, :100])
    assert np.array_equal(noise.durations(10), noise.durations(50)[:, :10])
    assert abs(drawn.mean()) < 0.01
    assert abs(drawn.std() - 1) < 0.01
    assert abs((drawn**3).mean()) < 0.03
    assert abs((drawn**4).mean() - 3) < 0.05
    assert np.abs(np.cov(drawn) - np.eye(192)).max() < 0.2


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Noise(4, 0, np.arange(50, dtype=np.int16)), id="seed"),
        pytest.param(Noise(-3, 0, np.arange(50, dtype=np.int16)), id="negative seed"),
        pytest.param(Noise(3, 1, np.arange(50, dtype=np.int16)), id="speaker"),
        pytest.param(Noise(3, 0, np.arange(51, dtype=np.int16)), id="sentence"),
    ],
)
def test_noise_depends_on(other: Noise) -> None:
    mine = Noise(3, 0, np.arange(50, dtype=np.int16))

    assert not np.isclose(mine.durations(20), other.durations(20)).any()
    assert abs(np.corrcoef(mine.latents(500, 2).ravel(), other.latents(500, 2).ravel())[0, 1]) < 0.15


def test_noise_too_short_begins_again(model: Path, say: dict[str, Sentence]) -> None:
    """So much the graph does by itself; the synthesiser gives more than any sentence takes."""
    graph = load_graph(model)
    ids = np.frombuffer(say[SHORT].ids.data, np.int16).astype(np.int64)[None]
    noise = Noise(0, 0, ids[0].astype(np.int16))
    few = noise.latents(16, graph.channels)
    feed: Feed = {
        "input": ids,
        "input_lengths": np.array([ids.shape[1]], np.int64),
        "scales": np.array([0.667, 1.0, 0.0], np.float32),
        DURATION_NOISE: noise.durations(ids.shape[1])[None],
    }

    assert np.array_equal(
        run(graph.model, feed | {LATENT_NOISE: few[None]})[0],
        run(graph.model, feed | {LATENT_NOISE: np.tile(few, 40)[None]})[0],
    )


def test_a_model_with_speakers_is_told_which(model: Path, tmp_path: Path, joe: Path, say: dict[str, Sentence]) -> None:
    """The packaged voice with an input `sid`, as voices with speakers have it, that makes it as loud as its number."""
    changed = onnx.load(model)
    for named in changed.graph.initializer:  # its embeddings happen to have the name
        named.name = named.name.replace("sid", "embeddings")
    for node in changed.graph.node:
        node.input[:] = ["embeddings" if name == "sid" else name for name in node.input]
    changed.graph.input.append(helper.make_tensor_value_info("sid", TensorProto.INT64, ["batch_size"]))
    changed.graph.node[-1].output[0] = "quiet"
    shape = onnx.numpy_helper.from_array(np.array([-1, 1, 1, 1]), "as_row")
    changed.graph.initializer.append(shape)
    changed.graph.node.extend(
        [
            helper.make_node("Reshape", ["sid", "as_row"], ["sid_row"]),
            helper.make_node("Cast", ["sid_row"], ["loudness"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["quiet", "loudness"], ["output"]),
        ]
    )
    onnx.save(changed, tmp_path / "many.onnx")
    (tmp_path / "many.onnx.json").write_bytes((joe / "en_US-joe-medium.onnx.json").read_bytes())
    many = open_synthesiser(load_voice(tmp_path), context(FAMILY, FAMILY.pipeline.stage("synthesise"), tmp_path))

    ids = np.frombuffer(say[SHORT].ids.data, np.int16)
    mute, loud = (row for row, _ in many.synthesise([sentence(ids, 0), sentence(ids, 2)], [0, 0]))
    assert not mute.any()
    assert np.abs(loud).max() > 0.1


def test_a_model_that_is_no_voice_is_refused(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("input", TensorProto.INT64, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["input"], ["output"])], "none", [value], [value])
    onnx.save(helper.make_model(graph), tmp_path / "none.onnx")

    with pytest.raises(ValueError, match=r"none.onnx is not a Piper voice"):
        load_graph(tmp_path / "none.onnx")


def test_a_model_that_was_cut_short_is_named(tmp_path: Path, joe: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes((joe / "en_US-joe-medium.onnx").read_bytes()[:1_000_000])

    with pytest.raises(ValueError, match=rf"^{tmp_path}/cut\.onnx is damaged, or is something else: "):
        load_graph(tmp_path / "cut.onnx")


def test_what_is_too_loud_is_cut_off_and_what_is_no_number_is_silent() -> None:
    loud = np.array([0.0, 0.5, 1.5, -9.0, np.nan, np.inf, -np.inf], np.float32)

    assert np.frombuffer(to_pcm(loud), "<i2").tolist() == [0, 16383, 32767, -32767, 0, 32767, -32767]


def test_a_gpu_that_is_not_there_is_an_error_at_start(joe: Path) -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(ValueError, match="needs the package onnxruntime-gpu"):
        open_synthesiser(
            load_voice(joe), replace(context(FAMILY, FAMILY.pipeline.stage("synthesise"), joe), device="cuda:1")
        )


def test_no_stage_imports_torch(joe: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from omni_stage.models.piper.stages import FAMILY;"
        "from tests.unit.stage.one_process import context;"
        f"folder = Path({str(joe)!r});"
        "stages = FAMILY.pipeline.stages;"
        "made = [FAMILY.factories[stage.name](context(FAMILY, stage, folder)) for stage in stages];"
        "[program.warm_up() for program in made];"
        "print(sorted({'torch', 'transformers', 'scipy'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=50)

    assert answer.stdout == b"[]\n"
