# SPDX-License-Identifier: Apache-2.0
"""Networks as Keras' users have them, through tf2onnx and through TensorFlow's own converter
(tests/data/export_keras.py made the files), compute what Keras computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import tflite_worker
from tests.layerwise import integers
from tte.frontend.load import load_model
from tte.ir import Graph
from tte.passes.fold import fold
from tte.reference import run_float, run_op

DATA = Path(__file__).resolve().parent.parent / "data"
NAMES = ("keras_images", "keras_series")


def samples(name: str, graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    """Inputs, as the graph takes them, and Keras' outputs."""
    with np.load(DATA / f"{name}.npz") as data:
        x, y = data["x"], data["y"]
    return x.reshape(len(x), *graph[graph.inputs[0]].type.shape[1:]), y


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", NAMES)
def test_tf2onnx(name: str) -> None:
    graph = load_model(DATA / f"{name}.onnx")
    folded = fold(graph)
    assert not {"transpose", "clip", "batch_norm", "pad"} & {op.kind for op in folded.ops}
    x, y = samples(name, graph)
    np.testing.assert_allclose(run_float(graph, x)[graph.outputs[0]], y, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_tensorflow_lite(name: str) -> None:
    """Integers against the interpreter: the scores of up to 20 layers within a quantum."""
    path = DATA / f"{name}.tflite"
    imported = load_model(path)
    x, y = samples(name, imported)
    assert np.abs(run_float(imported, x)[imported.outputs[0]] - y).max() < 0.02
    graph = integers(imported)
    assert not {"strided_copy_int8", "clip_int8"} & {op.kind for op in graph.ops}
    quant, output = graph[graph.inputs[0]].quant, graph[graph.outputs[0]].quant
    assert quant is not None and output is not None
    values = {graph.inputs[0]: quant.quantize(x)}
    for op in graph.ops:
        results = run_op(graph, op, values)
        values.update((n, r) for n, r in zip(op.outputs, results, strict=False) if n)
    found = output.dequantize(values[graph.outputs[0]])
    given = values[graph.inputs[0]]
    with np.load(DATA / f"{name}.npz") as data:
        given = given.reshape(data["x"].shape)
    theirs = tflite_worker.codes("ai_edge_litert", str(path), given)
    _, key = (key for key in theirs if not key.endswith("/quant"))
    scale, zero_point = theirs[f"{key}/quant"]
    expected = (theirs[key].astype(float) - zero_point) * scale
    found = softmax(found) if name == "keras_images" else found
    assert np.abs(found - expected).max() <= 1.5 * scale  # found: 0.92 and 0.46
