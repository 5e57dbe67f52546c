# SPDX-License-Identifier: Apache-2.0
"""The kernels that pool, move and resample, against the formulas of their header: see
test_kernels.py, whose random shapes and data they share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernel_library import asan_is_loaded, asan_runtime, run_with_asan
from tests.ops.test_kernels import call, random, random_cases, seeds
from tte.ops import params

# ---- moves --------------------------------------------------------------------------------


@random_cases
@given(st.lists(st.integers(1, 5), min_size=5, max_size=5), st.permutations(range(5)), seeds)
def test_transpose(dims: list[int], perm: list[int], seed: int) -> None:
    x = random(seed).int8(*dims)
    x.flags.writeable = False
    expected = x.transpose(perm)
    y = np.zeros(expected.shape, np.int8)
    steps = [int(np.prod(dims[axis + 1 :])) for axis in perm]
    call("tte_transpose_int8", params.TransposeParams(*expected.shape, *steps), x, y)
    assert np.array_equal(y, expected)


@pytest.mark.skipif(asan_is_loaded(), reason="this is that run")
def test_again_with_address_sanitizer() -> None:
    runtime = asan_runtime()
    if runtime is None:
        pytest.skip("the host compiler has no libasan.so")
    result = run_with_asan(Path(__file__), runtime)
    assert result.returncode == 0, result.stdout + result.stderr
