# SPDX-License-Identifier: Apache-2.0
"""Gives every activation its int8 scale and zero point, from the file or from real inputs.

Where the file says nothing, the float graph runs over samples, and the range of each tensor,
0 included, is spread over all 256 codes. Percentiles instead of extremes made no difference on
three ImageNet networks, and would leave less room for activations that grow in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tte.errors import TteError
from tte.ir import Graph, Op, QuantParams
from tte.ops import FLOAT_OPS
from tte.ops.linear import is_logits
from tte.ops.quantized import quant_of_range, real_data

Array = NDArray[Any]

BATCH_BYTES = 16 << 20  # of the largest op's working set; small batches stay in the cache


def calibrate(graph: Graph, x: Array) -> Graph:
    """The graph with `quant` on all activations but int32 logits. x: real inputs, float32
    [N, H, W, C] or [N, C]."""
    quants = _given(graph)
    missing = {
        name
        for name in _activations(graph)
        if name not in quants and not is_logits(graph, name) and not _keeps_quant(graph, name)
    }
    if missing:
        ranges = measure(graph, x, missing, quants)
        quants.update((name, quant_of_range(*ranges[name])) for name in missing)
    for op in graph.ops:
        if FLOAT_OPS[op.kind].keeps_quant:
            quants[op.outputs[0]] = quants[op.inputs[0]]
    changed = [replace(graph[name], quant=quant) for name, quant in quants.items()]
    return graph.with_changes(tensors=changed)


def _activations(graph: Graph) -> list[str]:
    return [*graph.inputs, *(op.outputs[0] for op in graph.ops)]


def _keeps_quant(graph: Graph, name: str) -> bool:
    return name in graph.producers and FLOAT_OPS[graph.producers[name].kind].keeps_quant


def _given(graph: Graph) -> dict[str, QuantParams]:
    """What the file says. Where an op cannot change the quantisation (clip, reshape) but the
    file does, its input takes over the output's, if nobody else reads it."""
    quants = {}
    for name in _activations(graph):
        quant = graph[name].quant
        if quant is not None:
            quants[name] = quant
    for op in reversed(graph.ops):
        x, y = op.inputs[0], op.outputs[0]
        alone = len(graph.consumers[x]) == 1 and x not in graph.outputs
        if FLOAT_OPS[op.kind].keeps_quant and y in quants and alone:
            quants[x] = quants[y]
    return quants


# ---- ranges -------------------------------------------------------------------------------


def measure(
    graph: Graph, x: Array, wanted: set[str], given: dict[str, QuantParams]
) -> dict[str, tuple[float, float]]:
    """(min, max) of the wanted tensors over the samples."""
    shape = graph[graph.inputs[0]].type.shape
    if x.shape[1:] != shape[1:] or len(x) == 0:
        raise TteError(
            f"calibration data of shape {x.shape} does not fit the model's input",
            why=f"needed is [N, {', '.join(map(str, shape[1:]))}] with at least one sample",
        )
    ranges: dict[str, tuple[float, float]] = {}
    for name, values, op in _run(graph, x, given):
        if name not in wanted:
            continue
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise TteError(
                "the network computes NaN or infinity on the training data",
                where=op.origin if op else f"the input {name!r}",
                why=f"first in {name!r}",
                hint="check the data and --mean and --std, or train the network again",
            )
        before = ranges.get(name, (low, high))
        ranges[name] = min(before[0], low), max(before[1], high)
    return ranges


def _run(
    graph: Graph, x: Array, given: dict[str, QuantParams]
) -> Iterator[tuple[str, Array, Op | None]]:
    """All activations of all batches: (tensor, values, op). Tensors with given quantisation
    saturate as they will on the device."""
    constants = {
        name: real_data(tensor).astype(np.float32)
        for name, tensor in graph.tensors.items()
        if tensor.data is not None
    }
    last = {name: ops[-1] for name, ops in graph.consumers.items()}
    batch = max(1, min(len(x), BATCH_BYTES // _working_bytes(graph)))
    for start in range(0, len(x), batch):
        values = {graph.inputs[0]: x[start : start + batch].astype(np.float32)}
        yield graph.inputs[0], values[graph.inputs[0]], None
        for op in graph.ops:
            inputs = [constants[name] if name in constants else values[name] for name in op.reads]
            with np.errstate(over="ignore", invalid="ignore"):
                result = FLOAT_OPS[op.kind].reference(op, inputs)
            quant = given.get(op.outputs[0])
            if quant is not None:
                limits = quant.dequantize(np.asarray([-128, 127]))
                result = result.clip(np.float32(limits[0]), np.float32(limits[1]))
            values[op.outputs[0]] = result
            yield op.outputs[0], result, op
            for name in op.reads:
                if last[name] is op:
                    values.pop(name, None)


def _working_bytes(graph: Graph) -> int:
    """float32 bytes that the largest op needs for one sample: a convolution's columns, or its
    input and output."""
    largest = 1
    for op in graph.ops:
        output = graph[op.outputs[0]].type
        elems = graph[op.inputs[0]].type.elems + output.elems
        if op.kind == "conv2d":
            weight = graph[op.inputs[1]].type
            elems = max(elems, output.elems // output.shape[-1] * weight.elems // weight.shape[0])
        largest = max(largest, elems)
    return 4 * largest
