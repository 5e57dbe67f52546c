# SPDX-License-Identifier: Apache-2.0
"""The digits example on random images: small enough to search in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tte.board import load_board
from tte.data import Dataset
from tte.pipeline import CompileOptions, Prepared, prepare
from tte.search.space import Space


@pytest.fixture(scope="session")
def digits() -> Dataset:
    x = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 1)).astype(np.uint8)
    y = np.arange(60, dtype=np.int64) % 10
    return Dataset(x, y, x[:20], y[:20], tuple(map(str, range(10))))


@pytest.fixture(scope="session")
def options() -> CompileOptions:
    return CompileOptions(load_board("mps2-an386"))


@pytest.fixture(scope="session")
def prepared(digits_model: Path, digits: Dataset, options: CompileOptions) -> Prepared:
    return prepare(digits_model, digits, options)


@pytest.fixture(scope="session")
def space(prepared: Prepared, options: CompileOptions) -> Space:
    return Space(prepared, options.board)
