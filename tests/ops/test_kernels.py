# SPDX-License-Identifier: Apache-2.0
"""Every portable kernel against the formula of its header, written the obvious way.

The references share nothing with tte: they pad the map, cut out patches and multiply. Each
example is a random shape and a seed; memory errors show in the canaries of kernel_library and,
in the second run that the last test starts, under ASan.
"""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernel_library import (
    INCLUDE,
    PORTABLE_SOURCES,
    Argument,
    asan_is_loaded,
    asan_runtime,
    kernel_library,
    run_with_asan,
)
from tte.ops import params
from tte.ops.depthwise_conv2d import tap_planes_scratch_bytes
from tte.ops.params import Window

Array = NDArray[Any]

random_cases = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
seeds = st.integers(0, 2**32 - 1)


def call(symbol: str, kernel_params: params.Params, *args: Argument) -> None:
    kernel_library().call(symbol, kernel_params, args)


# ---- random shapes and data ---------------------------------------------------------------


@st.composite
def windows(draw: st.DrawFn, kind: str = "conv2d") -> Window:
    """Any window that has an output; "depthwise" and "pool" have as many outputs as inputs."""

    def axis() -> tuple[int, int, int, int, int, int]:
        size, kernel = draw(st.integers(1, 9)), draw(st.integers(1, 7))
        stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
        pad_begin, pad_end = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        room = size + pad_begin + pad_end - dilation * (kernel - 1) - 1
        assume(room >= 0)
        return size, room // stride + 1, kernel, stride, dilation, pad_begin

    in_h, out_h, kernel_h, stride_h, dilation_h, pad_top = axis()
    in_w, out_w, kernel_w, stride_w, dilation_w, pad_left = axis()
    if kind == "conv2d":
        groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
        in_c = groups * draw(st.sampled_from([1, 2, 3, 8, 17]))
        out_c = groups * draw(st.integers(1, 9))
    else:
        in_c = out_c = draw(st.integers(1, 6))
        groups = in_c if kind == "depthwise" else 1
    return Window(
        in_h, in_w, in_c, out_h, out_w, out_c, kernel_h, kernel_w, stride_h, stride_w,
        dilation_h, dilation_w, pad_top, pad_left, groups,
    )  # fmt: skip


@st.composite
def pointwise(draw: st.DrawFn) -> Window:
    """1x1, stride 1: several blocks of tiles, whole ones and others."""
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    in_c, out_c = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    return Window(height, width, in_c, height, width, out_c, 1, 1, 1, 1, 1, 1, 0, 0, 1)


@st.composite
def channelwise(draw: st.DrawFn) -> Window:
    """A depthwise kernel of one tap."""
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    channels = draw(st.integers(1, 17))
    return Window(
        height, width, channels, height, width, channels, 1, 1, 1, 1, 1, 1, 0, 0, channels
    )


@dataclass(frozen=True)
class Random:
    """Seeded data in the ranges of the kernels."""

    rng: np.random.Generator

    def int8(self, *shape: int, low: int = -128) -> Array:
        return self.rng.integers(low, 128, shape).astype(np.int8)

    def grad(self, *shape: int) -> Array:
        """Gradients: many are exactly 0, as behind a clamp."""
        zero = self.rng.random(shape) < 0.3
        return np.where(zero, 0, self.rng.integers(-127, 128, shape)).astype(np.int8)

    def weight(self, window: Window) -> Array:
        channels = window.in_c // window.groups
        return self.int8(window.out_c, window.kernel_h, window.kernel_w, channels, low=-127)

    def bias(self, count: int) -> Array:
        return self.rng.integers(-20000, 20001, count).astype(np.int32)

    def multipliers(self, count: int, typical_acc: float, pre_shift: int) -> Array:
        """Such that typical results fill int8, and some leave it."""
        real = self.rng.uniform(0.3, 2.0, count) * 100 / max(typical_acc, 1.0)
        fixed = np.minimum(real * 2.0 ** (32 - pre_shift), 2**31 - 1)
        return fixed.astype(np.int64).astype(np.int32)

    def pre_shift(self) -> int:
        return int(self.rng.choice([0, 0, 0, 1, 2, 5]))

    def requant(self) -> params.Requant:
        low, high = sorted(int(value) for value in self.rng.choice(256, 2) - 128)
        if self.rng.random() < 0.3:
            low, high = -128, 127
        x_zero, y_zero = (int(value) for value in self.rng.integers(-128, 128, 2))
        return params.Requant(x_zero, y_zero, low, high, self.pre_shift())

    def flip(self) -> bool:
        return bool(self.rng.random() < 0.5)


def random(seed: int) -> Random:
    return Random(np.random.default_rng(seed))


# ---- the formulas -------------------------------------------------------------------------


def shifted(value: Array, shift: int) -> Array:
    """round(value / 2^shift), half up."""
    return (value + (1 << (shift - 1))) >> shift


