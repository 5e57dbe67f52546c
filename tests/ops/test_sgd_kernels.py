# SPDX-License-Identifier: Apache-2.0
"""The optimiser's kernels: kernel == oracle bit for bit, extreme factors and a hostile count
included; and what the rounding is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.c_runner import run_c
from tests.kernel_library import (
    SOURCES,
    asan_is_loaded,
    asan_runtime,
    kernel_library,
    run_with_asan,
)
from tte.ir import Graph, Op, Role, Tensor, TensorType
from tte.ops.arith import Factor, to_factor
from tte.ops.sgd import SgdAttrs, SgdStepAttrs
from tte.reference import run_op

Array = NDArray[Any]
STEP = ("step", "velocity", "velocity.residual", "value", "residual")

cases = settings(max_examples=200, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**32 - 1)
factors = st.one_of(
    st.just(Factor(0, 0)),
    st.builds(Factor, st.integers(2**30, 2**31 - 1), st.integers(0, 190)),
)


def check(op: Op, values: dict[str, Array]) -> list[Array]:
    """Kernel == oracle; what it gives."""
    tensors = {
        name: Tensor(name, TensorType(data.shape, str(data.dtype)), Role.PARAMETER)
        for name, data in values.items()
    }
    for name in op.writes:
        source = name.removesuffix("'")
        kind = tensors[source].type if source in tensors else TensorType((6,), "int32")
        stored_in = source if source in tensors else None
        tensors[name] = Tensor(name, kind, Role.PARAMETER, stored_in=stored_in)
    graph = Graph("sgd", tensors, (op,), op.reads, op.writes)
    outputs = run_op(graph, op, values)
    expected = [out for out, name in zip(outputs, (*op.outputs, "n"), strict=False) if name]
    found = run_c(kernel_library(SOURCES), graph, op, values)
    for out, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(out.reshape(-1), wanted.reshape(-1))
    return outputs


def move(
    is_bias: bool,
    momentum: float,
    shift: int,
    step: list[int],
    state: list[Array],
) -> list[Array]:
    """One sgd op on velocity, its residual, value and residual; velocities may be left out."""
    names = STEP if len(state) == 4 else ("step", "", "", *STEP[3:])
    values = dict(zip((n for n in names if n), [np.asarray(step, np.int32), *state], strict=True))
    outputs = [f"{name}'" if name else "" for name in (*names[3:], *names[1:3])]
    attrs = SgdAttrs("layer", "bias" if is_bias else "weight", momentum, shift)
    return check(Op("sgd_int32" if is_bias else "sgd_int8", "sgd", names, outputs, attrs), values)


def random_state(rng: np.random.Generator, is_bias: bool, elems: int) -> list[Array]:
    """Velocity and value as they may be, their ends among them."""
    state: list[Array] = []
    for _ in range(2):
        limit = 2**30 if is_bias else 127
        value = rng.integers(-limit, limit, elems, endpoint=True)
        value[:3] = (-limit, limit, 0)
        residual = rng.integers(-128, 127, elems, endpoint=True)
        residual[0], residual[1] = 0, 0 if is_bias else 127
        state += [value.astype(np.int32 if is_bias else np.int8), residual.astype(np.int8)]
    return state


@cases
@given(st.booleans(), factors, factors, st.integers(-64, 64), seeds)
def test_moves(is_bias: bool, rate: Factor, decay: Factor, shift: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    momentum = float(rng.choice([0.0, 0.5, 0.9, 0.999, 0.9999999]))
    state = random_state(rng, is_bias, int(rng.integers(3, 40)))
    rounding = int(rng.choice([0, 2**31 - 1, rng.integers(2**31)]))
    for ready in (0, 1):
        step = [ready, rounding, *rate, *decay]
        outputs = move(is_bias, momentum, shift, step, state)
        if not ready:
            for out, before in zip(outputs, (*state[2:], *state[:2]), strict=False):
                np.testing.assert_array_equal(out, before)
        else:
            assert outputs[-1][0] >= 2  # the two ends
        if not is_bias:
            move(False, momentum, shift, step, state[2:])


@cases
@given(st.integers(1, 2**32 - 1), factors, st.floats(0, 1, exclude_max=True), seeds)
def test_steps(batch: int, rate: Factor, decay: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = rng.choice([0, batch - 1, 2**32 - 1, int(rng.integers(2**32))], 2)
    attrs = SgdStepAttrs(batch, decay)
    names = ["learning_rate", "count"]
    op = Op("sgd_step_int32", "step", tuple(names), ("step", "count'"), attrs)
    values = {
        "learning_rate": np.asarray(rate, np.int32),
        "count": count.astype(np.uint32).astype(np.int32),
    }
    step, after = check(op, values)[:2]
    assert bool(step[0]) == (int(count[0]) % 2**32 + 1 >= batch)
    assert after[0] == 0 or not step[0]


def run_batches(count: int, rate: float, momentum: float, state: list[Array]) -> list[Array]:
    """Velocity and value after `count` batches that gather nothing more."""
    number = np.zeros(2, np.int32)
    factor = np.asarray(to_factor(rate), np.int32)
    attrs = SgdStepAttrs(1, 0.0)
    op = Op("sgd_step_int32", "step", ("learning_rate", "count"), ("step", "count'"), attrs)
    for _ in range(count):
        step, number = check(op, {"learning_rate": factor, "count": number})[:2]
        outputs = move(False, momentum, 0, step.tolist(), state)
        state = [*outputs[2:4], *outputs[:2]]
    return state


def test_a_velocity_comes_to_rest_and_moves_what_it_should() -> None:
    """v / (1 - momentum) in all, though a single move is far below one unit."""
    speed = np.asarray([-3000, -40, -3, 0, 3, 40, 3000])
    value = (speed + 128) >> 8
    zero = np.zeros(len(speed), np.int8)
    state = [value.astype(np.int8), (speed - 256 * value).astype(np.int8), zero, zero]
    velocity, rest, moved, residual = run_batches(200, 0.02, 0.9, state)
    assert not velocity.any() and not rest.any()
    full = 256 * moved.astype(int) + residual
    np.testing.assert_allclose(full, speed * 0.02 / 0.1, atol=4)


@pytest.mark.skipif(asan_is_loaded(), reason="this is the run under AddressSanitizer")
def test_kernels_under_address_sanitizer() -> None:
    runtime = asan_runtime()
    if runtime is None:
        pytest.skip("the host compiler has no libasan")
    result = run_with_asan(Path(__file__), runtime)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
