# SPDX-License-Identifier: Apache-2.0
"""What the losses share, and softmax cross-entropy: integers from the logits to the gradient.

Logits become Q16, exp a polynomial in Q30, probabilities integers e_i with sum S. The gradient
needs no division by S: g_i / max|g| = e_i / (S - e_label), and max|g| = (S - e_label) / S only
scales the update; with label smoothing the largest element may be another's. Source:
docs/numerics.md, section 4; dynamic loss scale: section 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Graph, Op
from tte.ops import params
from tte.ops.arith import GRAD_MAX, INT32_MAX, Factor, to_factor
from tte.ops.spec import (
    Array,
    Family,
    IntegerOp,
    KernelCall,
    TableArg,
    TensorArg,
)

LOG2_E_Q16 = 94548
LN_2_Q16 = 45426
LOGIT_LIMIT = 2**29
EXP2_Q30 = tuple(round((-math.log(2)) ** k / math.factorial(k) * 2**30) for k in range(7))
TARGET_SHIFT = 20  # of smoothed targets
MAX_WEIGHT = 1000.0  # of a class, and 1 / MAX_WEIGHT is the least but 0


@dataclass(frozen=True, slots=True)
class LossAttrs:
    """Every loss op. Inputs: output (int32 accumulators or int8 codes), target, learning rate
    int32[2] (a factor). Outputs: dL/d(output) int8, loss int32[1], step int32[2] = learning rate *
    max|g|.

    `scale`: real size of one integer step of the output, per channel (its last axis).
    """

    scale: tuple[float, ...]

    @property
    def loss_scale(self) -> float:
        """Real size of one step of the loss."""
        return 2.0**-16

    @property
    def grad_ratios(self) -> tuple[int, ...]:
        """Each channel's scale over the largest, Q15."""
        largest = max(self.scale)
        return tuple(math.floor(scale / largest * 32768 + 0.5) for scale in self.scale)

    @property
    def largest_weight(self) -> float:
        """Of a class, where the weights belong to the step, not to the gradient."""
        return 1.0

    def real_gradient(self, output: Array, target: Array) -> tuple[Array, Array]:
        """dL/d(output) in real numbers for a batch, float64 [N, ...], and max|g| per sample, g =
        dL/d(real output)."""
        raise NotImplementedError

    def _scaled(self, g: Array) -> tuple[Array, Array]:
        return g * np.asarray(self.scale), np.abs(g).reshape(len(g), -1).max(axis=1)


@dataclass(frozen=True, slots=True)
class SoftmaxCrossEntropyAttrs(LossAttrs):
    """Output: logits int32[1, classes]; target: label int32[1]. The loss is Q16.

    `smoothing`: share of the target that all classes divide among them. `weights`: what the loss
    of a label is multiplied by, or none.
    """

    smoothing: float = 0.0
    weights: tuple[float, ...] = ()

    @property
    def targets(self) -> tuple[int, int, int]:
        """Of the label, of any other class, and their shift: all of them sum to 2^shift."""
        if self.smoothing == 0:
            return 1, 0, 0
        classes, whole = len(self.scale), 1 << TARGET_SHIFT
        other = math.floor(self.smoothing / classes * whole + 0.5)
        return whole - (classes - 1) * other, other, TARGET_SHIFT

    @property
    def class_weights(self) -> tuple[Factor, ...]:
        """Factors; the exponent of 0 is one that may be shifted by."""
        return tuple(to_factor(weight) if weight else Factor(0, 31) for weight in self.weights)

    @property
    def largest_weight(self) -> float:
        return max(self.weights, default=1.0)

    def real_gradient(self, output: Array, target: Array) -> tuple[Array, Array]:
        """softmax - target; the weights belong to the step."""
        z = output.astype(np.float64) * np.asarray(self.scale)
        e = np.exp(z - z.max(axis=1, keepdims=True))
        g = e / e.sum(axis=1, keepdims=True) - self.smoothing / len(self.scale)
        g[np.arange(len(g)), target.reshape(-1)] -= 1.0 - self.smoothing
        return self._scaled(g)


def fixed_logits(scale: Sequence[float], unit: float) -> tuple[tuple[int, ...], int]:
    """Multipliers and their shift, from integer outputs to multiples of `unit`: the largest shift
    for which all fit int32."""
    ratio = [value / unit for value in scale]
    shift = max(1, min(62, math.floor(math.log2((2**31 - 1) / max(ratio)))))
    multipliers = tuple(math.floor(value * 2.0**shift + 0.5) for value in ratio)
    if max(multipliers) > INT32_MAX:
        raise ValueError("the scales of the output and of the loss differ too much")
    return multipliers, shift


def scaled(value: int, shift: int, limit: int) -> int:
    """round(value / 2^shift), saturated."""
    return max(-limit, min(limit, (value + (1 << (shift - 1))) >> shift))


def exp_negative(d: int) -> int:
    """exp(-d) of d in Q16, in Q24."""
    return exp2_negative((d * LOG2_E_Q16 + 32768) >> 16)


def log_q24(total: int) -> int:
    """ln(total / 2^24) in Q16, total >= 2^24."""
    return ((log2_q16(total) - (24 << 16)) * LN_2_Q16 + 32768) >> 16


def grad_codes(values: Array, ratios: Sequence[int]) -> Array:
    """int8 gradients of int64 values [..., channels]: 127 at the largest, halves away from zero."""
    largest = int(np.abs(values).max())
    if largest == 0:
        return np.zeros(values.shape, np.int8)
    scale = ((GRAD_MAX << 40) + largest - 1) // largest
    size = np.abs(values) * np.int64(scale) * np.asarray(ratios, np.int64)
    codes = (size + (1 << 54)) >> 55
    return np.asarray(np.sign(values) * codes, np.int8)


