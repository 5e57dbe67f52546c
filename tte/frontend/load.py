# SPDX-License-Identifier: Apache-2.0
"""A model file of any supported format becomes a float graph."""

from __future__ import annotations

from pathlib import Path

from tte.frontend import onnx, tflite
from tte.ir import Graph


def load_model(path: Path) -> Graph:
    """The float graph of an ONNX or TensorFlow Lite file, told apart by content."""
    return tflite.load_tflite(path) if tflite.is_tflite(path) else onnx.load_model(path)