def padded(window: Window, x: Array) -> Array:
    """The map with its padding, wide enough for every tap; x has no zero point any more."""
    height = (window.out_h - 1) * window.stride_h + (window.kernel_h - 1) * window.dilation_h + 1
    width = (window.out_w - 1) * window.stride_w + (window.kernel_w - 1) * window.dilation_w + 1
    top, left = window.pad_top, window.pad_left
    whole = np.zeros(
        (max(height, top + window.in_h), max(width, left + window.in_w), window.in_c), np.int64
    )
    whole[top : top + window.in_h, left : left + window.in_w] = x
    return whole


def unpadded(window: Window, whole: Array) -> Array:
    top, left = window.pad_top, window.pad_left
    return whole[top : top + window.in_h, left : left + window.in_w]


def patch(window: Window, oy: int, ox: int, channels: slice = slice(None)) -> tuple[slice, ...]:
    """Index of the elements of the padded map under output (oy, ox)."""
    top, left = oy * window.stride_h, ox * window.stride_w
    return (
        slice(top, top + (window.kernel_h - 1) * window.dilation_h + 1, window.dilation_h),
        slice(left, left + (window.kernel_w - 1) * window.dilation_w + 1, window.dilation_w),
        channels,
    )


def group_channels(window: Window, o: int) -> slice:
    size = window.in_c // window.groups
    group = o // (window.out_c // window.groups)
    return slice(group * size, (group + 1) * size)


def conv2d_sums(window: Window, x: Array, weight: Array) -> Array:
    """weight [out_c, kernel_h, kernel_w, in_c / groups]; x without its zero point."""
    whole = padded(window, x)
    out = np.zeros((window.out_h, window.out_w, window.out_c), np.int64)
    for oy, ox, o in np.ndindex(*out.shape):
        under = whole[patch(window, oy, ox, group_channels(window, o))]
        out[oy, ox, o] = np.sum(under * weight[o].astype(np.int64))
    return out


def conv2d_grad_input_sums(window: Window, grad: Array, weight: Array) -> Array:
    whole = padded(window, np.zeros((window.in_h, window.in_w, window.in_c)))
    for oy, ox, o in np.ndindex(*grad.shape):
        at = patch(window, oy, ox, group_channels(window, o))
        whole[at] += weight[o].astype(np.int64) * int(grad[oy, ox, o])
    return unpadded(window, whole)


