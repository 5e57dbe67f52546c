# SPDX-License-Identifier: Apache-2.0
"""Softmax cross-entropy on int32 logits, in integers from the logits to the gradient.

Logits become Q16, exp a polynomial in Q30, probabilities integers e_i with sum S. The gradient
needs no division by S: g_i / max|g| = e_i / (S - e_label), and max|g| = (S - e_label) / S only
scales the update. Source: docs/numerics.md, section 4; dynamic loss scale: section 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Graph, Op
from tte.ops import params
from tte.ops.arith import GRAD_MAX, Factor
from tte.ops.spec import (
    Array,
    Family,
    FloatOp,
    Importer,
    IntegerOp,
    KernelCall,
    OnnxNode,
    TableArg,
    TensorArg,
)

LOG2_E_Q16 = 94548
LN_2_Q16 = 45426
LOGIT_LIMIT = 2**29
EXP2_Q30 = tuple(round((-math.log(2)) ** k / math.factorial(k) * 2**30) for k in range(7))


@dataclass(frozen=True, slots=True)
class SoftmaxCrossEntropyAttrs:
    """Inputs: logits int32[1, classes], label int32[1], learning rate int32[2] (a factor).
    Outputs: dL/d(acc) int8, loss Q16 int32[1], step int32[2] = learning rate * max|g|.

    `scale`: real size of one accumulator step, per class.
    """

    scale: tuple[float, ...]

    @property
    def logit_shift(self) -> int:
        """The largest shift for which all multipliers fit int32."""
        return max(1, min(62, math.floor(math.log2((2**31 - 1) / (max(self.scale) * 65536)))))

    @property
    def logit_multipliers(self) -> tuple[int, ...]:
        """Accumulator to Q16 logit, before the shift."""
        return tuple(
            math.floor(scale * 65536 * 2.0**self.logit_shift + 0.5) for scale in self.scale
        )

    @property
    def grad_ratios(self) -> tuple[int, ...]:
        """Each class's scale over the largest, Q15."""
        largest = max(self.scale)
        return tuple(math.floor(scale / largest * 32768 + 0.5) for scale in self.scale)


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
    label = int(inputs[1].reshape(-1)[0])
    learning_rate = Factor(*map(int, inputs[2].reshape(-1)))
    shift = attrs.logit_shift
    z = [
        max(-LOGIT_LIMIT, min(LOGIT_LIMIT, (logit * m + (1 << (shift - 1))) >> shift))
        for logit, m in zip(logits, attrs.logit_multipliers, strict=True)
    ]
    distance = [max(z) - value for value in z]
    e = [exp2_negative((d * LOG2_E_Q16 + 32768) >> 16) for d in distance]
    total = sum(e)
    rest = total - e[label]
    log2_total = log2_q16(total) - (24 << 16)
    loss = distance[label] + ((log2_total * LN_2_Q16 + 32768) >> 16)
    ratios = attrs.grad_ratios
    if rest == 0:
        grad, step = [0] * len(e), Factor(0, 0)
    else:
        divisor = rest << 15
        grad = [
            (e_i * GRAD_MAX * ratio + divisor // 2) // divisor
            for e_i, ratio in zip(e, ratios, strict=True)
        ]
        grad[label] = -((GRAD_MAX * ratios[label] + 16384) >> 15)
        step = step_factor(learning_rate, rest, total)
    return [
        np.asarray([grad], np.int8),
        np.asarray([loss], np.int32),
        np.asarray(step, np.int64).astype(np.int32),
    ]


def real_gradient(scale: Sequence[float], logits: Array, labels: Array) -> tuple[Array, Array]:
    """dL/d(acc) in real numbers for a batch, float64[N, classes], and max|softmax - onehot| per
    sample. logits: int32 accumulators [N, classes]."""
    z = logits.astype(np.float64) * np.asarray(scale)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    g = e / e.sum(axis=1, keepdims=True)
    g[np.arange(len(g)), labels] -= 1.0
    return g * np.asarray(scale), np.abs(g).max(axis=1)


def kernel_call(op: Op, graph: Graph) -> KernelCall:
    """tte_softmax_cross_entropy_int8."""
    attrs: SoftmaxCrossEntropyAttrs = op.attrs
    return KernelCall(
        f"tte_{op.kind}",
        params.SoftmaxCrossEntropyParams(classes=len(attrs.scale), logit_shift=attrs.logit_shift),
        (
            *(TensorArg(name) for name in op.inputs),
            TableArg("logit_multipliers", "int32_t", attrs.logit_multipliers),
            TableArg("grad_ratios", "int32_t", attrs.grad_ratios),
            *(TensorArg(name) for name in op.outputs),
        ),
    )


# ---- a Softmax at the end of a network ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class SoftmaxAttrs:
    """Input: x. `log`: the logarithm of the softmax."""

    log: bool


def softmax_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Softmax or LogSoftmax over the classes, at the end of a network (tte/passes/fold.py)."""
    rank = len(importer.type_of(node.inputs[0]).shape)
    if rank != 2 or node.attrs.get("axis", -1 if node.opset >= 13 else 1) not in (-1, 1):
        raise importer.fail("only Softmax over the classes of [1, classes] is supported")
    importer.emit("softmax", [node.inputs[0]], SoftmaxAttrs(node.op_type == "LogSoftmax"))


def softmax_reference(op: Op, inputs: Sequence[Array]) -> Array:
    """Probabilities over the last axis, or their logarithms."""
    z = inputs[0] - inputs[0].max(axis=-1, keepdims=True)
    total = np.exp(z).sum(axis=-1, keepdims=True)
    result: Array = z - np.log(total) if op.attrs.log else np.exp(z) / total
    return result


FAMILY = Family(
    float_ops=(
        FloatOp(
            "softmax",
            lambda attrs, types: types[0],
            softmax_reference,
            None,
            {"Softmax": softmax_from_onnx, "LogSoftmax": softmax_from_onnx},
        ),
    ),
    integer_ops=(IntegerOp("softmax_cross_entropy_int8", reference, kernel_call),),
)
