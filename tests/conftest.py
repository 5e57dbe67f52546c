# SPDX-License-Identifier: Apache-2.0
"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def _shared(name: str) -> Path:
    """A folder beside the checkout; without it a test skips, except in CI."""
    folder = SHARED / name
    if not folder.is_dir():
        reason = f"needs ../shared/{name} beside the checkout"
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI {reason}")
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """Pretrained models and golden vectors."""
    return _shared("models")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Small real data sets."""
    return _shared("data")


@pytest.fixture(scope="session")
def digits_model() -> Path:
    """The example's model."""
    return ROOT / "examples" / "digits" / "digits_cnn.onnx"
