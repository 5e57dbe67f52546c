# SPDX-License-Identifier: Apache-2.0
"""Contributions without a training run: the Fisher information of one pass over some samples.

The mean square of a sample's gradient with respect to a weight is the diagonal of the empirical
Fisher information. Its sum over what is trained is how much the loss falls in a step, times the
learning rate: a layer's part of that is its step. A choice of channels has their share. Training
linear projections was found to harm (docs/search.md): they are worth nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tte.ir import Op, TrainPlan, Update
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


@dataclass(frozen=True, slots=True)
class Information:
    """By layer, in real units: `channels`: mean square of a sample's gradient, summed over the
    weights of each channel; `bias`: the same of all biases."""

    channels: dict[str, NDArray[np.float64]]
    bias: dict[str, float]

    def importance(self) -> dict[str, NDArray[np.float64]]:
        """Of each channel: the norm of its gradient."""
        return {layer: np.sqrt(found) for layer, found in self.channels.items()}


def information(prepared: Prepared, layers: Sequence[str], head: str) -> Information:
    """The Fisher information of these layers, from the samples that measure gradients."""
    plan = TrainPlan("all", tuple(Update(name, True, None) for name in (*layers, head)))
    graph = prune(differentiate(prepared.forward, prepared.loss), plan)
    updates = [op for op in graph.ops if isinstance(op.attrs, UpdateAttrs)]
    found = Information({}, {})
    count = min(SAMPLES, len(prepared.codes))
    for index in range(count):
        one = slice(index, index + 1)
        values, _ = real_backward(graph, prepared.codes[one], prepared.labels[one], run_op)
        for op in updates:
            _add(found, op, values[op.name], count)
    return found


def _add(found: Information, op: Op, gradient: NDArray[np.float64], count: int) -> None:
    """One sample's share; channels that are never trained have none."""
    attrs: UpdateAttrs = op.attrs
    scale = np.asarray(attrs.param_scale).reshape(-1, *[1] * (gradient.ndim - 1))
    alive = scale / (attrs.input_scale if attrs.param == "bias" else 1.0) >= DEAD_CHANNEL_SCALE
    square = np.where(alive, gradient / np.where(alive, scale, 1.0), 0.0) ** 2 / count
    if attrs.param == "bias":
        found.bias[attrs.layer] = found.bias.get(attrs.layer, 0.0) + float(square.sum())
        return
    axis = range(1, square.ndim) if "depthwise" in op.kind else range(square.ndim - 1)
    share = square.sum(axis=tuple(axis))
    found.channels[attrs.layer] = found.channels.get(attrs.layer, 0.0) + share


def fisher_gains(space: Space, found: Information) -> Gains:
    """The proxy's gains; layers without information have none, nor have the weights of linear
    projections."""
    weights = np.zeros((len(space.layers), len(RATIOS)))
    bias = np.zeros(len(space.layers))
    for i, layer in enumerate(space.layers):
        if layer not in found.channels:
            continue
        bias[i] = found.bias[layer]
        if space.is_projection(layer):
            continue
        whole = found.channels[layer]
        for r, ratio in enumerate(RATIOS):
            channels = space.channels(layer, ratio)
            weights[i, r] = whole.sum() if channels is None else whole[list(channels)].sum()
    return Gains("Fisher proxy", np.concatenate([[0.0], np.cumsum(bias[::-1])]), weights)
