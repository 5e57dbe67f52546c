# SPDX-License-Identifier: Apache-2.0
"""Contributions without a training run: the Fisher information of one pass over some samples.

The mean square of a sample's gradient with respect to a weight is the diagonal of the empirical
Fisher information. The root of its sum over a layer's weights, divided by their norm, says how far
a step moves the layer relative to what is there: pointwise expansions of inverted bottlenecks move
most, projections less, depthwise layers least. A choice of channels is worth its share of that
information, so that few layers train in large part and not many in small ones. Training linear
projections was found to harm (docs/search.md): they are worth nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tte.ir import Graph, Op, TrainPlan, Update
from tte.ops.arith import DEAD_CHANNEL_SCALE
from tte.ops.quantized import UpdateAttrs
from tte.passes.differentiate import differentiate
from tte.passes.prune import prune
from tte.passes.scale_gradients import real_backward
from tte.pipeline import Prepared
from tte.reference import run_op
from tte.search.gains import Gains
from tte.search.space import RATIOS, Space

SAMPLES = 48
LEAST_SHARE = 0.25  # of a layer's channels: smaller ones, of many layers, train badly
BIAS_WORTH = 0.3  # of biases beside weights: alone they gain little


@dataclass(frozen=True, slots=True)
class Information:
    """By layer, in real units: `channels`: mean square of a sample's gradient, summed over the
    weights of each channel; `bias`: the same of all biases; `weight`: sum of squared weights."""

    channels: dict[str, NDArray[np.float64]]
    bias: dict[str, float]
    weight: dict[str, float]

    def importance(self) -> dict[str, NDArray[np.float64]]:
        """Of each channel: the norm of its gradient."""
        return {layer: np.sqrt(found) for layer, found in self.channels.items()}


def information(prepared: Prepared, layers: Sequence[str], head: str) -> Information:
    """The Fisher information of these layers, from the samples that measure gradients."""
    plan = TrainPlan("all", tuple(Update(name, True, None) for name in (*layers, head)))
    graph = prune(differentiate(prepared.forward, prepared.loss), plan)
    updates = [op for op in graph.ops if isinstance(op.attrs, UpdateAttrs)]
    found = Information({}, {}, {})
    count = min(SAMPLES, len(prepared.codes))
    for index in range(count):
        one = slice(index, index + 1)
        values, _ = real_backward(graph, prepared.codes[one], prepared.labels[one], run_op)
        for op in updates:
            _add(found, graph, op, values[op.name], count)
    return found


def _add(
    found: Information, graph: Graph, op: Op, gradient: NDArray[np.float64], count: int
) -> None:
    """One sample's share; channels that are never trained have none."""
    attrs: UpdateAttrs = op.attrs
    scale = np.asarray(attrs.param_scale).reshape(-1, *[1] * (gradient.ndim - 1))
    alive = scale / (attrs.input_scale if attrs.param == "bias" else 1.0) >= DEAD_CHANNEL_SCALE
    square = np.where(alive, gradient / np.where(alive, scale, 1.0), 0.0) ** 2 / count
    if attrs.param == "bias":
        found.bias[attrs.layer] = found.bias.get(attrs.layer, 0.0) + float(square.sum())
        return
    tensor = graph[op.inputs[-2]]
    assert tensor.data is not None
    found.weight[attrs.layer] = float(((tensor.data * scale) ** 2).sum())
    axis = range(1, square.ndim) if "depthwise" in op.kind else range(square.ndim - 1)
    share = square.sum(axis=tuple(axis))
    found.channels[attrs.layer] = found.channels.get(attrs.layer, 0.0) + share


def fisher_gains(space: Space, found: Information) -> Gains:
    """The proxy's gains; layers without information have none, nor have the weights of linear
    projections and shares below LEAST_SHARE."""
    weights = np.zeros((len(space.layers), len(RATIOS)))
    bias = np.zeros(len(space.layers))
    for i, layer in enumerate(space.layers):
        if layer not in found.channels:
            continue
        norm = np.sqrt(found.weight[layer]) or 1.0
        bias[i] = BIAS_WORTH * np.sqrt(found.bias[layer]) / norm
        if space.is_projection(layer):
            continue
        whole = found.channels[layer]
        for r, ratio in enumerate(RATIOS):
            channels = space.channels(layer, ratio)
            picked = whole.sum() if channels is None else whole[list(channels)].sum()
            if ratio >= LEAST_SHARE and picked > 0:
                weights[i, r] = picked / np.sqrt(whole.sum()) / norm
    return Gains("relative step", np.concatenate([[0.0], np.cumsum(bias[::-1])]), weights)
