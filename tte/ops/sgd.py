# SPDX-License-Identifier: Apache-2.0
"""The optimiser, where it is more than plain gradient descent: momentum, batches, weight decay.

sgd_step: counts samples; says whether a batch is complete and with which factors weights move.
sgd_int8, sgd_int32: move weights and biases by the velocity that the grad_weight and grad_bias ops
have gathered, let weights decay, and leave the velocity for the next batch. Source:
docs/numerics.md, section 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Graph, Op
from tte.ops import arith, params
from tte.ops.arith import RESIDUAL_UNITS, Factor, Int
from tte.ops.loss import as_factor, factor_of, factor_product
from tte.ops.spec import Array, Family, IntegerOp, KernelCall, SaturationsArg, TensorArg

GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: its multiples fill [0, 2^32) evenly
ROUNDING_BITS = 31
MAX_SHIFT = 62
SINE_Q30 = tuple(  # sin(pi / 2 x) = x * polynomial of x^2
    round((-1) ** k * (math.pi / 2) ** (2 * k + 1) / math.factorial(2 * k + 1) * 2**30)
    for k in range(5)
)
MOMENTUM_BITS = 16
WEIGHT_MOVE, BIAS_MOVE = 1 << 20, 1 << 40  # a move is no larger


@dataclass(frozen=True, slots=True)
class SgdStepAttrs:
    """Inputs: learning rate int32[2], count int32[2] (samples in the batch, batches done);
    outputs: step int32[6] (a tte_sgd_step), count."""

    batch: int
    weight_decay: float


@dataclass(frozen=True, slots=True)
class SgdAttrs:
    """Inputs: step, velocity and its residual or "" twice, value, residual; outputs: value and
    residual, velocity and its residual or "" twice. A velocity is in units of 2^velocity_shift
    quanta (of the value, at learning rate 1), 8 fraction bits."""

    layer: str
    param: str
    momentum: float
    velocity_shift: int = 0

    @property
    def fixed_momentum(self) -> int:
        """Q16, below 1."""
        return min((1 << MOMENTUM_BITS) - 1, round(self.momentum * (1 << MOMENTUM_BITS)))

    @property
    def velocity_range(self) -> float:
        """What a velocity should reach: all of an int8, and of an int32 enough to be exact."""
        return 127.0 if self.param == "weight" else 2.0**24


def scheduled_rate(rate: Factor, schedule: str, done: int, steps: int) -> Factor:
    """The learning rate after `done` of `steps` steps: the twin of tte_schedule.c."""
    if schedule == "constant":
        return rate
    steps = max(1, steps)
    left = ((steps - min(done, steps - 1)) << 30) // steps
    if schedule == "cosine":
        square, total = (left * left) >> 30, 0
        for coefficient in reversed(SINE_Q30):
            total = coefficient + ((total * square) >> 30)
        sine = min((total * left) >> 30, 1 << 30)
        left = (sine * sine) >> 30
    factor = factor_of(left)
    return factor_product(rate, Factor(factor.mantissa, factor.exponent + 30))


def step_reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """The step and the new count."""
    attrs: SgdStepAttrs = op.attrs
    rate = as_factor(inputs[0])
    samples, batches = (int(value) for value in inputs[1].astype(np.uint32))
    ready = samples + 1 >= attrs.batch
    rounding = (batches * GOLDEN % 2**32) >> 1
    decay = factor_product(rate, arith.to_factor(attrs.weight_decay))
    count = [0, (batches + 1) % 2**32] if ready else [samples + 1, batches]
    return [
        np.asarray([ready, rounding, *rate, *decay], np.int64).astype(np.int32),
        np.asarray(count, np.uint32).astype(np.int32),
    ]


def scaled(values: Int, factor: Factor, shift: int, rounding: int, limit: int) -> Int:
    """floor(values * factor * 2^shift + rounding * 2^-31), saturated."""
    down = max(1, factor.exponent - shift)
    if factor.mantissa == 0 or down > MAX_SHIFT:
        return np.zeros(values.shape, np.int64)
    extra = down - ROUNDING_BITS
    offset = rounding << extra if extra > 0 else rounding >> -extra
    moved = (values.astype(np.int64) * factor.mantissa + offset) >> down
    return np.clip(moved, -limit, limit)


def sgd_reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """Value and residual, velocity and its residual, and how many velocities were at their end."""
    attrs: SgdAttrs = op.attrs
    step, velocity, velocity_residual, value, residual = inputs
    ready, rounding, *factors = map(int, step.reshape(-1))
    rate, decay = Factor(*factors[:2]), Factor(*factors[2:])
    if not ready:
        return [value, residual, velocity, velocity_residual, np.zeros(1, np.int64)]
    is_bias = op.kind == "sgd_int32"
    move_limit = BIAS_MOVE if is_bias else WEIGHT_MOVE
    limit = RESIDUAL_UNITS * arith.BIAS_LIMIT
    low, high = (-limit, limit) if is_bias else (arith.WEIGHT_FULL_MIN, arith.WEIGHT_FULL_MAX)
    full = _joined(value, residual)
    moved = full if is_bias else full - scaled(full, decay, 0, rounding, move_limit)
    gathered: list[Array] = [velocity, velocity_residual]
    saturated = 0
    if velocity is not None:
        speed = _joined(velocity, velocity_residual)
        if is_bias:  # the whole part, so that products have 63 bits
            moved = moved + scaled(velocity, rate, attrs.velocity_shift + 8, rounding, move_limit)
        else:
            moved = moved + scaled(speed, rate, attrs.velocity_shift, rounding, move_limit)
        saturated = int(np.count_nonzero((speed <= low) | (speed >= high)))
        kept = speed * attrs.fixed_momentum + (rounding >> (ROUNDING_BITS - MOMENTUM_BITS))
        gathered = _split(kept >> MOMENTUM_BITS, velocity)
    return [
        *_split(np.clip(moved, low, high), value),
        *gathered,
        np.asarray([saturated], np.int64),
    ]


def _joined(value: Array, residual: Array) -> Int:
    return RESIDUAL_UNITS * value.astype(np.int64) + residual


def _split(full: Int, like: Array) -> list[Array]:
    value = (full + RESIDUAL_UNITS // 2) >> 8
    return [value.astype(like.dtype), (full - RESIDUAL_UNITS * value).astype(np.int8)]


def step_call(op: Op, graph: Graph) -> KernelCall:
    """tte_sgd_step_int32."""
    attrs: SgdStepAttrs = op.attrs
    decay = arith.to_factor(attrs.weight_decay)
    kernel_params = params.SgdStepParams(batch=attrs.batch, weight_decay=params.Factor(*decay))
    rate, count = op.inputs
    arguments = (TensorArg(rate), TensorArg(count), TensorArg(op.outputs[0]))
    return KernelCall(f"tte_{op.kind}", kernel_params, arguments)


def sgd_call(op: Op, graph: Graph) -> KernelCall:
    """tte_sgd_int8, tte_sgd_int32."""
    attrs: SgdAttrs = op.attrs
    kernel_params = params.SgdParams(
        elems=graph[op.inputs[-1]].type.elems,
        momentum=attrs.fixed_momentum,
        velocity_shift=attrs.velocity_shift,
    )
    return KernelCall(
        f"tte_{op.kind}",
        kernel_params,
        (*(TensorArg(name) for name in op.inputs), SaturationsArg()),
    )


FAMILY = Family(
    integer_ops=(
        IntegerOp("sgd_step_int32", step_reference, step_call),
        IntegerOp("sgd_int8", sgd_reference, sgd_call, saturates=True),
        IntegerOp("sgd_int32", sgd_reference, sgd_call, saturates=True),
    ),
)
