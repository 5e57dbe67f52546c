# SPDX-License-Identifier: Apache-2.0
"""The kernels of runtime_c/src/armv7em, held to the portable kernels' tests: on this machine with
the DSP instructions in C, under UBSan and ASan, and as they are in emulated processors."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.kernel_library import ROOT, SOURCES_VARIABLE
from tests.kernel_machine import kernel_machine
from tte.errors import TteError
from tte.ops import params

KERNELS, CONTRACT = "tests/ops/test_kernels.py", "tests/ops/test_contract.py"
SHAPES, ELEMENTWISE = "tests/ops/test_shape_kernels.py", "tests/ops/test_elementwise_kernels.py"
CHAINS = "tests/passes/test_stream.py"


@pytest.mark.parametrize(
    ("kernels", "file"),
    [
        ("armv7em", KERNELS),
        ("armv7em", CONTRACT),
        ("armv7em", CHAINS),
        ("armv7em", ELEMENTWISE),
        ("mps2-an386", SHAPES),
        ("mps2-an386", ELEMENTWISE),
        ("mps2-an386", KERNELS),
        ("mps2-an500", KERNELS),
        ("mps2-an386", CHAINS),
    ],
)
def test_again(kernels: str, file: str) -> None:
    """`kernels`: see SOURCES_VARIABLE."""
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", file],
        cwd=ROOT,
        env=os.environ | {SOURCES_VARIABLE: kernels},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("compiler", ["gcc", "zig", "clang"])
def test_every_compiler_builds_the_same(compiler: str) -> None:
    """The assembly is the same; the C around it is compiled and called by each."""
    try:
        machine = kernel_machine("mps2-an386", compiler=compiler)
    except TteError as error:
        pytest.skip(error.what)
    rng = np.random.default_rng(1)
    window = params.Window(6, 5, 10, 6, 5, 4, 1, 1, 1, 1, 1, 1, 0, 0, 1)
    x = rng.integers(-128, 128, (30, 10)).astype(np.int8)
    weight = rng.integers(-127, 128, (4, 10)).astype(np.int8)
    bias, multipliers = np.zeros(4, np.int32), np.full(4, 2**23, np.int32)
    y, scratch = np.zeros((30, 4), np.int8), np.zeros(4096, np.uint8)
    rows = (ctypes.c_uint16(0), ctypes.c_uint16(6))
    machine.call(
        "tte_conv2d_int8",
        params.Conv2dParams(window, params.Requant(3, -4, -128, 127, 0)),
        (x, weight, None, None, bias, multipliers, *rows, y, None, scratch),
    )
    acc = (x.astype(np.int64) - 3) @ weight.T.astype(np.int64)
    assert np.array_equal(y, (((acc * 2**23 + 2**31) >> 32) - 4).clip(-128, 127))
