# SPDX-License-Identifier: Apache-2.0
"""Integer gradients of a real network against an independent floating-point implementation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.golden import gradient_cosines
from tte.data import load_dataset


def _samples(shared_data: Path) -> np.ndarray:
    return load_dataset(shared_data / "person_128").x_train[:64]


def test_gradients_agree_with_the_reference(shared_models: Path, shared_data: Path) -> None:
    found = gradient_cosines(shared_models, _samples(shared_data), teacher=True)
    weights = {c.layer: c.cosine for c in found if c.param == "weight"}
    biases = {c.layer: c.cosine for c in found if c.param == "bias"}
    assert len(weights) == 7 and len(biases) == 23
    assert min(weights.values()) >= 0.99, weights
    assert min(biases.values()) >= 0.98, biases


def test_gradients_agree_end_to_end(shared_models: Path, shared_data: Path) -> None:
    """With the rounding of our own forward pass, which ends up to 3 quanta off the reference."""
    found = gradient_cosines(shared_models, _samples(shared_data), teacher=False)
    assert min(c.cosine for c in found) >= 0.93
