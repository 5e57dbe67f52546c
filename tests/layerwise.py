# SPDX-License-Identifier: Apache-2.0
"""An integer graph against another implementation of the same quantised model, layer by layer.

Every layer gets the other implementation's own codes as its inputs, so that a difference of one
quantum, which rounding ties make, does not grow on its way through the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.onnx_models import nhwc
from tte.frontend.onnx_file import read_onnx
from tte.frontend.qoperator import decompose
from tte.ir import Graph, QuantParams
from tte.passes.calibrate import calibrate
from tte.passes.fold import fold
from tte.passes.quantize import quantize
from tte.reference import run_op


@dataclass(frozen=True)
class Codes:
    """int8 codes of a tensor, [N, ...] in the order of the graph, and what they stand for."""

    data: NDArray[np.int8]
    quant: QuantParams


def integers(graph: Graph) -> Graph:
    """The integer graph of an imported model whose quantisation the file tells completely."""
    folded = fold(graph)
    shape = folded[folded.inputs[0]].type.shape
    return quantize(calibrate(folded, np.zeros(shape, np.float32)))


def differences(graph: Graph, given: Mapping[str, Codes]) -> dict[str, int]:
    """Largest difference in quanta of each op's output that is given, by tensor name. Left out is
    what does not compute from the same codes: the passes merge quantisations in a row into the
    last of them."""
    same = {
        name: codes
        for name, codes in given.items()
        if name in graph.tensors and graph[name].quant in (codes.quant, None)
    }
    values = {name: codes.data for name, codes in given.items() if name in graph.inputs}
    assert set(graph.inputs) <= set(same)
    known = set(same)
    found = {}
    for op in graph.ops:
        output = op.outputs[0]
        result = run_op(graph, op, values)[0]
        from_known = all(name in known or graph[name].data is not None for name in op.reads)
        is_logits = result.dtype == np.int32
        if output in given and from_known and (output in same or is_logits):
            other = given[output]
            if is_logits:  # accumulators that nobody rounds
                quant = graph[output].quant
                assert quant is not None
                real = quant.dequantize(result) / other.quant.per_tensor_scale
                result = np.clip(np.floor(real + 0.5) + other.quant.zero_point, -128, 127)
            distance = np.abs(result.astype(np.int64) - other.data.reshape(result.shape))
            found[output] = int(distance.max())
        elif from_known and output not in given:
            known.add(output)
        values[output] = same[output].data.reshape(result.shape) if output in same else result
    return found


def onnxruntime_codes(path: Path, imported: Graph, x: NDArray[np.float32]) -> dict[str, Codes]:
    """onnxruntime's codes of the quantised activations of an ONNX file."""
    import onnx
    import onnxruntime

    names = {}  # of codes, by the name of the real value
    for node in decompose(read_onnx(path), str(path)).nodes:
        if node.op_type == "QuantizeLinear" and node.inputs[0] in imported.tensors:
            names[node.inputs[0]] = node.outputs[0]
    model = onnx.load(path)
    present = {value.name for value in model.graph.output}
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names.values() if name not in present
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = session.get_inputs()[0].name
    runs = [session.run(list(names.values()), {feed: x[i : i + 1]}) for i in range(len(x))]
    found = {}
    for position, name in enumerate(names):
        codes = np.concatenate([run[position] for run in runs])
        quant = imported[name].quant
        assert quant is not None
        centred = codes.astype(np.int16) - (128 if codes.dtype == np.uint8 else 0)
        found[name] = Codes(nhwc(centred).astype(np.int8), quant)
    return found
