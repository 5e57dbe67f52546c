# SPDX-License-Identifier: Apache-2.0
"""Random networks of all supported operators: see check.py. 100 of them, 1,000 with
TTE_NIGHTLY=1."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.check import check
from tests.fuzz.networks import Network, networks

NIGHTLY = os.environ.get("TTE_NIGHTLY") == "1"
PARTS = 4  # tests, so that several processes share the work
EXAMPLES = (1000 if NIGHTLY else 100) // PARTS


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was compiled: kernels are the same in all projects."""
    return tmp_path_factory.mktemp("objects")


@pytest.mark.parametrize("part", range(PARTS))
def test_random_networks(part: int, objects: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    if not NIGHTLY:  # compiling takes most of the time
        monkeypatch.setattr("tte.build.OPTIMISE_FLAG", "-O1")

    @seed(part)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(networks())
    def run(network: Network) -> None:
        with tempfile.TemporaryDirectory() as folder:
            check(network, Path(folder), objects)

    run()
