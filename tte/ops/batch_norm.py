# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation, as trained networks carry it: folded into the layer before, never run.

y = (x - mean) / sqrt(var + epsilon) * gamma + beta, per channel (tte/passes/fold.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Op, TensorType
from tte.ops.spec import Array, Family, FloatOp, Importer, OnnxNode


@dataclass(frozen=True, slots=True)
class BatchNormAttrs:
    """Input: x. y = x * scale + offset per channel."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]


def infer(attrs: BatchNormAttrs, types: Sequence[TensorType]) -> TensorType:
    """The input's type; ValueError where the channels do not fit."""
    if types[0].shape[-1] != len(attrs.scale):
        raise ValueError(f"{len(attrs.scale)} channels do not fit input {types[0]}")
    return types[0]


def float_reference(op: Op, inputs: Sequence[Array]) -> Array:
    """Scale and offset per channel."""
    return inputs[0] * np.asarray(op.attrs.scale) + np.asarray(op.attrs.offset)


def from_onnx(node: OnnxNode, importer: Importer) -> None:
    """BatchNormalization in inference mode."""
    if node.attrs.get("training_mode", 0):
        raise importer.fail("training_mode = 1 is not supported", "export the model in eval mode")
    values = [importer.constant(name) for name in node.inputs[1:5]]
    if len(values) != 4 or any(value is None for value in values):
        raise importer.fail("its scale, bias, mean and variance must be constants")
    gamma, beta, mean, var = (np.asarray(value, np.float64).reshape(-1) for value in values)
    scale = gamma / np.sqrt(var + node.attrs.get("epsilon", 1e-5))
    offset = beta - mean * scale
    importer.emit(
        "batch_norm",
        node.inputs[:1],
        BatchNormAttrs(tuple(scale.tolist()), tuple(offset.tolist())),
    )


FAMILY = Family(
    float_ops=(
        FloatOp("batch_norm", infer, float_reference, None, {"BatchNormalization": from_onnx}),
    ),
)
