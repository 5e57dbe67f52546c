# SPDX-License-Identifier: Apache-2.0
"""Gives every activation its int8 scale and zero point, from the file or from real inputs.

Where the file says nothing, the float graph runs over samples, and a range of each tensor, 0
included, is spread over all 256 codes: all that was seen (minmax), all but a share of it
(percentile), or the range with the smallest sum of squared errors (mse). docs/models.md compares
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tte.errors import TteError
from tte.ir import Graph, Op, QuantParams
from tte.ops import FLOAT_OPS
from tte.ops.linear import is_logits
from tte.ops.quantized import quant_of_range, real_data

Array = NDArray[Any]

METHODS = ("minmax", "percentile", "mse")
OUTSIDE = 1e-4  # share of the values that percentile leaves out, at either end
BATCH_BYTES = 16 << 20  # of the largest op's working set; small batches stay in the cache


def calibrate(graph: Graph, x: Array, method: str = "minmax") -> Graph:
    """The graph with `quant` on all activations but int32 logits. x: real inputs, float32
    [N, H, W, C] or [N, C]."""
    quants = _given(graph)
    missing = {
        name
        for name in _activations(graph)
        if name not in quants and not is_logits(graph, name) and not _keeps_quant(graph, name)
    }
    if missing:
        found = measure(graph, x, missing, quants, method != "minmax")
        quants.update((name, quant_of_range(*found[name].range(method))) for name in missing)
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

FRACTION_BITS = 5
SHIFT = 23 - FRACTION_BITS
BINS = 1 << (9 + FRACTION_BITS)  # sign, exponent and first fraction bits of a float32
SIDE = BINS // 2
FLOATS = (np.arange(SIDE + 1, dtype=np.uint32) << SHIFT).view(np.float32)
EDGES = np.fmin(FLOATS, np.finfo(np.float32).max).astype(np.float64)  # no infinity, no NaN
MSE_OCTAVES = 16  # below the largest value, in which mse looks for a bound


@dataclass
class Spread:
    """What is known of a tensor's values: the extremes and, if wanted, how many fall into each bin
    of a histogram. Its bins are those float32 numbers that share their leading bits, 32 an octave:
    the same for all tensors, so that one pass is enough and neither the order of the samples nor
    an outlier changes what is known of the others."""

    low: float = 0.0
    high: float = 0.0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def count(self, values: Array) -> None:
        """Adds float32 values to the histogram."""
        bits = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32)
        found = np.bincount(bits >> np.uint32(SHIFT), minlength=BINS)
        self.counts = self.counts + found if self.counts.size else found

    def range(self, method: str) -> tuple[float, float]:
        """(low, high), low <= 0 <= high."""
        if method == "minmax":
            return self.low, self.high
        above, below = self.counts[:SIDE], self.counts[SIDE:]
        if method == "percentile":
            most = int(OUTSIDE * self.counts.sum())
            return -_bound(below, most, -self.low), _bound(above, most, self.high)
        highs, above_error = _clipping(above, self.high)
        lows, below_error = _clipping(below, -self.low)
        rounded = self.counts.sum() - above[0] - below[0]  # 0 is a code
        noise = rounded / (12 * 255**2)
        error = noise * (highs + lows[:, None]) ** 2 + above_error + below_error[:, None]
        row, column = np.unravel_index(int(error.argmin()), error.shape)
        return -float(lows[row]), float(highs[column])


def _bound(counts: NDArray[np.int64], most: int, largest: float) -> float:
    """The smallest edge beyond which at most `most` values lie."""
    beyond = counts.sum() - counts.cumsum()
    return min(largest, float(EDGES[1 + int((beyond <= most).argmax())]))


def _clipping(counts: NDArray[np.int64], largest: float) -> tuple[Array, Array]:
    """Bounds to choose from, and the sum of squared errors that each makes beyond it."""
    centres = (EDGES[:-1] + np.minimum(EDGES[1:], largest)) / 2
    centres = np.where(counts > 0, centres, 0.0)
    zeroth, first, second = (
        np.append(np.cumsum((counts * centres**power)[::-1])[::-1][1:], 0.0) for power in range(3)
    )
    bounds = np.minimum(EDGES[1:], largest)
    near = (EDGES[:-1] < largest) & (bounds >= largest * 2.0**-MSE_OCTAVES)
    bounds, zeroth, first, second = (part[near] for part in (bounds, zeroth, first, second))
    if not bounds.size:
        return np.zeros(1), np.zeros(1)
    return bounds, (second - 2 * bounds * first + bounds**2 * zeroth).clip(0)


def measure(
    graph: Graph, x: Array, wanted: set[str], given: dict[str, QuantParams], count: bool
) -> dict[str, Spread]:
    """What the wanted tensors hold over the samples; histograms only if `count`."""
    shape = graph[graph.inputs[0]].type.shape
    if x.shape[1:] != shape[1:] or len(x) == 0:
        raise TteError(
            f"calibration data of shape {x.shape} does not fit the model's input",
            why=f"needed is [N, {', '.join(map(str, shape[1:]))}] with at least one sample",
        )
    found = {name: Spread() for name in wanted}
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
        spread = found[name]
        spread.low, spread.high = min(spread.low, low), max(spread.high, high)
        if count:
            spread.count(values)
    return found


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