def factor_product(a: Factor, b: Factor) -> Factor:
    """a * b, cut to 31 bits."""
    product = a.mantissa * b.mantissa
    if product == 0:
        return Factor(0, 0)
    excess = 31 if product >= 1 << 61 else 30
    return Factor(product >> excess, a.exponent + b.exponent - excess)


def factor_of(value: int) -> Factor:
    """An integer >= 0, cut to 31 bits."""
    if value == 0:
        return Factor(0, 0)
    excess = value.bit_length() - 31
    return Factor(value >> excess if excess > 0 else value << -excess, -excess)


def as_factor(values: Array) -> Factor:
    """From the int32[2] of a tensor."""
    return Factor(*map(int, values.reshape(-1)))


def step_tensor(step: Factor) -> Array:
    """To the int32[2] of a tensor."""
    return np.asarray(step, np.int64).astype(np.int32)


def exp2_negative(t: int) -> int:
    """2^-(t / 65536) in Q24, t >= 0."""
    whole, fraction = t >> 16, t & 0xFFFF
    if whole > 24:
        return 0
    x, result = fraction << 14, EXP2_Q30[6]
    for coefficient in reversed(EXP2_Q30[:6]):
        result = coefficient + ((result * x) >> 30)
    return result >> (6 + whole)


def log2_q16(value: int) -> int:
    """log2(value) in Q16, value >= 1; 16 fraction bits, truncated."""
    whole = value.bit_length() - 1
    x = value << (30 - whole) if whole <= 30 else value >> (whole - 30)
    fraction = 0
    for _ in range(16):
        x = (x * x) >> 30
        bit = x >> 31
        x >>= bit
        fraction = 2 * fraction + bit
    return (whole << 16) + fraction


def step_factor(learning_rate: Factor, numerator: int, denominator: int) -> Factor:
    """learning_rate * numerator / denominator, 0 < numerator <= denominator < 2^63."""
    if learning_rate.mantissa == 0:
        return Factor(0, 0)
    exponent = 31
    while 2 * numerator <= denominator:
        numerator, exponent = 2 * numerator, exponent + 1
    while denominator >> 32:
        numerator, denominator = numerator >> 1, denominator >> 1
    quotient = (numerator << 31) // denominator
    if quotient == 1 << 31:
        quotient, exponent = 1 << 30, exponent - 1
    product = learning_rate.mantissa * quotient
    if product >= 1 << 61:
        return Factor(product >> 31, learning_rate.exponent + exponent - 31)
    return Factor(product >> 30, learning_rate.exponent + exponent - 30)


def reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """Gradient, loss and step of one sample."""
    attrs: SoftmaxCrossEntropyAttrs = op.attrs
    logits = [int(value) for value in inputs[0].reshape(-1)]
    label, learning_rate = int(inputs[1].reshape(-1)[0]), as_factor(inputs[2])
    multipliers, shift = fixed_logits(attrs.scale, 2.0**-16)
    z = [
        scaled(logit * m, shift, LOGIT_LIMIT) for logit, m in zip(logits, multipliers, strict=True)
    ]
    distance = [max(z) - value for value in z]
    e = [exp_negative(d) for d in distance]
    total = sum(e)
    on, off, target_shift = attrs.targets
    loss = distance[label]
    if target_shift:
        loss = scaled((on - off) * loss + off * sum(distance), target_shift, INT32_MAX)
    loss += log_q24(total)
    weight = attrs.class_weights[label] if attrs.weights else None
    if weight is not None:
        loss = scaled(loss * weight.mantissa, weight.exponent, INT32_MAX)
    parts = [(e_i << target_shift) - total * (on if i == label else off) for i, e_i in enumerate(e)]
    peak = max(map(abs, parts))
    if peak == 0:
        grad, step = [0] * len(e), Factor(0, 0)
    else:
        step = step_factor(learning_rate, peak, total << target_shift)
        if weight is not None:
            step = factor_product(step, weight)
        cut = max(0, peak.bit_length() - 40)
        divisor = (peak >> cut) << 15
        grad = [
            (1 if part >= 0 else -1)
            * (((abs(part) >> cut) * GRAD_MAX * ratio + divisor // 2) // divisor)
            for part, ratio in zip(parts, attrs.grad_ratios, strict=True)
        ]
    return [np.asarray([grad], np.int8), np.asarray([loss], np.int32), step_tensor(step)]


def kernel_call(op: Op, graph: Graph) -> KernelCall:
    """tte_softmax_cross_entropy_int8."""
    attrs: SoftmaxCrossEntropyAttrs = op.attrs
    multipliers, shift = fixed_logits(attrs.scale, 2.0**-16)
    on, off, target_shift = attrs.targets
    return KernelCall(
        f"tte_{op.kind}",
        params.SoftmaxCrossEntropyParams(
            classes=len(attrs.scale),
            logit_shift=shift,
            target_shift=target_shift,
            target_label=on,
            target_other=off,
        ),
        (
            *(TensorArg(name) for name in op.inputs),
            TableArg("logit_multipliers", "int32_t", multipliers),
            TableArg("grad_ratios", "int32_t", attrs.grad_ratios),
            TableArg("class_weights", "tte_factor", attrs.class_weights),
            *(TensorArg(name) for name in op.outputs),
        ),
    )


FAMILY = Family(
    integer_ops=(IntegerOp("softmax_cross_entropy_int8", reference, kernel_call),),
)
