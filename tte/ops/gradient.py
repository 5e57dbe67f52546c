# SPDX-License-Identifier: Apache-2.0
"""Ops of the backward pass that no single layer owns: scaling and adding gradients, bias updates.

grad_add: t = a * factor + addend * addend_factor, masked: where residual branches meet, the
gradients are added and rounded once (docs/numerics.md, section 2).
grad_bias: sum over positions of dL/d(acc), applied at once (section 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tte.ir import Graph, Op
from tte.ops import arith, params
from tte.ops.quantized import GradInputAttrs, grad_call, grad_epilogue
from tte.ops.spec import Array, Family, IntegerOp, KernelCall, TableArg, TensorArg
from tte.ops.window import hwc


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
            "grad_bias_int32",
            grad_bias_reference,
            grad_bias_call,
            real_gradient=real_grad_bias,
        ),
    ),
)