def conv2d_grad_weight_sums(window: Window, x: Array, grad: Array) -> Array:
    whole = padded(window, x)
    shape = (window.out_c, window.kernel_h, window.kernel_w, window.in_c // window.groups)
    out = np.zeros(shape, np.int64)
    for oy, ox, o in np.ndindex(*grad.shape):
        at = patch(window, oy, ox, group_channels(window, o))
        out[o] += whole[at] * int(grad[oy, ox, o])
    return out


def activation(acc: Array, multipliers: Array, requant: params.Requant) -> tuple[Array, Array]:
    """(y, whether it was inside the clamp)."""
    value = shifted(acc * multipliers.astype(np.int64), 32 - requant.pre_shift)
    value = value.clip(-(2**31), 2**31 - 1) + requant.output_zero_point
    inside = (requant.act_min <= value) & (value <= requant.act_max)
    return value.clip(requant.act_min, requant.act_max).astype(np.int8), inside


def bits(mask: Array) -> Array:
    return np.packbits(mask.reshape(-1), bitorder="little")


def up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def tiles(k: int, n: int) -> int:
    k = up(k, 4)
    return min(max(16, 4096 // (8 * k + 32)), max(1, 1536 // k), up(n, 4) // 4)


def product(k: int, n: int) -> int:
    """Scratch bytes, docs/kernels.md."""
    return tiles(k, n) * (8 * up(k, 4) + 32) + 4 * up(k, 4) + 44


def update_product(window: Window) -> int:
    """Scratch bytes of a weight gradient, docs/kernels.md."""
    row, pixels = window.kernel_h * window.kernel_w * window.in_c, window.out_h * window.out_w
    same = (window.in_h, window.in_w) == (window.out_h, window.out_w)
    strides = window.stride_h * window.stride_w
    whole = row == window.in_c and same and strides == 1 and not window.pad_top + window.pad_left
    parts = -(-window.out_h // max(1, 256 // window.out_w))
    rows = -(-window.out_h // parts)
    if pixels <= (1536 if whole else 256) or rows == window.out_h:
        parts, rows = 1, window.out_h
    if window.groups > 1 or rows * window.out_w > 1536:
        return 0
    if parts == 1:
        return product(pixels, row)
    n = min(row, 16)
    kept = 32 * tiles(rows * window.out_w, n) * (up(window.out_c, 2) // 2)
    return product(rows * window.out_w, n) + kept


def planes(rows: int, cols: int, kernel_w: int, n: int, mask_rows: int) -> int:
    """Scratch bytes, docs/kernels.md."""
    plane = 2 * rows * up(cols + kernel_w // 2 % 2, 2)
    count = 4 if 4 * plane <= 8192 else 1
    return count * plane + max(4 * max(64, up(n, 4)), (4 + mask_rows) * up(n, 4))


def grad_planes(in_h: int, in_w: int, kernel_h: int, kernel_w: int) -> int:
    """Scratch bytes of a depthwise input gradient, docs/kernels.md."""
    rows, cols = in_h + kernel_h - 1, up(in_w, 4) + kernel_w - 1
    four = 8 * rows * up(cols + kernel_w // 2 % 2, 2)
    four = four + 8 * in_h * up(in_w, 4) if four <= 8192 else 8192
    return max(4 * in_h * in_w, planes(rows, cols, kernel_w, in_w, 0), four)


@dataclass(frozen=True)
class TrainedChannels:
    """Weights of some input channels that stand in for those in the whole tensor."""

    whole: Array  # what counts
    frozen: Array  # what the kernel gets
    count: int
    args: tuple[Argument, ...]  # trained, channels

    @staticmethod
    def draw(data: Random, weight: Array) -> TrainedChannels:
        share = weight.shape[-1]
        if data.flip():
            return TrainedChannels(weight, weight, 0, (None, None))
        count = int(data.rng.integers(1, share + 1))
        channels = np.sort(data.rng.permutation(share)[:count])
        frozen = weight.copy()
        frozen[..., channels] = data.int8(*frozen[..., channels].shape)
        trained = np.ascontiguousarray(weight[..., channels])
        return TrainedChannels(weight, frozen, count, (trained, channels.astype(np.uint16)))


def rubbish(scratch_bytes: int, dtype: Any) -> Array:
    return np.full(scratch_bytes, 0xC7, np.uint8).view(dtype)


def garbage_bytes(count: int) -> Array:
    return np.full(count, 0x5A, np.uint8)


@dataclass(frozen=True)
class GradEpilogue:
    """The arguments that all grad_input kernels share, and what they must lead to."""

    multipliers: Array
    addend: Array | None
    addend_multipliers: Array | None
    mask: Array | None
    pre_shift: int
    grad_input: Array

    @staticmethod
    def draw(data: Random, shape: tuple[int, ...], typical_acc: float) -> GradEpilogue:
        pre_shift = data.pre_shift()
        addend = data.grad(*shape) if data.flip() else None
        sign, addend_sign = (np.int32(-1 if data.rng.random() < 0.2 else 1) for _ in range(2))
        return GradEpilogue(
            sign * data.multipliers(shape[-1], typical_acc, pre_shift),
            addend,
            None if addend is None else addend_sign * data.multipliers(shape[-1], 100.0, pre_shift),
            data.rng.random(shape) < 0.7 if data.flip() else None,
            pre_shift,
            # Either its own buffer or the addend's.
            addend if addend is not None and data.flip() else data.int8(*shape),
        )

    def args(self) -> tuple[Argument, ...]:
        mask = None if self.mask is None else bits(self.mask)
        return (self.multipliers, self.addend, self.addend_multipliers, mask, self.grad_input)

    def expected(self, acc: Array) -> tuple[Array, int]:
        """(grad_input, saturations)."""
        total = acc * self.multipliers.astype(np.int64)
        if self.addend is not None:
            assert self.addend_multipliers is not None
            total = total + self.addend.astype(np.int64) * self.addend_multipliers
        value = shifted(total, 32 - self.pre_shift)
        if self.mask is not None:
            value = value * self.mask
        return value.clip(-127, 127).astype(np.int8), int(np.sum(abs(value) > 127))


def check_grad_input(
    symbol: str,
    kernel_params: params.Params,
    inputs: tuple[Argument, ...],
    epilogue: GradEpilogue,
    acc: Array,
    scratch: Array | None,
) -> None:
    expected, count = epilogue.expected(acc)
    saturations = np.asarray([7], np.uint32)
    tail = () if scratch is None else (scratch,)
    call(symbol, kernel_params, *inputs, *epilogue.args(), saturations, *tail)
    assert np.array_equal(epilogue.grad_input, expected)
    assert saturations[0] == 7 + count


# ---- forward ------------------------------------------------------------------------------


def check_conv2d(
    symbol: str, window: Window, data: Random, requant: params.Requant | None = None
) -> None:
    """All rows or some, with and without a mask; depthwise also in place."""
    depthwise = symbol == "tte_depthwise_conv2d_int8"
    requant = requant or data.requant()
    x = data.int8(window.in_h, window.in_w, window.in_c)
    weight = data.weight(window)
    bias = data.bias(window.out_c)
    acc = conv2d_sums(window, x.astype(np.int64) - requant.input_zero_point, weight) + bias
    multipliers = data.multipliers(window.out_c, float(np.abs(acc).mean()), requant.pre_shift)
    expected, inside = activation(acc, multipliers, requant)

    row_elems = window.out_w * window.out_c
    begin, end = 0, window.out_h
    if data.flip():
        begin = int(data.rng.integers(0, window.out_h))
        end = int(data.rng.integers(begin + 1, window.out_h + 1))
    with_mask = data.flip() and begin * row_elems % 8 == 0
    mask = garbage_bytes((window.out_h * row_elems + 7) // 8) if with_mask else None
    if depthwise and (begin, end) == (0, window.out_h) and data.flip():
        y = np.zeros(max(x.size, expected.size), np.int8)
        y[: x.size] = x.reshape(-1)
        x = y
    else:
        y = data.int8(expected.size)
        x.flags.writeable = False
    weight.flags.writeable = False
    before = y.copy()
    trained = TrainedChannels.draw(data, weight)
    count, weights = (
        (0, (weight,)) if depthwise else (trained.count, (trained.frozen, *trained.args))
    )
    taps = window.kernel_h * window.kernel_w * window.in_c // window.groups
    rows = (end - begin - 1) * window.stride_h + (window.kernel_h - 1) * window.dilation_h + 1
    cols = (up(window.out_w, 4) - 1) * window.stride_w
    cols += (window.kernel_w - 1) * window.dilation_w + 1
    scratch = (
        planes(rows, cols, window.kernel_w, window.out_w, end - begin if with_mask else 0)
        if depthwise
        else product(taps, (end - begin) * window.out_w)
    )

    row_range = (ctypes.c_uint16(begin), ctypes.c_uint16(end))
    call(
        symbol,
        params.Conv2dParams(window, requant, count),
        *(x, *weights, bias, multipliers, *row_range, y, mask, rubbish(scratch, np.int16)),
    )
    first, last = begin * row_elems, end * row_elems
    assert np.array_equal(y[first:last], expected.reshape(-1)[first:last])
    if y is not x:
        assert np.array_equal(y[:first], before[:first])
        assert np.array_equal(y[last:], before[last:])
    if mask is not None:
        whole_mask = garbage_bytes(mask.size)
        written = bits(inside.reshape(-1)[first:last])
        whole_mask[first // 8 : first // 8 + written.size] = written
        assert np.array_equal(mask, whole_mask)


@random_cases
@given(windows(), seeds)
def test_conv2d(window: Window, seed: int) -> None:
    check_conv2d("tte_conv2d_int8", window, random(seed))


@pytest.mark.parametrize(("in_c", "out_c"), [(64, 7), (131, 4), (576, 12), (24, 32), (773, 3)])
def test_pointwise_conv2d(in_c: int, out_c: int) -> None:
    """Long rows: the vectorised loops and what is left over."""
    window = Window(3, 5, in_c, 3, 5, out_c, 1, 1, 1, 1, 1, 1, 0, 0, 1)
    check_conv2d("tte_conv2d_int8", window, random(in_c))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("size", [3, 17, 26])
def test_conv2d_of_an_image(size: int, pad: int, seed: int) -> None:
    """3x3, stride 2, three channels; the last window ends where the image does, or before. No
    activation but the range of int8."""
    out = (size + 2 * pad - 3) // 2 + 1
    window = Window(size, size, 3, out, out, 16, 3, 3, 2, 2, 1, 1, pad, pad, 1)
    requant = params.Requant(-7 * seed, 5, -128, 127, 0)
    check_conv2d("tte_conv2d_int8", window, random(seed), requant)


@random_cases
@given(pointwise(), seeds)
def test_any_pointwise_conv2d(window: Window, seed: int) -> None:
    check_conv2d("tte_conv2d_int8", window, random(seed))


@random_cases
@given(windows("depthwise") | channelwise(), seeds)
def test_depthwise_conv2d(window: Window, seed: int) -> None:
    check_conv2d("tte_depthwise_conv2d_int8", window, random(seed))


@random_cases
@given(st.integers(1, 200), st.integers(1, 9), seeds)
def test_linear(in_c: int, out_c: int, seed: int) -> None:
    data = random(seed)
    zero_point = int(data.int8())
    x, weight, bias = data.int8(in_c), data.int8(out_c, in_c, low=-127), data.bias(out_c)
    y = np.zeros(out_c, np.int32)
    call("tte_linear_int32", params.LinearParams(in_c, out_c, zero_point), x, weight, bias, y)
    assert np.array_equal(y, bias + weight.astype(np.int64) @ (x.astype(np.int64) - zero_point))


@random_cases
@given(st.integers(1, 100), st.integers(1, 31), st.sampled_from(["y", "a", "b", "ab"]), seeds)
def test_add(elems: int, shift: int, in_place: str, seed: int) -> None:
    data = random(seed)
    top = min(2**21, 2 ** (shift + 1))
    a_multiplier, b_multiplier = (int(value) for value in data.rng.integers(0, top, 2))
    if data.rng.random() < 0.1:
        a_multiplier = b_multiplier = 2**21 - 1
    a_zero, b_zero = int(data.int8()), int(data.int8())
    requant = data.requant()
    kernel_params = params.AddParams(
        elems, a_multiplier, b_multiplier, shift, a_zero, b_zero, requant.output_zero_point,
        requant.act_min, requant.act_max,
    )  # fmt: skip
    a = data.int8(elems)
    b = a if in_place == "ab" else data.int8(elems)
    y = {"y": data.int8(elems), "a": a, "b": b, "ab": a}[in_place]
    total = (a.astype(np.int64) - a_zero) * a_multiplier
    total += (b.astype(np.int64) - b_zero) * b_multiplier
    value = shifted(total, shift) + requant.output_zero_point
    mask = garbage_bytes((elems + 7) // 8) if data.flip() else None
    call("tte_add_int8", kernel_params, a, b, y, mask)
    assert np.array_equal(y, value.clip(requant.act_min, requant.act_max))
    if mask is not None:
        inside = (requant.act_min <= value) & (value <= requant.act_max)
        assert np.array_equal(mask, bits(inside))


@random_cases
@given(st.integers(1, 100), st.booleans(), seeds)
def test_clip(elems: int, in_place: bool, seed: int) -> None:
    data = random(seed)
    requant = data.requant()
    low, high = requant.act_min, requant.act_max
    x = data.int8(elems)
    y = x if in_place else data.int8(elems)
    expected, inside = x.clip(low, high), (low <= x) & (x <= high)
    mask = garbage_bytes((elems + 7) // 8) if data.flip() else None
    call("tte_clip_int8", params.ClipParams(elems, low, high), x, y, mask)
    assert np.array_equal(y, expected)
    assert mask is None or np.array_equal(mask, bits(inside))


def window_counts(window: Window) -> Array:
    """Elements of the map under each window, [out_h, out_w]."""
    whole = padded(window, np.ones((window.in_h, window.in_w, window.in_c)))[:, :, :1]
    counts = np.zeros((window.out_h, window.out_w), np.int64)
    for oy, ox in np.ndindex(*counts.shape):
        counts[oy, ox] = whole[patch(window, oy, ox)].sum()
    assume(counts.min() > 0)
    return counts


@random_cases
@given(windows("pool"), st.booleans(), seeds)
def test_avg_pool2d(window: Window, count_include_pad: bool, seed: int) -> None:
    data = random(seed)
    requant = data.requant()
    counts = window_counts(window)
    x = data.int8(window.in_h, window.in_w, window.in_c)
    x.flags.writeable = False
    whole = padded(window, x.astype(np.int64) - requant.input_zero_point)
    acc = np.zeros((window.out_h, window.out_w, window.out_c), np.int64)
    for oy, ox in np.ndindex(*counts.shape):
        acc[oy, ox] = whole[patch(window, oy, ox)].sum(axis=(0, 1))
    elems = window.kernel_h * window.kernel_w
    multipliers = data.multipliers(1 if count_include_pad else elems, 500.0, requant.pre_shift)
    chosen = multipliers[0] if count_include_pad else multipliers[counts - 1][:, :, None]
    expected, _ = activation(acc, chosen, requant)
    y = data.int8(*acc.shape)
    kernel_params = params.AvgPool2dParams(window, requant, int(count_include_pad))
    call("tte_avg_pool2d_int8", kernel_params, x, multipliers, y)
    assert np.array_equal(y, expected)


@random_cases
@given(st.integers(1, 100), seeds)
def test_widen(elems: int, seed: int) -> None:
    data = random(seed)
    x, zero_point = data.int8(elems), int(data.int8())
    y = np.zeros(elems, np.int32)
    call("tte_widen_int32", params.WidenParams(elems, zero_point), x, y)
    assert np.array_equal(y, x.astype(np.int32) - zero_point)


@random_cases
@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 4), seeds)
def test_gather_and_scatter_channels(outer: int, channels: int, inner: int, seed: int) -> None:
    data = random(seed)
    count = int(data.rng.integers(0, channels + 1))
    index = np.sort(data.rng.permutation(channels)[:count]).astype(np.uint16)
    kernel_params = params.ChannelsParams(outer, channels, inner, count)
    x = data.int8(outer, channels, inner)
    x.flags.writeable = False

    gathered = data.int8(outer, count, inner)
    call("tte_gather_channels_int8", kernel_params, x, index, gathered)
    assert np.array_equal(gathered, x[:, index])

    values, y = data.int8(outer, count, inner), data.int8(outer, channels, inner)
    expected = x.copy()
    expected[:, index] = values
    call("tte_scatter_channels_int8", kernel_params, x, values, index, y)
    assert np.array_equal(y, expected)


# ---- loss ---------------------------------------------------------------------------------


def exp_negative(d: int) -> int:
    """exp(-d) in Q24 of d in Q16: the arithmetic of docs/numerics.md, section 4."""
    taylor = [round((-math.log(2)) ** k / math.factorial(k) * 2**30) for k in range(7)]
    t = (d * 94548 + 32768) >> 16
    n, f = t >> 16, t & 0xFFFF
    if n > 24:
        return 0
    r = taylor[6]
    for k in range(5, -1, -1):
        r = taylor[k] + ((r * (f << 14)) >> 30)
    return r >> (6 + n)


def log2_q16(total: int) -> int:
    """log2(total / 2^24) in Q16."""
    k = total.bit_length() - 1
    x = total >> (k - 30) if k > 30 else total << (30 - k)
    fraction = 0
    for _ in range(16):
        x = (x * x) >> 30
        bit = int(x >= 2**31)
        x >>= bit
        fraction = 2 * fraction + bit
    return ((k - 24) << 16) + fraction


def learning_step(mantissa: int, exponent: int, part: int, whole: int) -> tuple[int, int]:
    """learning rate * part / whole as (mantissa, exponent)."""
    e = 0
    while 2 * part <= whole:
        part, e = 2 * part, e + 1
    while whole >> 32:
        part, whole = part >> 1, whole >> 1
    quotient = (part << 31) // whole
    if quotient == 2**31:
        quotient, e = 2**30, e - 1
    product = mantissa * quotient
    excess = 31 if product >= 2**61 else 30
    return product >> excess, exponent + 31 + e - excess


def check_softmax_cross_entropy(classes: int, spread: int, data: Random) -> None:
    """`spread`: of the accumulators; 2^12 is a fraction of a nat."""
    logits = data.rng.integers(-spread, spread + 1, classes).astype(np.int32)
    label = int(data.rng.integers(0, classes))
    shift = int(data.rng.integers(1, 63)) if data.rng.random() < 0.3 else 25
    logit_multipliers = data.rng.integers(2**29, 2**31, classes).astype(np.int32)
    grad_ratios = data.rng.integers(1, 32769, classes).astype(np.int32)
    grad_ratios[data.rng.random(classes) < 0.2] = 16384  # 127 / 2 is a tie
    if data.flip():
        grad_ratios[:] = 32768
    rate = (0, 0) if data.rng.random() < 0.1 else (int(data.rng.integers(2**30, 2**31)), 40)

    z = [
        int(shifted(np.int64(a) * np.int64(m), shift).clip(-(2**29), 2**29))
        for a, m in zip(logits, logit_multipliers, strict=True)
    ]
    d = [max(z) - value for value in z]
    e = [exp_negative(value) for value in d]
    whole = sum(e)
    part = whole - e[label]
    expected_loss = d[label] + ((log2_q16(whole) * 45426 + 32768) >> 16)
    if part == 0:
        expected_grad = [0] * classes
    else:
        ratios = [int(ratio) for ratio in grad_ratios]
        expected_grad = [
            (value * 127 * ratio + (part << 15) // 2) // (part << 15)
            for value, ratio in zip(e, ratios, strict=True)
        ]
        expected_grad[label] = -((127 * ratios[label] + 16384) >> 15)
    trains = part != 0 and rate[0] != 0
    expected_step = learning_step(*rate, part, whole) if trains else (0, 0)

    grad, loss, step = data.int8(classes), np.zeros(1, np.int32), np.zeros(2, np.int32)
    call(
        "tte_softmax_cross_entropy_int8",
        params.SoftmaxCrossEntropyParams(classes, shift),
        *(logits, np.asarray([label], np.int32), np.asarray(rate, np.int32)),
        *(logit_multipliers, grad_ratios, None, grad, loss, step),
    )
    assert grad.tolist() == expected_grad
    assert loss[0] == expected_loss
    assert tuple(step) == expected_step

    # And the integers are what they stand for.
    real_z = np.asarray(z) / 65536
    softmax = np.exp(real_z - real_z.max()) / np.exp(real_z - real_z.max()).sum()
    real_loss = d[label] / 65536 + np.log(np.exp(-np.asarray(d) / 65536).sum())
    assert loss[0] / 65536 == pytest.approx(real_loss, rel=1e-4, abs=1e-4)
    if trains and 1 - softmax[label] > 1e-4:
        w = 1 - softmax[label]
        real_grad = (softmax - np.eye(classes)[label]) * grad_ratios / 32768 * 127 / w
        assert np.abs(grad - real_grad).max() < 0.51
        assert step[0] * 2.0 ** -step[1] == pytest.approx(rate[0] * 2.0 ** -rate[1] * w, rel=1e-2)


@random_cases
@given(st.integers(1, 20), st.sampled_from([2**6, 2**12, 2**20, 2**31 - 1]), seeds)
def test_softmax_cross_entropy(classes: int, spread: int, seed: int) -> None:
    check_softmax_cross_entropy(classes, spread, random(seed))


@pytest.mark.parametrize("classes", [128, 256, 257, 700, 1000])
@pytest.mark.parametrize("spread", [0, 2**8, 2**12])
def test_softmax_cross_entropy_of_many_classes(classes: int, spread: int) -> None:
    """Sums beyond 32 bits."""
    check_softmax_cross_entropy(classes, spread, random(classes + spread))


# ---- gradients ----------------------------------------------------------------------------


def grad_input_scratch(window: Window, trained: int) -> int:
    """docs/kernels.md."""
    sums = 4 * (window.in_c + window.groups * trained)
    height, width, step_h, step_w = window.in_h, window.in_w, window.stride_h, window.stride_w
    found, most = [], 0
    for row, col in np.ndindex(min(step_h, height), min(step_w, width)):
        taps = 0
        for ky, kx in np.ndindex(window.kernel_h, window.kernel_w):
            y = row + window.pad_top - ky * window.dilation_h
            x = col + window.pad_left - kx * window.dilation_w
            taps += y % step_h == 0 and x % step_w == 0
        rows, cols = len(range(row, height, step_h)), len(range(col, width, step_w))
        joined = cols == 1 or cols * step_w == step_h * width
        k = max(1, taps * up(window.out_c, 4))
        most = max(most, taps * up(window.out_c, 4))
        found.append((tiles(k, rows * (cols if joined else up(cols, 4))) + 1) * 8 * up(k, 4))
    if window.groups > 1 or (window.kernel_h * window.kernel_w > 1 and most > 1536):
        return sums
    return max(sums, *found)


def check_conv2d_grad_input(window: Window, seed: int) -> None:
    data = random(seed)
    grad = data.grad(window.out_h, window.out_w, window.out_c)
    weight = data.weight(window)
    trained = TrainedChannels.draw(data, weight)
    acc = conv2d_grad_input_sums(window, grad, trained.whole)
    epilogue = GradEpilogue.draw(data, acc.shape, float(np.abs(acc).mean()))
    check_grad_input(
        "tte_conv2d_grad_input_int8",
        params.Conv2dGradInputParams(window, epilogue.pre_shift, trained.count),
        (grad, trained.frozen, *trained.args),
        epilogue,
        acc,
        rubbish(grad_input_scratch(window, trained.count), np.int32),
    )


@random_cases
@given(windows(), seeds)
def test_conv2d_grad_input(window: Window, seed: int) -> None:
    check_conv2d_grad_input(window, seed)


@random_cases
@given(pointwise(), seeds)
def test_pointwise_conv2d_grad_input(window: Window, seed: int) -> None:
    check_conv2d_grad_input(window, seed)


@random_cases
@given(windows("depthwise") | channelwise(), st.booleans(), seeds)
def test_depthwise_conv2d_grad_input(window: Window, in_place: bool, seed: int) -> None:
    data = random(seed)
    grad = data.grad(window.out_h, window.out_w, window.out_c)
    weight = data.weight(window)
    acc = conv2d_grad_input_sums(window, grad, weight)
    epilogue = GradEpilogue.draw(data, acc.shape, float(np.abs(acc).mean()))
    if in_place:
        assume(grad.size <= acc.size)
        shared = data.int8(*acc.shape)
        shared.reshape(-1)[: grad.size] = grad.reshape(-1)
        grad, epilogue = shared, replace(epilogue, grad_input=shared)
    check_grad_input(
        "tte_depthwise_conv2d_grad_input_int8",
        params.Conv2dGradInputParams(window, epilogue.pre_shift),
        (grad, weight),
        epilogue,
        acc,
        rubbish(
            grad_planes(window.in_h, window.in_w, window.kernel_h, window.kernel_w),
            np.int32,
        ),
    )


@random_cases
@given(windows("pool"), st.booleans(), seeds)
def test_avg_pool2d_grad_input(window: Window, count_include_pad: bool, seed: int) -> None:
    data = random(seed)
    counts = window_counts(window)
    grad = data.grad(window.out_h, window.out_w, window.out_c)
    count_weights = data.rng.integers(1, 1000, window.kernel_h * window.kernel_w).astype(np.int32)
    whole = padded(window, np.zeros((window.in_h, window.in_w, window.in_c)))
    for oy, ox in np.ndindex(*counts.shape):
        share = 1 if count_include_pad else int(count_weights[counts[oy, ox] - 1])
        whole[patch(window, oy, ox)] += grad[oy, ox].astype(np.int64) * share
    acc = unpadded(window, whole)
    epilogue = GradEpilogue.draw(data, acc.shape, float(np.abs(acc).mean()))
    check_grad_input(
        "tte_avg_pool2d_grad_input_int8",
        params.AvgPool2dGradInputParams(window, epilogue.pre_shift, int(count_include_pad)),
        (grad, None if count_include_pad else count_weights),
        epilogue,
        acc,
        None,
    )


@random_cases
@given(st.integers(1, 20), st.integers(1, 9), st.booleans(), seeds)
def test_grad_add(positions: int, channels: int, in_place: bool, seed: int) -> None:
    data = random(seed)
    grad = data.grad(positions, channels)
    epilogue = GradEpilogue.draw(data, grad.shape, 60.0)
    if in_place:
        epilogue = replace(epilogue, grad_input=grad)
    check_grad_input(
        "tte_grad_add_int8",
        params.GradAddParams(positions, channels, epilogue.pre_shift),
        (grad,),
        epilogue,
        grad.astype(np.int64),
        None,
    )


# ---- updates ------------------------------------------------------------------------------


def update_step(total: int, step: list[int], rate: list[int]) -> int:
    """round(total * step * rate), the factors' product cut to 31 bits, within +-2^30."""
    mantissa = (step[0] * rate[0]) >> 31
    shift = step[1] + rate[1] - 31
    if shift > 62:
        return 0
    if shift < 1:
        return (2**30 if total > 0 else -(2**30)) if total * mantissa else 0
    value = (total * mantissa + (1 << (shift - 1))) >> shift
    return max(-(2**30), min(2**30, value))


def updated(
    value: Array, residual: Array, sums: Array, step: Array, rates: Array, low: int, high: int
) -> tuple[Array, Array]:
    """256 * value + residual, one step down, within low..high; rates per first dimension."""
    value, residual = value.copy(), residual.copy()
    for at in np.ndindex(*value.shape):
        rate = rates[at[0]].tolist()
        if step[0] == 0 or rate[0] == 0:
            continue
        full = 256 * int(value[at]) + int(residual[at])
        full -= update_step(int(sums[at]), step.tolist(), rate)
        full = max(low, min(high, full))
        value[at] = (full + 128) // 256
        residual[at] = full - 256 * int(value[at])
    return value, residual


def draw_factors(data: Random, count: int, typical_sum: float) -> tuple[Array, Array]:
    """(step, rates): most move a value by 1 .. 2^12 of its 256ths, some not at all or too far."""
    log2_moves = data.rng.choice([0, 3, 6, 8, 12, 12, -2, -60, 45], count)
    exponents = math.ceil(math.log2(typical_sum + 1)) + 30 - log2_moves
    rates = np.stack([data.rng.integers(2**30, 2**31, count), exponents], axis=1)
    rates[data.rng.random(count) < 0.1] = 0
    step = np.asarray([data.rng.integers(2**30, 2**31), 31])  # 0.5 .. 1
    if data.rng.random() < 0.1:
        step[:] = 0
    return step.astype(np.int32), rates.astype(np.int32)


def check_grad_weight(symbol: str, window: Window, data: Random) -> None:
    zero_point = int(data.int8())
    x = data.int8(window.in_h, window.in_w, window.in_c)
    grad = data.grad(window.out_h, window.out_w, window.out_c)
    x.flags.writeable = grad.flags.writeable = False
    sums = conv2d_grad_weight_sums(window, x.astype(np.int64) - zero_point, grad)
    step, rates = draw_factors(data, window.out_c, float(np.abs(sums).mean()))
    weight, residual = data.weight(window), data.int8(*sums.shape)
    limits = (-127 * 256, 127 * 256 + 127)
    weight[(weight == -127) & (residual < 0)] = -126  # below the range
    expected = updated(weight, residual, sums, step, rates, *limits)
    depthwise = symbol == "tte_depthwise_conv2d_grad_weight_int8"
    scratch_bytes = 4 * sums[0].size
    scratch_bytes = max(scratch_bytes, update_product(window))
    if depthwise:
        scratch_bytes = tap_planes_scratch_bytes(window)
    call(
        symbol,
        params.Conv2dGradWeightParams(window, zero_point),
        *(x, grad, step, rates, weight, residual, rubbish(scratch_bytes, np.int32)),
    )
    assert np.array_equal(weight, expected[0])
    assert np.array_equal(residual, expected[1])


@random_cases
@given(windows(), seeds)
def test_conv2d_grad_weight(window: Window, seed: int) -> None:
    check_grad_weight("tte_conv2d_grad_weight_int8", window, random(seed))


@random_cases
@given(pointwise(), seeds)
def test_pointwise_conv2d_grad_weight(window: Window, seed: int) -> None:
    check_grad_weight("tte_conv2d_grad_weight_int8", window, random(seed))


@random_cases
@given(windows("depthwise") | channelwise(), seeds)
def test_depthwise_conv2d_grad_weight(window: Window, seed: int) -> None:
    check_grad_weight("tte_depthwise_conv2d_grad_weight_int8", window, random(seed))


@random_cases
@given(st.integers(1, 60), st.integers(1, 9), seeds)
def test_grad_bias(positions: int, channels: int, seed: int) -> None:
    data = random(seed)
    grad = data.grad(positions, channels)
    sums = grad.astype(np.int64).sum(axis=0)
    step, rates = draw_factors(data, channels, float(np.abs(sums).mean()))
    bias, residual = data.bias(channels), data.int8(channels)
    for end in (0, -1):
        if data.flip():
            bias[end], residual[end] = (2**30 if end else -(2**30)), 0
    expected = updated(bias, residual, sums, step, rates, -(2**38), 2**38)
    call(
        "tte_grad_bias_int32",
        params.GradBiasParams(positions, channels),
        *(grad, step, rates, bias, residual),
    )
    assert np.array_equal(bias, expected[0])
    assert np.array_equal(residual, expected[1])


# ---- the sources --------------------------------------------------------------------------


def test_every_kernel_is_tested() -> None:
    files = Path(__file__).parent.glob("test_*kernels.py")
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    kinds = [file.stem.removeprefix("tte_") for file in PORTABLE_SOURCES]
    assert [k for k in kinds if f'"tte_{k}"' not in text and f'"{k}"' not in text] == []


@pytest.mark.skipif(asan_is_loaded(), reason="done in the run without ASan")
@pytest.mark.parametrize(
    "command",
    [
        "gcc -O3",
        "clang -O3",
        "arm-none-eabi-gcc -mthumb -mcpu=cortex-m0 -Os",
        "arm-none-eabi-gcc -mthumb -mcpu=cortex-m4 -O2",
        "arm-none-eabi-gcc -mthumb -mcpu=cortex-m7 -O2",
    ],
)
def test_sources_compile_without_a_warning(command: str, tmp_path: Path) -> None:
    compiler, *flags = command.split()
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    strict = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-c"]
    result = subprocess.run(
        [compiler, *flags, *strict, f"-I{INCLUDE}", *map(str, PORTABLE_SOURCES)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(asan_is_loaded(), reason="this is that run")
def test_again_with_address_sanitizer() -> None:
    runtime = asan_runtime()
    if runtime is None:
        pytest.skip("the host compiler has no libasan.so")
    result = run_with_asan(Path(__file__), runtime)
    assert result.returncode == 0, result.stdout + result.stderr
