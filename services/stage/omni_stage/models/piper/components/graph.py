"""The voice's ONNX graph, changed at load so that nothing in it is drawn by chance.

As exported, a VITS graph draws noise in two places by RandomNormalLike: for the durations of the phonemes, and for
the latent frames. Here both become inputs, so that the caller decides what is drawn and the same request always sounds
the same. How many frames there will be is known inside only: the latent noise is taken by frame, from its start again
where it is too short. The durations become a second output: they say where a row of a padded batch ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from omni_stage.damaged import reading

DURATION_NOISE = "duration_noise"  # float32 [batch, 2, phonemes]
LATENT_NOISE = "latent_noise"  # float32 [batch, channels, frames]
_DRAW = "RandomNormalLike"
_PREFIX = "given_noise/"
_TIME_AXIS = 2


@dataclass(frozen=True, slots=True)
class Graph:
    """`outputs` are the names of the samples [batch, 1, 1, samples] and of the durations [batch, 1, phonemes]."""

    model: bytes
    outputs: tuple[str, str]
    channels: int
    takes_speaker: bool


def load_graph(file: Path) -> Graph:
    """Raises ValueError with a sentence when the file is not a VITS model as Piper exports it."""
    with reading(file, DecodeError):
        model = onnx.load(file)
    draws = [node for node in model.graph.node if node.op_type == _DRAW]
    # The one place where a real number becomes a count: how many frames a phoneme lasts.
    durations = [node for node in model.graph.node if node.op_type == "Ceil"]
    inputs = [given.name for given in model.graph.input]
    if len(draws) != 2 or len(durations) != 1 or inputs[:3] != ["input", "input_lengths", "scales"]:
        raise ValueError(f"{file.name} is not a Piper voice: its graph is not that of a VITS model.")
    # In the order of the graph: there are no latent frames before there are durations.
    duration, latent = draws
    channels = _channels(model, latent.output[0])
    _replace(model, duration, [helper.make_node("Identity", [DURATION_NOISE], duration.output)])
    _replace(model, latent, _taken_by_frame(latent))
    _declare(model, DURATION_NOISE, ["batch_size", 2, "phonemes"])
    _declare(model, LATENT_NOISE, ["batch_size", channels, "noise_frames"])
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.int64), _PREFIX + name)
        for name, value in (("zero", 0), ("one", 1), ("time", _TIME_AXIS))
    )
    audio, lasts = model.graph.output[0].name, durations[0].output[0]
    model.graph.output.append(helper.make_tensor_value_info(lasts, TensorProto.FLOAT, None))
    return Graph(model.SerializeToString(), (audio, lasts), channels, takes_speaker="sid" in inputs)


def _channels(model: ModelProto, name: str) -> int:
    """The second dimension of a value inside the graph."""
    for value in onnx.shape_inference.infer_shapes(model).graph.value_info:
        dims = value.type.tensor_type.shape.dim
        if value.name == name and len(dims) == _TIME_AXIS + 1 and dims[1].dim_value:
            return int(dims[1].dim_value)
    raise ValueError("The voice's graph does not say how many latent channels it has.")


def _replace(model: ModelProto, old: NodeProto, new: Sequence[NodeProto]) -> None:
    """In its place, since a graph's nodes stand in the order in which they are computed."""
    nodes = list(model.graph.node)
    at = nodes.index(old)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:at], *new, *nodes[at + 1 :]])


def _taken_by_frame(draw: NodeProto) -> list[NodeProto]:
    """Nodes that take `LATENT_NOISE[:, :, arange(frames) % its length]` in place of a draw."""

    def name(local: str) -> str:
        return _PREFIX + local

    return [
        helper.make_node("Shape", [draw.input[0]], [name("shape")]),
        helper.make_node("Gather", [name("shape"), name("time")], [name("frames")], axis=0),
        helper.make_node("Range", [name("zero"), name("frames"), name("one")], [name("frame")]),
        helper.make_node("Shape", [LATENT_NOISE], [name("given")]),
        helper.make_node("Gather", [name("given"), name("time")], [name("length")], axis=0),
        helper.make_node("Mod", [name("frame"), name("length")], [name("at")]),
        helper.make_node("Gather", [LATENT_NOISE, name("at")], draw.output, axis=_TIME_AXIS),
    ]


def _declare(model: ModelProto, name: str, shape: Sequence[str | int]) -> None:
    model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
