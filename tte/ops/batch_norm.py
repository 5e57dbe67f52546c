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
    layout = importer.layout(node.inputs[0])
    if len(layout.shape) < 2:
        raise importer.fail("its input has no channels")
    emit(importer, node.inputs[0], scale, offset, layout.with_last(1))


def arithmetic_from_onnx(node: OnnxNode, importer: Importer) -> bool:
    """Add, Sub, Mul of an activation and a constant, Div by one: whether that is one value per
    channel, or one for all, and a batch_norm now."""
    constants = [importer.constant(name) for name in node.inputs]
    first = constants[0] is not None
    name = node.inputs[1 if first else 0]
    found = per_channel(importer, name, constants[0 if first else 1])
    if found is None:
        return False
    value, order = found
    one, zero = np.ones_like(value), np.zeros_like(value)
    with np.errstate(all="ignore"):
        scale, offset = {
            "Add": (one, value),
            "Sub": (-one, value) if first else (one, -value),
            "Mul": (value, zero),
            "Div": (one / value, zero),
        }[node.op_type]
    emit(importer, name, scale, offset, order)
    return True


def per_channel(
    importer: Importer, x: str, constant: Array | None
) -> tuple[Array, tuple[int, ...]] | None:
    """A constant that is broadcast to an activation, as one value for each channel, and the order
    of the file's axes that has these channels last; None where it is more than that."""
    layout = importer.layout(x)
    value = np.asarray(constant, np.float64)
    rank = len(layout.shape)
    shape = (1,) * (rank - value.ndim) + value.shape  # in the file's order of axes
    along = [axis for axis, size in enumerate(shape) if size != 1]
    fits = len(shape) == rank and all(shape[axis] == layout.shape[axis] for axis in along)
    if len(along) > 1 or not fits:
        return None
    order = layout.with_last(along[0]) if along else layout.memory
    channels = layout.ordered(order).map_shape[-1]
    return np.broadcast_to(value.reshape(-1), (channels,)), order


def emit(importer: Importer, x: str, scale: Array, offset: Array, order: tuple[int, ...]) -> None:
    """Adds a batch_norm; `order` has the channels' axis of the file as the fastest."""
    if not (np.isfinite(scale).all() and np.isfinite(offset).all()):
        raise importer.fail("its constants give NaN or infinity", "train the network again")
    attrs = BatchNormAttrs(tuple(scale.tolist()), tuple(offset.tolist()))
    importer.emit("batch_norm", [x], attrs, order)


FAMILY = Family(
    float_ops=(
        FloatOp(
            "batch_norm",
            infer,
            float_reference,
            None,
            {"BatchNormalization": from_onnx},
        ),
    ),
)
