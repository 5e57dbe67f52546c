# SPDX-License-Identifier: Apache-2.0
"""The element-wise kernels against the formulas of their header: see test_kernels.py, whose random
data they share."""

from __future__ import annotations

from dataclasses import replace
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
    garbage_bytes,
    random,
    random_cases,
    seeds,
    shifted,
)
from tte.ops import params
from tte.ops.broadcast import merged, output_shape

# ---- two operands -------------------------------------------------------------------------


@st.composite
def operands(draw: st.DrawFn) -> tuple[tuple[int, ...], ...]:
    """Shapes of an output and its operands: each has an axis or repeats along it."""
    rank = draw(st.sampled_from([1, 2, 3, 3]))
    sizes = draw(st.lists(st.integers(1, 7), min_size=rank, max_size=rank))
    if draw(st.booleans()):
        sizes[-1] = draw(st.sampled_from([8, 12, 16, 19]))
    shapes = [[1] * rank, [1] * rank]
    for axis, size in enumerate(sizes):
        owners = draw(st.sampled_from(["both", "both", "a", "b"]))
        for shape, name in zip(shapes, "ab", strict=True):
            if owners in ("both", name):
                shape[axis] = size
    a, b = map(tuple, shapes)
    return output_shape(a, b), a, b


def target(data: Random, shape: tuple[int, ...], *operands: Array) -> Array:
    """Where the output goes: its own place, or that of an operand of its shape."""
    places = [data.int8(*shape), *(array for array in operands if array.shape == shape)]
    return places[int(data.rng.integers(len(places)))]


