# SPDX-License-Identifier: Apache-2.0
"""The kernels of runtime_c/src/armv7em: the portable kernels' tests once more, with the DSP
instructions in C, under UBSan and ASan."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel_library import ROOT, SOURCES_VARIABLE

HERE = Path(__file__).parent


@pytest.mark.parametrize("file", ["test_kernels.py", "test_contract.py"])
def test_again_with_the_fast_kernels(file: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(HERE / file)],
        cwd=ROOT,
        env=os.environ | {SOURCES_VARIABLE: "armv7em"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
