# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation and arithmetic with constants: folded into the layer before, never run.

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
    if node.attrs.get("spatial", 1) != 1:
        raise importer.fail("spatial = 0 is not supported")
    if node.attrs.get("training_mode", 0):
        raise importer.fail("training_mode = 1 is not supported", "export the model in eval mode")
    values = [importer.constant(name) for name in node.inputs[1:5]]
    if len(values) != 4 or any(value is None for value in values):
        raise importer.fail("its scale, bias, mean and variance must be constants")
    gamma, beta, mean, var = (np.asarray(value, np.float64).reshape(-1) for value in values)
    if len({value.size for value in (gamma, beta, mean, var)}) != 1:
        raise importer.fail("its scale, bias, mean and variance have different sizes")
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(var + node.attrs.get("epsilon", 1e-5))
        offset = beta - mean * scale
    _emit(importer, node.inputs[0], scale, offset)


def arithmetic_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Add, Sub, Mul, Div of an activation and one constant per channel, or one for all."""
    constants = [importer.constant(name) for name in node.inputs]
    first = constants[0] is not None
    if (constants[1] is not None) == first or (node.op_type == "Div" and first):
        raise importer.fail("it is supported with an activation and a constant only")
    name = node.inputs[1 if first else 0]
    x = importer.type_of(name)
    value = np.asarray(constants[0 if first else 1], np.float64)
    rank, channels = len(x.shape), x.shape[-1]
    shape = (1,) * (rank - value.ndim) + value.shape  # in the file's order: channels second
    if shape[1:2] not in ((1,), (channels,)) or any(s != 1 for s in (shape[0], *shape[2:])):
        raise importer.fail(f"its constant of shape {value.shape} is not one value per channel")
    value = np.broadcast_to(value.reshape(-1), (channels,))
    one, zero = np.ones(channels), np.zeros(channels)
    with np.errstate(all="ignore"):
        scale, offset = {
            "Add": (one, value),
            "Sub": (-one, value) if first else (one, -value),
            "Mul": (value, zero),
            "Div": (one / value, zero),
        }[node.op_type]
    _emit(importer, name, scale, offset)


def _emit(importer: Importer, x: str, scale: Array, offset: Array) -> None:
    if not (np.isfinite(scale).all() and np.isfinite(offset).all()):
        raise importer.fail("its constants give NaN or infinity", "train the network again")
    attrs = BatchNormAttrs(tuple(scale.tolist()), tuple(offset.tolist()))
    importer.emit("batch_norm", [x], attrs)


FAMILY = Family(
    float_ops=(
        FloatOp(
            "batch_norm",
            infer,
            float_reference,
            None,
            {
                "BatchNormalization": from_onnx,
                "Sub": arithmetic_from_onnx,
                "Mul": arithmetic_from_onnx,
                "Div": arithmetic_from_onnx,
            },
        ),
    ),
)
