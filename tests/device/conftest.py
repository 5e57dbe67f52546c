# SPDX-License-Identifier: Apache-2.0
"""A compiled project, and data for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tte.data import Dataset, load_dataset


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "data.npz"
    x = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1)).astype(np.uint8)
    y = np.arange(40) % 10
    np.savez(path, x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])
    return path


@pytest.fixture(scope="session")
def dataset(data: Path) -> Dataset:
    return load_dataset(data)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, digits_model: Path, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("project") / "digits"
    command = [sys.executable, "-m", "tte", "compile", digits_model, "--board", "mps2-an386"]
    command += ["--data", data, "--update", "last:2", "-o", folder, "--quiet"]
    command += ["--momentum", 0.9, "--batch", 4, "--lr-schedule", "cosine"]  # all of it resumes
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder
