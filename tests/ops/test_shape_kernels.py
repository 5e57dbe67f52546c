# SPDX-License-Identifier: Apache-2.0
"""The kernels that pool, move and resample, against the formulas of their header: see
test_kernels.py, whose random shapes and data they share."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernel_library import asan_is_loaded, asan_runtime, run_with_asan
from tests.ops.test_kernels import (
    Array,
    GradEpilogue,
    Random,
    activation,
    bits,
    call,
    check_grad_input,
    conv2d_grad_input_sums,
    conv2d_grad_weight_sums,
    conv2d_sums,
    draw_factors,
    garbage_bytes,
    padded,
    patch,
    product,
    random,
    random_cases,
    rubbish,
    seeds,
    shifted,
    unpadded,
    up,
    updated,
    window_counts,
    windows,
)
from tte.ops import params
from tte.ops.params import Window

# ---- moves --------------------------------------------------------------------------------


@random_cases
@given(st.lists(st.integers(1, 5), min_size=5, max_size=5), st.permutations(range(5)), seeds)
def test_transpose(dims: list[int], perm: list[int], seed: int) -> None:
    x = random(seed).int8(*dims)
    x.flags.writeable = False
    expected = x.transpose(perm)
    y = np.zeros(expected.shape, np.int8)
    steps = [int(np.prod(dims[axis + 1 :])) for axis in perm]
    call("tte_strided_copy_int8", params.StridedCopyParams(0, *expected.shape, *steps), x, y)
    assert np.array_equal(y, expected)


@st.composite
def selections(draw: st.DrawFn) -> list[tuple[int, int, int, int]]:
    """(size, first, step, count) of three axes, forwards and backwards."""
    found = []
    for _ in range(3):
        size, step = draw(st.integers(1, 8)), draw(st.sampled_from([1, 1, 2, 3, -1, -2]))
        first = draw(st.integers(0, size - 1))
        room = size - 1 - first if step > 0 else first
        found.append((size, first, step, draw(st.integers(1, room // abs(step) + 1))))
    return found


@random_cases
@given(selections(), seeds)
def test_slice_and_its_gradient(cuts: list[tuple[int, int, int, int]], seed: int) -> None:
    data = random(seed)
    sizes, begin, step, count = zip(*cuts, strict=True)
    index = np.ix_(*(first + each * np.arange(n) for _, first, each, n in cuts))
    x = data.int8(*sizes)
    x.flags.writeable = False
    y = np.zeros(count, np.int8)
    strides = [sizes[1] * sizes[2], sizes[2], 1]
    steps = [one * stride for one, stride in zip(step, strides, strict=True)]
    offset = sum(one * stride for one, stride in zip(begin, strides, strict=True))
    kernel_params = params.StridedCopyParams(offset, 1, 1, *count, 0, 0, *steps)
    call("tte_strided_copy_int8", kernel_params, x, y)
    assert np.array_equal(y, x[index])

    grad = data.grad(*count)
    acc = np.zeros(sizes, np.int64)
    acc[index] = grad
    epilogue = GradEpilogue.draw(data, acc.shape, 60.0)
    place = params.GradPlaceParams(*sizes, *count, *begin, *step, epilogue.pre_shift)
    check_grad_input("tte_grad_place_int8", place, (grad,), epilogue, acc, None)


def rescaled(x: Array, zero: int, multiplier: int, shift: int, y_zero: int) -> Array:
    value = shifted((x.astype(np.int64) - zero) * multiplier, 32 - shift) + y_zero
    return value.clip(-128, 127).astype(np.int8)


def rescaling(data: Random, y_zero: int) -> tuple[int, int, int]:
    """(zero point, multiplier, pre_shift), sometimes those that change nothing."""
    if data.flip():
        return y_zero, 2**30, 2
    return int(data.int8()), int(data.rng.integers(2**27, 2**31)), 2


@random_cases
@given(st.lists(st.integers(1, 9), min_size=2, max_size=4), st.integers(1, 6), seeds)
def test_concat(sizes: list[int], outer: int, seed: int) -> None:
    data = random(seed)
    y_zero = int(data.int8())
    zeros, multipliers, _ = zip(*(rescaling(data, y_zero) for _ in sizes), strict=True)
    inputs = [data.int8(outer, size) for size in sizes]
    parts = [
        rescaled(x, zero, multiplier, 2, y_zero)
        for x, zero, multiplier in zip(inputs, zeros, multipliers, strict=True)
    ]
    missing = 4 - len(sizes)
    kernel_params = params.ConcatParams(
        outer, *sizes, *(0,) * missing, 2, *zeros, *(0,) * missing, y_zero
    )
    y = np.zeros((outer, sum(sizes)), np.int8)
    table = np.asarray(multipliers, np.int32)
    call("tte_concat_int8", kernel_params, *inputs, *(None,) * missing, table, y)
    assert np.array_equal(y, np.concatenate(parts, axis=1))


@random_cases
@given(st.lists(st.integers(0, 4), min_size=6, max_size=6), seeds)
def test_pad_and_its_gradient(widths: list[int], seed: int) -> None:
    data = random(seed)
    y_zero, fill = int(data.int8()), int(data.int8())
    zero, multiplier, pre_shift = rescaling(data, y_zero)
    x = data.int8(*(int(size) for size in data.rng.integers(1, 6, 3)))
    around = list(zip(widths[:3], widths[3:], strict=True))
    inside = rescaled(x, zero, multiplier, pre_shift, y_zero)
    expected = np.pad(inside, around, constant_values=fill)
    y = np.zeros(expected.shape, np.int8)
    kernel_params = params.PadParams(
        *x.shape, *y.shape, *widths[:3], fill, zero, y_zero, pre_shift, multiplier
    )
    call("tte_pad_int8", kernel_params, x, y)
    assert np.array_equal(y, expected)

    grad = data.grad(*y.shape)
    acc = grad[tuple(slice(a, a + size) for (a, _), size in zip(around, x.shape, strict=True))]
    epilogue = GradEpilogue.draw(data, acc.shape, 60.0)
    begin = (-size for size in widths[:3])
    place = params.GradPlaceParams(*x.shape, *y.shape, *begin, 1, 1, 1, epilogue.pre_shift)
    check_grad_input("tte_grad_place_int8", place, (grad,), epilogue, acc.astype(np.int64), None)


@random_cases
@given(st.lists(st.integers(1, 5), min_size=5, max_size=5), st.booleans(), st.booleans(), seeds)
def test_resize_nearest_and_its_gradient(
    sizes: list[int], uneven_rows: bool, uneven_cols: bool, seed: int
) -> None:
    data = random(seed)
    height, width, channels, rows, cols = sizes
    x = data.int8(height, width, channels)
    tables: list[Array | None] = [None, None]
    copies = [np.full(height, rows), np.full(width, cols)]
    for axis, uneven in enumerate((uneven_rows, uneven_cols)):
        if uneven:
            copies[axis] = np.roll(np.arange(len(copies[axis])) % 4, seed % 5)
            copies[axis][0] += 1
            tables[axis] = copies[axis].astype(np.uint16)
            sizes[3 + axis] = 0
    expected = x.repeat(copies[0], axis=0).repeat(copies[1], axis=1)
    y = np.zeros(expected.shape, np.int8)
    call("tte_resize_nearest2d_int8", params.ResizeNearest2dParams(*sizes), x, *tables, y)
    assert np.array_equal(y, expected)

    grad = data.grad(*y.shape)
    by_row, by_col = (np.eye(len(each)).repeat(each, axis=0) for each in copies)
    acc = np.einsum("yi,xj,yxc->ijc", by_row, by_col, grad).astype(np.int64)
    epilogue = GradEpilogue.draw(data, acc.shape, 60.0)
    kernel_params = params.ResizeNearest2dGradInputParams(*sizes, epilogue.pre_shift)
    check_grad_input(
        "tte_resize_nearest2d_grad_input_int8",
        kernel_params,
        (grad, *tables),
        epilogue,
        acc,
        None,
    )


# ---- pooling ------------------------------------------------------------------------------


@random_cases
@given(windows("pool"), st.booleans(), seeds)
def test_max_pool2d_and_its_gradient(window: Window, many_ties: bool, seed: int) -> None:
    data = random(seed)
    window_counts(window)  # no window of padding alone
    x = data.int8(window.in_h, window.in_w, window.in_c)
    x = x // 64 if many_ties else x
    x.flags.writeable = False
    whole = padded(window, x.astype(np.int64))
    inside = padded(window, np.ones(x.shape)) > 0
    y = np.zeros((window.out_h, window.out_w, window.out_c), np.int8)
    index, found, found_index = np.zeros(y.shape, np.uint8), y.copy(), np.zeros(y.shape, np.uint8)
    acc, grad = np.zeros(whole.shape, np.int64), data.grad(*y.shape)
    for oy, ox in np.ndindex(*y.shape[:2]):
        at = patch(window, oy, ox)
        taps = np.where(inside[at], whole[at], -1000).reshape(-1, window.in_c)
        index[oy, ox] = taps.argmax(axis=0)
        y[oy, ox] = taps.max(axis=0)
        for c in range(window.in_c):
            ky, kx = divmod(int(index[oy, ox, c]), window.kernel_w)
            row = oy * window.stride_h + ky * window.dilation_h
            acc[row, ox * window.stride_w + kx * window.dilation_w, c] += grad[oy, ox, c]
    kernel_params = params.MaxPool2dParams(window)
    call("tte_max_pool2d_int8", kernel_params, x, found, found_index if data.flip() else None)
    assert np.array_equal(found, y)
    call("tte_max_pool2d_int8", kernel_params, x, found, found_index)
    assert np.array_equal(found_index, index)

    acc = unpadded(window, acc)
    epilogue = GradEpilogue.draw(data, acc.shape, 60.0)
    check_grad_input(
        "tte_max_pool2d_grad_input_int8",
        params.MaxPool2dGradInputParams(window, epilogue.pre_shift),
        (grad, index),
        epilogue,
        acc,
        rubbish(4 * window.in_c, np.int32),
    )


# ---- transposed convolution ---------------------------------------------------------------


def transposed_weight(data: Random, window: Window) -> Array:
    """[channels of y, kernel_h, kernel_w, channels of x / groups]."""
    shape = (window.in_c, window.kernel_h, window.kernel_w, window.out_c // window.groups)
    return data.int8(*shape, low=-127)


def as_convolution(window: Window, weight: Array) -> Array:
    """The weights of the convolution from y's map to x's: [channels of x, ..., of y / groups]."""
    parts = np.split(weight, window.groups)
    return np.concatenate([part.transpose(3, 1, 2, 0) for part in parts])


def transposed_scratch(window: Window) -> int:
    """docs/kernels.md."""
    taps = []
    for kernel, stride, dilation in (
        (window.kernel_h, window.stride_h, window.dilation_h),
        (window.kernel_w, window.stride_w, window.dilation_w),
    ):
        every = stride // math.gcd(stride, dilation)
        taps.append({n for n in (kernel // every, up(kernel, every) // every) if n})
    pixels = -(-window.in_h // window.stride_h) * -(-window.in_w // window.stride_w)
    sums = [a * b * window.out_c // window.groups for a in taps[0] for b in taps[1]]
    return max(4 * window.in_c, *(product(k, pixels) + 2 * up(k, 4) for k in sums))


@random_cases
@given(windows(), seeds)
def test_conv_transpose2d(window: Window, seed: int) -> None:
    """The adjoint of the convolution that test_kernels.py spells out."""
    data = random(seed)
    requant = data.requant()
    x = data.int8(window.out_h, window.out_w, window.out_c)
    weight, bias = transposed_weight(data, window), data.bias(window.in_c)
    centred = x.astype(np.int64) - requant.input_zero_point
    acc = conv2d_grad_input_sums(window, centred, as_convolution(window, weight)).astype(np.int64)
    acc += bias
    multipliers = data.multipliers(window.in_c, float(np.abs(acc).mean()), requant.pre_shift)
    expected, inside = activation(acc, multipliers, requant)
    y = data.int8(*expected.shape)
    mask = garbage_bytes((y.size + 7) // 8) if data.flip() else None
    call(
        "tte_conv_transpose2d_int8",
        params.Conv2dParams(window, requant),
        *(x, weight, bias, multipliers, y, mask, rubbish(transposed_scratch(window), np.int32)),
    )
    assert np.array_equal(y, expected)
    assert mask is None or np.array_equal(mask, bits(inside))


@random_cases
@given(windows(), seeds)
def test_conv_transpose2d_grad_input(window: Window, seed: int) -> None:
    data = random(seed)
    grad = data.grad(window.in_h, window.in_w, window.in_c)
    weight = transposed_weight(data, window)
    acc = conv2d_sums(window, grad.astype(np.int64), as_convolution(window, weight))
    epilogue = GradEpilogue.draw(data, acc.shape, float(np.abs(acc).mean()))
    check_grad_input(
        "tte_conv_transpose2d_grad_input_int8",
        params.Conv2dGradInputParams(window, epilogue.pre_shift),
        (grad, weight),
        epilogue,
        acc,
        rubbish(4 * window.out_c, np.int32),
    )


@random_cases
@given(windows(), seeds)
def test_conv_transpose2d_grad_weight(window: Window, seed: int) -> None:
    data = random(seed)
    zero_point = int(data.int8())
    x = data.int8(window.out_h, window.out_w, window.out_c)
    grad = data.grad(window.in_h, window.in_w, window.in_c)
    x.flags.writeable = grad.flags.writeable = False
    weight = transposed_weight(data, window)
    centred = x.astype(np.int64) - zero_point
    sums = conv2d_grad_weight_sums(window, grad.astype(np.int64), centred)
    parts = np.split(sums, window.groups)
    sums = np.concatenate([part.transpose(3, 1, 2, 0) for part in parts])
    step, rates = draw_factors(data, window.in_c, float(np.abs(sums).mean()))
    residual = data.int8(*sums.shape)
    weight[(weight == -127) & (residual < 0)] = -126  # below the range
    limits = (-127 * 256, 127 * 256 + 127)
    expected = updated(weight, residual, sums, step, rates, *limits)
    call(
        "tte_conv_transpose2d_grad_weight_int8",
        params.Conv2dGradWeightParams(window, zero_point),
        *(x, grad, step, rates, weight, residual, rubbish(4 * sums[0].size, np.int32)),
    )
    assert np.array_equal(weight, expected[0])
    assert np.array_equal(residual, expected[1])


@pytest.mark.skipif(asan_is_loaded(), reason="this is that run")
def test_again_with_address_sanitizer() -> None:
    runtime = asan_runtime()
    if runtime is None:
        pytest.skip("the host compiler has no libasan.so")
    result = run_with_asan(Path(__file__), runtime)
    assert result.returncode == 0, result.stdout + result.stderr
