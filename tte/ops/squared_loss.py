# SPDX-License-Identifier: Apache-2.0
"""Mean squared error: autoencoders and regression.

Targets are int8 codes, real = target_scale * q + target_offset; outputs are brought to 1/256 of a
code, so that the difference r is an integer; g = 2 r / elements. Source: docs/numerics.md,
section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Graph, Op
from tte.ops import params
from tte.ops.arith import INT32_MAX, Factor, to_factor
from tte.ops.loss import (
    LossAttrs,
    as_factor,
    factor_of,
    factor_product,
    fixed_logits,
    grad_codes,
    step_tensor,
)
from tte.ops.spec import Array, Family, IntegerOp, KernelCall, TableArg, TensorArg

RESIDUAL_LIMIT = 2**23
MAX_ELEMS = 2**17  # squares of residuals are summed in 64 bits


@dataclass(frozen=True, slots=True)
class MeanSquaredErrorAttrs(LossAttrs):
    """Output: any shape; target: int8 codes, the same number of elements.

    `zero_point`: of int8 outputs.
    """

    zero_point: int = 0
    target_scale: float = 1.0
    target_offset: float = 0.0

    @property
    def loss_scale(self) -> float:
        """Of the mean square."""
        return self.target_scale**2 / 256

    @property
    def offset(self) -> int:
        """The targets' offset in 1/256 of a code."""
        return int(np.floor(self.target_offset / self.target_scale * 256 + 0.5))

    def real_gradient(self, output: Array, target: Array) -> tuple[Array, Array]:
        """2 (y - t) / elements."""
        y = (output.astype(np.float64) - self.zero_point) * np.asarray(self.scale)
        t = target.reshape(y.shape).astype(np.float64) * self.target_scale + self.target_offset
        return self._scaled(2 * (y - t) / y[0].size)

    def unit(self, elems: int) -> Factor:
        """What 1/256 of a code is worth in the gradient of the mean."""
        return to_factor(2 * self.target_scale / 256 / elems)


def reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """Gradient, loss and step of one sample."""
    attrs: MeanSquaredErrorAttrs = op.attrs
    output = inputs[0].astype(np.int64) - attrs.zero_point
    multipliers, shift = fixed_logits(attrs.scale, attrs.target_scale / 256)
    fine = (output * np.asarray(multipliers, np.int64) + (1 << (shift - 1))) >> shift
    target = inputs[1].astype(np.int64).reshape(output.shape)
    r = np.clip(fine - 256 * target - attrs.offset, -RESIDUAL_LIMIT, RESIDUAL_LIMIT)
    loss = (int((r * r).sum()) // r.size + 128) >> 8
    step = factor_product(as_factor(inputs[2]), factor_of(int(np.abs(r).max())))
    return [
        grad_codes(r, attrs.grad_ratios),
        np.asarray([min(loss, INT32_MAX)], np.int32),
        step_tensor(factor_product(step, attrs.unit(r.size))),
    ]


def kernel_call(op: Op, graph: Graph) -> KernelCall:
    """tte_mean_squared_error_int8."""
    attrs: MeanSquaredErrorAttrs = op.attrs
    output = graph[op.inputs[0]].type
    multipliers, shift = fixed_logits(attrs.scale, attrs.target_scale / 256)
    return KernelCall(
        f"tte_{op.kind}",
        params.MeanSquaredErrorParams(
            output=params.OutputType(int(output.dtype == "int8"), attrs.zero_point),
            elems=output.elems,
            channels=len(attrs.scale),
            shift=shift,
            offset=attrs.offset,
        ),
        (
            *(TensorArg(name) for name in op.inputs),
            TableArg("multipliers", "int32_t", multipliers),
            TableArg("grad_ratios", "int32_t", attrs.grad_ratios),
            TableArg("unit", "tte_factor", (attrs.unit(output.elems),)),
            *(TensorArg(name) for name in op.outputs),
        ),
    )


FAMILY = Family(
    integer_ops=(
        IntegerOp("mean_squared_error_int8", reference, kernel_call, in_place=lambda op: (0,)),
    ),
)
