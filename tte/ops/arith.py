# SPDX-License-Identifier: Apache-2.0
"""The integer arithmetic in numpy: the twin of runtime_c/include/tte_requant.h.

Everything rounds half up (floor(x + 1/2)). Source: docs/numerics.md, sections 1 to 3.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Int = NDArray[np.integer]

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
GRAD_MAX = 127
RESIDUAL_UNITS = 256  # a trained value has 8 fraction bits
WEIGHT_FULL_MIN, WEIGHT_FULL_MAX = -127 * 256, 127 * 256 + 127
BIAS_LIMIT = 2**30
DEAD_CHANNEL_SCALE = 1e-6  # below this a channel's weight scale is degenerate


class Factor(NamedTuple):
    """A positive real number as mantissa * 2^-exponent, mantissa in [2^30, 2^31); 0 is (0, 0)."""

    mantissa: int
    exponent: int


def to_factor(value: float) -> Factor:
    """The nearest Factor; ValueError for negative or non-finite numbers."""
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"a factor is finite and not negative, got {value}")
    if value == 0:
        return Factor(0, 0)
    fraction, exponent = math.frexp(value)  # fraction in [0.5, 1)
    mantissa = round(fraction * 2**31)
    if mantissa == 2**31:
        mantissa, exponent = 2**30, exponent + 1
    return Factor(mantissa, 31 - exponent)


def fixed_multipliers(real: ArrayLike) -> tuple[tuple[int, ...], int]:
    """Real multipliers (>= 0, < 2^30) -> (int32 multipliers, pre_shift) such that
    real = multiplier * 2^(pre_shift - 32), with the smallest pre_shift that fits."""
    values = np.atleast_1d(np.asarray(real, np.float64))
    if not np.all(np.isfinite(values)) or values.min(initial=0.0) < 0 or values.max() >= 2.0**30:
        raise ValueError("a multiplier is out of range")
    pre_shift = 0
    while np.floor(values.max() * 2.0 ** (32 - pre_shift) + 0.5) > INT32_MAX:
        pre_shift += 1
    fixed = np.floor(values * 2.0 ** (32 - pre_shift) + 0.5).astype(np.int64)
    return tuple(int(value) for value in fixed), pre_shift


def requantize(acc: Int, multipliers: ArrayLike, pre_shift: int) -> NDArray[np.int64]:
    """round(acc * multiplier * 2^(pre_shift - 32)), saturated to int32."""
    shift = 32 - pre_shift
    value = acc.astype(np.int64) * np.asarray(multipliers, np.int64)
    value += 1 << (shift - 1)
    value >>= shift
    return value.clip(INT32_MIN, INT32_MAX, out=value)


def requantize_grad(
    acc: Int,
    multipliers: ArrayLike,
    addend: Int | None,
    addend_multipliers: ArrayLike | None,
    mask: NDArray[np.bool_] | None,
    pre_shift: int,
) -> tuple[NDArray[np.int8], int]:
    """The epilogue of every gradient kernel: int8 gradients and the number of saturations."""
    shift = 32 - pre_shift
    total = acc.astype(np.int64) * np.asarray(multipliers, np.int64)
    if addend is not None:
        total = total + addend.astype(np.int64) * np.asarray(addend_multipliers, np.int64)
    value = (total + (1 << (shift - 1))) >> shift
    if mask is not None:
        value = np.where(mask, value, 0)
    saturations = int(np.count_nonzero(np.abs(value) > GRAD_MAX))
    return np.clip(value, -GRAD_MAX, GRAD_MAX).astype(np.int8), saturations


def clamp_with_mask(
    value: Int, act_min: int, act_max: int
) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """The forward epilogue: the clamped int8 value and where it was inside the range."""
    inside = (value >= act_min) & (value <= act_max)
    return np.clip(value, act_min, act_max).astype(np.int8), inside


def update_step(total: Int, step: Factor, rates: list[Factor]) -> NDArray[np.int64]:
    """round(total * step * rate) per row, in 2^-8 quanta, saturated to +-2^30.

    total: int[rows, ...]; one rate per row. Both factors are multiplied to 31 bits first.
    """
    limit = 1 << 30
    out = np.zeros(total.shape, np.int64)
    for row, rate in enumerate(rates):
        mantissa = (step.mantissa * rate.mantissa) >> 31
        shift = step.exponent + rate.exponent - 31
        product = total[row].astype(np.int64) * mantissa
        if shift > 62:
            continue
        if shift < 1:
            out[row] = np.sign(product) * limit
        else:
            out[row] = np.clip((product + (1 << (shift - 1))) >> shift, -limit, limit)
    return out


def apply_update(
    value: Int, residual: Int, delta: Int, low: int, high: int
) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """256 * value + residual -= delta, saturated to [low, high]; split again, nearest."""
    full = RESIDUAL_UNITS * value.astype(np.int64) + residual.astype(np.int64) - delta
    full = np.clip(full, low, high)
    new_value = (full + RESIDUAL_UNITS // 2) >> 8
    return new_value, (full - RESIDUAL_UNITS * new_value).astype(np.int8)
