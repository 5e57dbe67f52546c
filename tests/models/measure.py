# SPDX-License-Identifier: Apache-2.0
"""How good a trained model is, as floats in onnxruntime and as integers in the interpreter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from tests.models.data import Array, model_input
from tests.onnx_models import run_onnx
from tte.data import Dataset, InputTransform
from tte.pipeline import Prepared
from tte.reference import run_op


def float_outputs(path: Path, x: Array) -> Array:
    """onnxruntime's outputs for raw samples, channels last, flat."""
    rank = len(onnx.load(path).graph.input[0].type.tensor_type.shape.dim)
    y = run_onnx(path, model_input(x, rank))
    return (y.transpose(0, 2, 3, 1) if y.ndim == 4 else y).reshape(len(x), -1)


def int8_outputs(prepared: Prepared, x: Array) -> Array:
    """Real outputs of the integer network for raw samples, flat."""
    graph, spec = prepared.forward, prepared.input
    transform = InputTransform(spec.scale, spec.zero_point, spec.mean, spec.std)
    source, output = graph.inputs[0], graph.outputs[0]
    shape, quant = graph[source].type.shape, graph[output].quant
    assert quant is not None
    found = []
    for start in range(0, len(x), 20):
        codes = transform.quantize(x[start : start + 20])
        values = {source: codes.reshape(len(codes), *shape[1:])}
        for op in graph.ops:
            values[op.outputs[0]] = run_op(graph, op, values)[0]
            for name in op.reads:
                if graph.consumers[name][-1] is op:
                    values.pop(name, None)
        found.append(quant.dequantize(values[output]).reshape(len(codes), -1))
    return np.concatenate(found)


def score(outputs: Array, dataset: Dataset) -> float:
    """Share of the test part's labels or mask pixels that are right; for an autoencoder the area
    under the ROC curve with which the reconstruction error finds the faulty second half."""
    if dataset.has_labels:
        return float((outputs.argmax(axis=1) == dataset.y_test).mean())
    wanted = dataset.y_test.reshape(len(outputs), -1)
    if not dataset.is_autoencoder:
        return float(((outputs > 0.5) == (wanted > 0.5)).mean())
    errors = ((outputs - wanted) ** 2).mean(axis=1)
    healthy, faulty = np.split(errors, 2)
    return float((healthy[:, None] < faulty).mean())
