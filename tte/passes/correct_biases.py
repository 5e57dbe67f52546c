# SPDX-License-Identifier: Apache-2.0
"""Takes the mean error that quantisation makes out of every layer's bias.

Rounded weights and saturated inputs shift a channel's mean, and later layers inherit the shift.
Both graphs run over samples side by side; before a layer runs in integers, its bias takes the
difference of the two means of its sums, so that the layers behind it see it corrected (empirical
bias correction: section 4.2 of "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019, with samples in place of its statistics). What may be chance stays: a mean
m with the standard error e counts as m max(0, 1 - (e/m)^2). Layers that came quantised keep their
codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tte.ir import Graph, Op, Tensor
from tte.ops import FLOAT_OPS
from tte.ops.arith import INT32_MAX
from tte.ops.quantized import FIRST_BIAS_LIMIT, NO_CLAMP, real_data

Array = NDArray[Any]
LAYERS = ("conv2d", "depthwise_conv2d", "conv_transpose2d", "linear")
BATCH = 8  # samples that an op takes at a time


def correct_biases(graph: Graph, calibrated: Graph, x: Array, run_op: Any) -> Graph:
    """The integer graph with corrected biases. `calibrated`: the float graph that it was made
    from; x: real inputs, float32 [N, ...]; `run_op(graph, op, values)`: the integer interpreter."""
    layers = {
        op.outputs[0]: op
        for op in calibrated.ops
        if op.kind in LAYERS and calibrated[op.inputs[1]].quant is None
    }
    if not layers:
        return graph
    source = calibrated.inputs[0]
    real = {source: x.astype(np.float32)}
    quant = graph[source].quant
    assert quant is not None
    codes = {source: quant.quantize(x)}
    pending = iter(calibrated.ops)
    for op in graph.ops:
        layer = layers.get(op.outputs[0])
        if layer is not None:
            bias = _corrected(graph, op, calibrated, layer, real, codes)
            graph = graph.with_changes(tensors=[bias])
        _run(graph, op, codes, partial(run_op, graph, op))
        while op.outputs[0] in calibrated.producers and op.outputs[0] not in real:
            _run_float(calibrated, next(pending), real)
    return graph


def _corrected(
    graph: Graph,
    op: Op,
    calibrated: Graph,
    layer: Op,
    real: Mapping[str, Array],
    codes: Mapping[str, Array],
) -> Tensor:
    """The integer op's bias with the mean difference of the sums before the clamp."""
    x_quant, weight, bias = graph[op.inputs[0]].quant, graph[op.inputs[1]], graph[op.inputs[2]]
    assert x_quant is not None and bias.quant is not None
    assert weight.data is not None and bias.data is not None
    unclamped = replace(layer, attrs=replace(layer.attrs, clamp=NO_CLAMP))
    shape = calibrated[layer.inputs[1]].type.shape
    wanted = [_constant(calibrated[name]) for name in layer.reads[1:]]
    rounded = [_constant(weight).reshape(shape), _constant(bias)]
    x, x_codes = real[layer.inputs[0]], codes[layer.inputs[0]]
    shifts = []  # of each sample
    for start in range(0, len(x), BATCH):
        part = slice(start, start + BATCH)
        found = x_quant.dequantize(x_codes[part]).astype(np.float32)
        difference = _sums(unclamped, x[part], wanted) - _sums(unclamped, found, rounded)
        shifts.extend(difference.mean(axis=1, dtype=np.float64))
    steps = np.floor(_reliable_mean(np.asarray(shifts)) / bias.quant.scales(shape[0]) + 0.5)
    largest = 255 * np.abs(weight.data.astype(np.int64)).reshape(shape[0], -1).sum(axis=1)
    limit = np.minimum(FIRST_BIAS_LIMIT, INT32_MAX - largest)
    data = (bias.data + steps).clip(-limit, limit).astype(np.int32)
    return replace(bias, data=data)


def _sums(layer: Op, x: Array, constants: Sequence[Array]) -> Array:
    """[N, positions, channels]."""
    y = FLOAT_OPS[layer.kind].reference(layer, [x, *constants])
    return y.reshape(len(x), -1, y.shape[-1])


def _reliable_mean(values: Array) -> Array:
    """Of values [N, channels]: their mean, less what may be chance."""
    count = len(values)
    if count < 2:
        return np.zeros(values.shape[1])
    mean = values.mean(axis=0)
    chance = values.var(axis=0, ddof=1) / count
    return mean * np.clip(1 - chance / np.maximum(mean**2, 1e-300), 0, None)


def _run_float(graph: Graph, op: Op, values: dict[str, Array]) -> None:
    constants = {n: _constant(graph[n]) for n in op.reads if graph[n].data is not None}
    reference = FLOAT_OPS[op.kind].reference

    def compute(part: Mapping[str, Array]) -> list[Array]:
        return [reference(op, [constants[n] if n in constants else part[n] for n in op.reads])]

    _run(graph, op, values, compute)


def _run(
    graph: Graph,
    op: Op,
    values: dict[str, Array],
    compute: Callable[[Mapping[str, Array]], list[Array]],
) -> None:
    """Adds the op's first output, and drops what nobody reads behind it."""
    inputs = {name: values[name] for name in op.reads if name in values}
    count = len(next(iter(inputs.values())))
    parts = [slice(start, start + BATCH) for start in range(0, count, BATCH)]
    outputs = [compute({name: x[part] for name, x in inputs.items()})[0] for part in parts]
    values[op.outputs[0]] = np.concatenate(outputs)
    for name in inputs:
        if graph.consumers[name][-1] is op:
            del values[name]


def _constant(tensor: Tensor) -> Array:
    return real_data(tensor).astype(np.float32)
