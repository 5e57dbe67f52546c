# SPDX-License-Identifier: Apache-2.0
"""Ops of the backward pass that no single layer owns: scaling and adding gradients, bias updates.

grad_add: t = a * factor + addend * addend_factor, masked: where residual branches meet, the
gradients are added and rounded once (docs/numerics.md, section 2).
grad_place: a gradient at the places that a slice took its elements from, or that concat and pad
put them to.
grad_bias: sum over positions of dL/d(acc), applied at once (section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Graph, Op
from tte.ops import arith, params
from tte.ops.quantized import GradInputAttrs, grad_call, grad_epilogue
from tte.ops.spec import (
    Array,
    Backward,
    Contribution,
    Family,
    GradScale,
    IntegerOp,
    KernelCall,
    TableArg,
    TensorArg,
)
from tte.ops.window import WindowAttrs, as_map, hwc


def grad_add_sums(op: Op, inputs: Sequence[Array]) -> Array:
    """The first gradient, as it is."""
    return inputs[0]


def grad_add_reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int8 gradient and its saturations."""
    grad, addend, mask = inputs
    return grad_epilogue(op, grad, addend, mask)


def grad_add_call(op: Op, graph: Graph) -> KernelCall:
    """tte_grad_add_int8."""
    attrs: GradInputAttrs = op.attrs
    out_h, out_w, channels = hwc(graph[op.outputs[0]].type)
    return grad_call(
        op,
        params.GradAddParams(
            positions=out_h * out_w, channels=channels, pre_shift=attrs.scale.pre_shift
        ),
        [op.inputs[0]],
    )


@dataclass(frozen=True, slots=True)
class GradPlaceAttrs(GradInputAttrs):
    """Inputs: grad_output, addend or "", mask or "". Output element o belongs to input element
    begin + o * step, per height, width and channel; those outside of the input to none."""

    begin: tuple[int, int, int] = (0, 0, 0)
    step: tuple[int, int, int] = (1, 1, 1)


def contribute_place(
    backward: Backward,
    op: Op,
    x: str,
    grad: str,
    begin: tuple[int, int, int],
    step: tuple[int, int, int],
    factor: float,
    number: int | None = None,
) -> None:
    """Registers a still unwritten grad_place as a share of dL/dx; `number`: of the input, where
    an op has several."""
    shape = backward.graph[x].type.shape
    name = f"{op.name}.grad_input" + ("" if number is None else f".{number}")

    def emit(scale: GradScale, addend: str, mask: str, output: str) -> None:
        attrs = GradPlaceAttrs(WindowAttrs((1, 1)), shape, scale, begin=begin, step=step)
        backward.builder.op("grad_place_int8", name, [grad, addend, mask], [output], attrs)

    backward.contribute(x, Contribution((factor,), emit=emit))


def grad_place_sums(op: Op, inputs: Sequence[Array]) -> Array:
    """The gradient at its places, 0 elsewhere."""
    attrs: GradPlaceAttrs = op.attrs
    grad = as_map(inputs[0])
    sums = as_map(np.zeros((len(grad), *attrs.shape[1:]), grad.dtype))
    taken, places = [], []
    for axis, (begin, step) in enumerate(zip(attrs.begin, attrs.step, strict=True), 1):
        output = np.arange(grad.shape[axis])
        place = begin + step * output
        inside = (place >= 0) & (place < sums.shape[axis])
        taken.append(output[inside])
        places.append(place[inside])
    samples = np.arange(len(grad))
    sums[np.ix_(samples, *places)] = grad[np.ix_(samples, *taken)]
    return sums.reshape(len(grad), *attrs.shape[1:])


def grad_place_reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int8 gradient and its saturations."""
    grad, addend, mask = inputs
    return grad_epilogue(op, grad_place_sums(op, [grad]), addend, mask)


def grad_place_call(op: Op, graph: Graph) -> KernelCall:
    """tte_grad_place_int8."""
    attrs: GradPlaceAttrs = op.attrs
    grad, output = op.inputs[0], op.outputs[0]
    kernel_params = params.GradPlaceParams(
        *hwc(graph[output].type),
        *hwc(graph[grad].type),
        *attrs.begin,
        *attrs.step,
        attrs.scale.pre_shift,
    )
    return grad_call(op, kernel_params, [grad])


def grad_bias_reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """Updated bias (int32) and residual."""
    grad, step, bias, residual = inputs
    total = grad.reshape(-1, grad.shape[-1]).astype(np.int64).sum(axis=0)
    rates = list(op.attrs.rates)
    delta = arith.update_step(total, arith.Factor(*map(int, step)), rates)
    limit = arith.RESIDUAL_UNITS * arith.BIAS_LIMIT
    new_bias, new_residual = arith.apply_update(bias, residual, delta, -limit, limit)
    keep = np.asarray([rate.mantissa == 0 for rate in rates]) | (int(step[0]) == 0)
    return [
        np.where(keep, bias, new_bias).astype(np.int32),
        np.where(keep, residual, new_residual).astype(np.int8),
    ]


def real_grad_bias(op: Op, inputs: Sequence[Array]) -> Array:
    """dL/db_q for real dL/d(acc)."""
    return inputs[0].reshape(-1, inputs[0].shape[-1]).sum(axis=0)


def grad_bias_call(op: Op, graph: Graph) -> KernelCall:
    """tte_grad_bias_int32."""
    grad, step, bias, residual = op.inputs
    out_h, out_w, channels = hwc(graph[grad].type)
    return KernelCall(
        f"tte_{op.kind}",
        params.GradBiasParams(positions=out_h * out_w, channels=channels),
        (
            TensorArg(grad),
            TensorArg(step),
            TableArg("rates", "tte_factor", op.attrs.rates),
            TensorArg(bias),
            TensorArg(residual),
        ),
    )


FAMILY = Family(
    integer_ops=(
        IntegerOp(
            "grad_add_int8",
            grad_add_reference,
            grad_add_call,
            accumulate=grad_add_sums,
            in_place=lambda op: (0, 1),
        ),
        IntegerOp(
            "grad_place_int8",
            grad_place_reference,
            grad_place_call,
            accumulate=grad_place_sums,
            in_place=lambda op: (1,),
        ),
        IntegerOp(
            "grad_bias_int32",
            grad_bias_reference,
            grad_bias_call,
            real_gradient=real_grad_bias,
        ),
    ),
)
