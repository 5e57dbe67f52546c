# SPDX-License-Identifier: Apache-2.0
"""Gives every gradient its static scale, and with it all multipliers of the backward pass.

Once the masks are fixed the backward pass is linear in the loss gradient g, so each gradient
tensor t has a scale relative to it: s_t = rho_t max|g| / 127, rho_t = max|t| / max|g| over the
calibration samples (docs/numerics.md, section 2). The forward pass runs in integers, the
gradients in real numbers. Updates get 256 s_t / s_w^2: quantization-aware scaling (section 3).
Velocities get the unit in which the largest of them fits 16 bits (section 5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tte.ir import Graph, Op
from tte.ops import INTEGER_OPS
from tte.ops.arith import GRAD_MAX, fixed_multipliers
from tte.ops.loss import LossAttrs
from tte.ops.quantized import UpdateAttrs
from tte.ops.sgd import SgdAttrs, SgdStepAttrs
from tte.ops.spec import GradScale

Array = NDArray[Any]
VELOCITY_SAMPLES = 32  # that find the range of the velocities
BATCH_BYTES = 32 * 2**20  # of a batch's tensors: small batches stay in the cache


def scale_gradients(
    graph: Graph,
    x: NDArray[np.int8],
    targets: NDArray[np.integer],
    run_op: Any,
    headroom: float = 1.0,
) -> Graph:
    """Fills multipliers and rates of a pruned training graph.

    x: int8 samples [N, ...] as the network takes them; targets [N, ...] likewise (labels, 0/1 or
    int8 codes; not looked at where the samples are their own targets). `run_op(graph, op, values)`
    is the integer interpreter. `headroom`: how much larger than now gradients may become; those
    below a fresh head grow with its weights.
    """
    rho = measure(graph, x, targets, run_op, headroom)
    return apply_scales(graph, rho, velocity_shifts(graph, x, targets, run_op, headroom))


def apply_scales(
    graph: Graph,
    measured: Mapping[str, float],
    shifts: Mapping[tuple[str, str], int] = MappingProxyType({}),
) -> Graph:
    """The same with a rho for every gradient that an op sums up, measured before: on this graph,
    or on that of a plan that trains more. `shifts`: of velocities, where there are some."""
    rho = dict(measured)
    for op in graph.ops:  # views and gathers have their source's scale, dead gradients any
        if isinstance(op.attrs, LossAttrs):
            rho[op.outputs[0]] = max(op.attrs.scale)
        if op.inputs and op.inputs[0] in rho and op.outputs[0] not in rho:
            rho[op.outputs[0]] = rho[op.inputs[0]]
        if rho.get(op.outputs[0]) == 0.0:
            rho[op.outputs[0]] = rho[op.inputs[0]]
    return graph.with_changes(ops=[_scaled(graph, op, rho, shifts) for op in graph.ops])


def real_backward(
    graph: Graph,
    x: NDArray[np.int8],
    targets: NDArray[np.integer],
    run_op: Any,
    updates: bool = True,
) -> tuple[dict[str, Array], Array]:
    """All values of a batch with gradients as real numbers per integer step, and max|g| per
    sample. With `updates`, the gradient of each trained parameter, summed over the batch, is
    under the name of its update op."""
    values: dict[str, Array] = {graph.inputs[0]: x}
    peak = np.ones(len(x))
    for op in graph.ops:
        spec = INTEGER_OPS[op.kind]
        if isinstance(op.attrs, LossAttrs):
            target = values.get(op.inputs[1], targets)
            grad, peak = op.attrs.real_gradient(values[op.inputs[0]], target)
            values[op.outputs[0]] = grad.astype(np.float32)
        elif spec.accumulate is not None:
            values[op.outputs[0]] = _real_grad(graph, op, values)
        elif isinstance(op.attrs, UpdateAttrs | SgdAttrs | SgdStepAttrs):
            if updates and spec.real_gradient is not None:
                inputs = [values[name] for name in op.inputs[:2] if name in values]
                values[op.name] = spec.real_gradient(op, inputs)
        else:
            outputs = run_op(graph, op, values)
            values.update(zip(op.outputs, outputs, strict=False))
    return values, peak


def _real_grad(graph: Graph, op: Op, values: Mapping[str, Array]) -> Array:
    spec = INTEGER_OPS[op.kind]
    assert spec.accumulate is not None
    inputs = [_value(graph, name, values) for name in op.inputs[:-2]]
    addend, mask = op.inputs[-2:]
    scale: GradScale = op.attrs.scale
    real = spec.accumulate(op, inputs) * np.asarray(scale.factor, np.float32)  # type: ignore[arg-type]
    if addend:
        real = real + values[addend] * np.asarray(scale.addend_factor, np.float32)
    if mask:
        real = real * values[mask]
    return real.astype(np.float32)


def _value(graph: Graph, name: str, values: Mapping[str, Array]) -> Array | None:
    """An input's value; None where it is left out."""
    if not name:
        return None
    return values[name] if name in values else graph[name].data