@random_cases
@given(operands(), seeds)
def test_mul(shapes: tuple[tuple[int, ...], ...], seed: int) -> None:
    data = random(seed)
    a, b = data.int8(*shapes[1]), data.int8(*shapes[2])
    requant, b_zero = data.requant(), int(data.int8())
    acc = (a.astype(np.int64) - requant.input_zero_point) * (b.astype(np.int64) - b_zero)
    multiplier = int(data.multipliers(1, float(np.abs(acc).mean()), requant.pre_shift)[0])
    expected, inside = activation(acc, np.asarray(multiplier), requant)
    y = target(data, shapes[0], a, b)
    mask = garbage_bytes((y.size + 7) // 8) if data.flip() else None
    kernel_params = params.MulParams(merged(*shapes), requant, b_zero, multiplier)
    call("tte_mul_int8", kernel_params, a, b, y, mask)
    assert np.array_equal(y, expected)
    assert mask is None or np.array_equal(mask, bits(inside))


@random_cases
@given(operands(), st.integers(1, 31), seeds)
def test_add_broadcast(shapes: tuple[tuple[int, ...], ...], shift: int, seed: int) -> None:
    data = random(seed)
    a, b = data.int8(*shapes[1]), data.int8(*shapes[2])
    top = min(2**21, 2 ** (shift + 1))
    factors = [int(value) for value in data.rng.integers(1 - top, top, 2)]
    zeros = [int(value) for value in data.int8(2)]
    requant = data.requant()
    total = (a.astype(np.int64) - zeros[0]) * factors[0]
    total = total + (b.astype(np.int64) - zeros[1]) * factors[1]
    value = shifted(total, shift) + requant.output_zero_point
    y = target(data, shapes[0], a, b)
    mask = garbage_bytes((y.size + 7) // 8) if data.flip() else None
    add = params.AddParams(
        y.size, *factors, shift, *zeros, requant.output_zero_point, requant.act_min, requant.act_max
    )
    kernel_params = params.AddBroadcastParams(merged(*shapes), add)
    call("tte_add_broadcast_int8", kernel_params, a, b, y, mask)
    assert np.array_equal(y, value.clip(requant.act_min, requant.act_max))
    inside = (requant.act_min <= value) & (value <= requant.act_max)
    assert mask is None or np.array_equal(mask, bits(inside))


@random_cases
@given(operands(), st.booleans(), seeds)
def test_broadcast_grad_input(shapes: tuple[tuple[int, ...], ...], of_sum: bool, seed: int) -> None:
    data = random(seed)
    shape, own, other_shape = shapes
    grad, zero = data.grad(*shape), int(data.int8())
    other = None if of_sum else data.int8(*other_shape)
    product = grad.astype(np.int64)
    if other is not None:
        product = product * (other.astype(np.int64) - zero)
    summed = tuple(axis for axis, size in enumerate(own) if size != shape[axis])
    acc = product.sum(axis=summed, keepdims=True)
    epilogue = GradEpilogue.draw(data, acc.shape, float(np.abs(acc).mean()))
    if not summed and data.flip():
        place = grad if other is None or other.shape != shape or data.flip() else other
        epilogue = replace(epilogue, grad_input=place)
    by = (1,) * len(shape) if other is None else other_shape
    kernel_params = params.BroadcastGradInputParams(
        merged(shape, own, by), own[-1], zero, epilogue.pre_shift
    )
    check_grad_input(
        "tte_broadcast_grad_input_int8", kernel_params, (grad, other), epilogue, acc, None
    )


# ---- tables -------------------------------------------------------------------------------


@random_cases
@given(st.integers(1, 100), st.booleans(), seeds)
def test_table(elems: int, in_place: bool, seed: int) -> None:
    data = random(seed)
    x, table = data.int8(elems), data.int8(256)
    table.flags.writeable = False
    y = x if in_place else data.int8(elems)
    expected = np.asarray([table[int(code) + 128] for code in x], np.int8)
    call("tte_table_int8", params.TableParams(elems), x, table, y)
    assert np.array_equal(y, expected)


@random_cases
@given(st.integers(1, 20), st.integers(1, 17), st.sampled_from(["", "grad", "x"]), seeds)
def test_table_grad_input(positions: int, channels: int, in_place: str, seed: int) -> None:
    data = random(seed)
    x, grad = data.int8(positions, channels), data.grad(positions, channels)
    slopes = data.rng.integers(-32767, 32768, 256).astype(np.int16)
    slopes.flags.writeable = False
    acc = grad.astype(np.int64) * slopes.astype(np.int64)[x.astype(np.int64) + 128]
    epilogue = GradEpilogue.draw(data, acc.shape, float(np.abs(acc).mean()))
    if in_place:
        epilogue = replace(epilogue, grad_input=grad if in_place == "grad" else x)
    check_grad_input(
        "tte_table_grad_input_int8",
        params.TableGradInputParams(positions, channels, epilogue.pre_shift),
        (grad, x, slopes),
        epilogue,
        acc,
        None,
    )


# ---- softmax ------------------------------------------------------------------------------


def probabilities(x: Array, table: Array, bits: int, wanted: int) -> Array:
    """Q`wanted`, row by row, in Python's integers."""
    rows = []
    for row in x.tolist():
        e = [int(table[max(row) - value]) for value in row]
        inverse = (1 << (bits + 30)) // sum(e)
        shift = bits + 30 - wanted
        rows.append([(value * inverse + (1 << (shift - 1))) >> shift for value in e])
    return np.asarray(rows, np.int64)


def exponentials(data: Random, channels: int) -> tuple[Array, int]:
    """A table as steep or flat as scales make it, and its bits."""
    bits = min(24, 31 - int(np.ceil(np.log2(max(channels, 2)))))
    scale = float(data.rng.choice([0.0, 0.001, 0.02, 0.1, 3.0]))
    table = np.floor(np.exp(-np.arange(256) * scale) * 2.0**bits + 0.5).astype(np.int32)
    table.flags.writeable = False
    return table, bits


@random_cases
@given(st.integers(1, 9), st.sampled_from([1, 2, 3, 10, 64, 257]), st.booleans(), seeds)
def test_softmax(positions: int, channels: int, in_place: bool, seed: int) -> None:
    data = random(seed)
    x = data.int8(positions, channels)
    table, bits = exponentials(data, channels)
    zero, pre_shift = int(data.int8()), data.pre_shift()
    multiplier = int(data.multipliers(1, 2.0**24 / channels, pre_shift)[0])
    value = shifted(probabilities(x, table, bits, 24) * multiplier, 32 - pre_shift) + zero
    y = x if in_place else data.int8(positions, channels)
    call(
        "tte_softmax_int8",
        params.SoftmaxParams(positions, channels, bits, pre_shift, zero, multiplier),
        *(x, table, y),
    )
    assert np.array_equal(y, value.clip(-128, 127))


@random_cases
@given(st.integers(1, 9), st.sampled_from([1, 2, 3, 10, 64, 257]), st.booleans(), seeds)
def test_softmax_grad_input(positions: int, channels: int, in_place: bool, seed: int) -> None:
    data = random(seed)
    x, grad = data.int8(positions, channels), data.grad(positions, channels)
    table, bits = exponentials(data, channels)
    p = probabilities(x, table, bits, 14)
    mean = shifted((grad * p).sum(axis=1, keepdims=True), 6)
    acc = p * (256 * grad.astype(np.int64) - mean)
    epilogue = GradEpilogue.draw(data, acc.shape, float(np.abs(acc).mean()))
    if in_place:
        epilogue = replace(epilogue, grad_input=grad)
    check_grad_input(
        "tte_softmax_grad_input_int8",
        params.SoftmaxGradInputParams(positions, channels, bits, epilogue.pre_shift),
        (grad, x, table),
        epilogue,
        acc,
        None,
    )


@pytest.mark.skipif(asan_is_loaded(), reason="this is that run")
def test_again_with_address_sanitizer() -> None:
    runtime = asan_runtime()
    if runtime is None:
        pytest.skip("the host compiler has no libasan.so")
    result = run_with_asan(Path(__file__), runtime)
    assert result.returncode == 0, result.stdout + result.stderr
