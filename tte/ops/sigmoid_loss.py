# SPDX-License-Identifier: Apache-2.0
"""Sigmoid cross-entropy: every output is a class by itself (several labels, or one output).

z in Q16, e = exp(-|z|) and p = sigmoid(z) in Q24, g = w (p - t) in Q24; the loss is the mean over
all outputs. Source: docs/numerics.md, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Graph, Op
from tte.ops import params
from tte.ops.arith import INT32_MAX, Factor, to_factor
from tte.ops.loss import (
    LOGIT_LIMIT,
    LossAttrs,
    as_factor,
    exp_negative,
    factor_of,
    factor_product,
    fixed_logits,
    grad_codes,
    log_q24,
    scaled,
    step_tensor,
)
from tte.ops.spec import Array, Family, IntegerOp, KernelCall, TableArg, TensorArg

ONE_Q24 = 1 << 24


@dataclass(frozen=True, slots=True)
class SigmoidCrossEntropyAttrs(LossAttrs):
    """Output: logits of any shape; target: int8 of the same number of elements, 0 or not 0.

    `zero_point`: of int8 outputs. `smoothing`: targets become smoothing / 2 and 1 - smoothing / 2.
    `weights`: per channel, of outputs whose target is 1, or none.
    """

    zero_point: int = 0
    smoothing: float = 0.0
    weights: tuple[float, ...] = ()

    @property
    def targets(self) -> tuple[int, int]:
        """For 0 and for 1, Q24."""
        zero = int(self.smoothing / 2 * ONE_Q24 + 0.5)
        return zero, ONE_Q24 - zero

    @property
    def fixed_weights(self) -> tuple[int, ...]:
        """Q16."""
        return tuple(int(weight * 65536 + 0.5) for weight in self.weights)

    def real_gradient(self, output: Array, target: Array) -> tuple[Array, Array]:
        """w (p - t) / elements."""
        z = (output.astype(np.float64) - self.zero_point) * np.asarray(self.scale)
        on = target.reshape(z.shape) != 0
        t = np.where(on, 1 - self.smoothing / 2, self.smoothing / 2)
        weight = np.where(on, np.asarray(self.weights), 1.0) if self.weights else 1.0
        return self._scaled(weight * (1 / (1 + np.exp(-z)) - t) / z[0].size)


def unit(elems: int) -> Factor:
    """What a gradient in Q24 is worth in the mean over all outputs."""
    return to_factor(2.0**-24 / elems)


def reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """Gradient, loss and step of one sample."""
    attrs: SigmoidCrossEntropyAttrs = op.attrs
    channels, elems = len(attrs.scale), inputs[0].size
    multipliers, shift = fixed_logits(attrs.scale, 2.0**-16)
    values = (inputs[0].astype(np.int64) - attrs.zero_point).reshape(-1)
    target = inputs[1].reshape(-1) != 0
    losses, grads = [], []
    for i, value in enumerate(values.tolist()):
        channel = i % channels
        z = scaled(value * multipliers[channel], shift, LOGIT_LIMIT)
        e, t = exp_negative(abs(z)), attrs.targets[int(target[i])]
        p = ((e if z < 0 else ONE_Q24) << 24) // (ONE_Q24 + e)
        loss, grad = max(z, 0) + log_q24(ONE_Q24 + e) - ((z * t) >> 24), p - t
        if attrs.weights and target[i]:
            loss, grad = (part * attrs.fixed_weights[channel] >> 16 for part in (loss, grad))
        losses.append(loss)
        grads.append(grad)
    g = np.asarray(grads, np.int64).reshape(inputs[0].shape)
    mean = abs(sum(losses)) // elems * (1 if sum(losses) >= 0 else -1)
    step = factor_product(as_factor(inputs[2]), factor_of(int(np.abs(g).max())))
    return [
        grad_codes(g, attrs.grad_ratios),
        np.asarray([min(mean, INT32_MAX)], np.int32),
        step_tensor(factor_product(step, unit(elems))),
    ]


def kernel_call(op: Op, graph: Graph) -> KernelCall:
    """tte_sigmoid_cross_entropy_int8."""
    attrs: SigmoidCrossEntropyAttrs = op.attrs
    output = graph[op.inputs[0]].type
    multipliers, shift = fixed_logits(attrs.scale, 2.0**-16)
    return KernelCall(
        f"tte_{op.kind}",
        params.SigmoidCrossEntropyParams(
            output=params.OutputType(int(output.dtype == "int8"), attrs.zero_point),
            elems=output.elems,
            channels=len(attrs.scale),
            logit_shift=shift,
            target_0=attrs.targets[0],
            target_1=attrs.targets[1],
        ),
        (
            *(TensorArg(name) for name in op.inputs),
            TableArg("logit_multipliers", "int32_t", multipliers),
            TableArg("grad_ratios", "int32_t", attrs.grad_ratios),
            TableArg("weights", "int32_t", attrs.fixed_weights),
            TableArg("unit", "tte_factor", (unit(output.elems),)),
            *(TensorArg(name) for name in op.outputs),
        ),
    )


FAMILY = Family(
    integer_ops=(
        IntegerOp("sigmoid_cross_entropy_int8", reference, kernel_call, in_place=lambda op: (0,)),
    ),
)