def measure(
    graph: Graph,
    x: NDArray[np.int8],
    targets: NDArray[np.integer],
    run_op: Any,
    headroom: float = 1.0,
) -> dict[str, float]:
    """rho of every gradient that an op sums up."""
    names = [op.outputs[0] for op in graph.ops if INTEGER_OPS[op.kind].accumulate is not None]
    rho = dict.fromkeys(names, 0.0)
    per_sample = 8 * sum(graph[name].type.elems for op in graph.ops for name in op.writes)
    batch = max(1, min(len(x), BATCH_BYTES // max(1, per_sample)))
    for start in range(0, len(x), batch):
        part = slice(start, start + batch)
        values, peak = real_backward(graph, x[part], targets[part], run_op, updates=False)
        peak = np.maximum(peak, 1e-30)
        for name in names:
            largest = np.abs(values[name]).reshape(len(peak), -1).max(axis=1)
            rho[name] = max(rho[name], headroom * float((largest / peak).max()))
    return rho


def velocity_shifts(
    graph: Graph, x: NDArray[np.int8], targets: NDArray[np.integer], run_op: Any, headroom: float
) -> dict[tuple[str, str], int]:
    """(layer, param) -> the exponent of a velocity's unit: the smallest for which gradients as
    large as the largest of the samples', `headroom` times, one after the other, stay in range."""
    moves = {(op.attrs.layer, op.attrs.param): op for op in graph.ops if _has_velocity(op)}
    if not moves:
        return {}
    largest = dict.fromkeys(moves, 0.0)
    loss = next(op for op in graph.ops if isinstance(op.attrs, LossAttrs))
    for start in range(min(len(x), VELOCITY_SAMPLES)):
        one = slice(start, start + 1)
        values, _ = real_backward(graph, x[one], targets[one], run_op)
        for op in graph.ops:
            if isinstance(op.attrs, UpdateAttrs):
                moved = float(op.attrs.largest_move(values[op.name]))
                key = op.attrs.layer, op.attrs.param
                largest[key] = max(largest[key], moved)
    shifts = {}
    for key, op in moves.items():
        coherent = headroom * loss.attrs.largest_weight / (1 - op.attrs.momentum)
        ratio = largest[key] * coherent / op.attrs.velocity_range
        shifts[key] = max(-64, min(64, math.ceil(math.log2(ratio)))) if ratio else 0
    return shifts


def _has_velocity(op: Op) -> bool:
    return isinstance(op.attrs, SgdAttrs) and bool(op.inputs[1])


def _scaled(
    graph: Graph, op: Op, rho: Mapping[str, float], shifts: Mapping[tuple[str, str], int]
) -> Op:
    if isinstance(op.attrs, SgdAttrs):
        shift = shifts.get((op.attrs.layer, op.attrs.param), 0)
        return replace(op, attrs=replace(op.attrs, velocity_shift=shift))
    if isinstance(op.attrs, UpdateAttrs):
        unit = 2.0 ** shifts[op.attrs.layer, op.attrs.param] if op.attrs.gathers else 1.0
        return replace(op, attrs=op.attrs.with_rates(rho[op.inputs[-4]] / GRAD_MAX / unit))
    if INTEGER_OPS[op.kind].accumulate is None:
        return op
    scale: GradScale = op.attrs.scale
    addend, out = op.inputs[-2], op.outputs[0]
    real = np.asarray(scale.factor) * (rho[op.inputs[0]] / rho[out])
    if addend:
        real = np.concatenate([real, np.asarray(scale.addend_factor) * (rho[addend] / rho[out])])
    sizes, pre_shift = fixed_multipliers(np.abs(real))
    multipliers = tuple(-size if one < 0 else size for size, one in zip(sizes, real, strict=True))
    channels = len(scale.factor)
    new_scale = replace(
        scale,
        multipliers=multipliers[:channels],
        addend_multipliers=multipliers[channels:],
        pre_shift=pre_shift,
    )
    return replace(op, attrs=replace(op.attrs, scale=new_scale))
