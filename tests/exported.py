# SPDX-License-Identifier: Apache-2.0
"""Whether an exported ONNX file computes what the integer graph does."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from tte.ir import Graph
from tte.reference import run_op

Array = NDArray[Any]


def check_export(forward: Graph, codes: Array, content: bytes) -> float:
    """Each layer on onnxruntime's own inputs: its codes differ by one at most, its scores hardly.
    Returns the share of all codes that differ."""
    model = onnx.load_from_string(content)
    layers = [node.output[0] for node in model.graph.node if node.output[0].endswith(".codes")]
    output = model.graph.output[0].name
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT8, None) for name in layers
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    quant = forward[forward.inputs[0]].quant
    assert quant is not None
    real = in_file(quant.dequantize(codes).astype(np.float32))
    scores, *found = session.run([output, *layers], {session.get_inputs()[0].name: real})
    names = [name.removesuffix(".codes") for name in layers]
    values = dict(zip(names, map(in_memory, found), strict=True))
    np.testing.assert_array_equal(values[forward.inputs[0]], codes)
    differing = count = 0
    for op in forward.ops:
        expected = run_op(forward, op, values)[0]
        name = op.outputs[0]
        if forward[name].type.dtype == "int8":
            distance = np.abs(values[name].astype(int) - expected)
            assert distance.max() <= 1, op.name
            differing, count = differing + int(distance.sum()), count + distance.size
            continue
        values[name] = expected
        logits = forward[name].quant
        assert logits is not None
        if name == forward.outputs[0] and model.graph.node[-1].op_type == "Identity":
            wanted = logits.dequantize(expected)
            tolerance = 1e-4 * max(1e-3, float(np.abs(wanted).max()))
            np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=tolerance)
    return differing / max(count, 1)


def in_file(array: Array) -> Array:
    return array.transpose(0, 3, 1, 2) if array.ndim == 4 else array


def in_memory(array: Array) -> Array:
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
