# SPDX-License-Identifier: Apache-2.0
"""Reshape and its relatives: the same bytes seen differently, no kernel.

The nodes' rules only change what the frontend knows of an activation (tte/ops/layout.py); a
reshape op appears where a reader wants another shape of the same bytes, and a transpose before it
where the order changes: an ONNX Flatten of a map counts channel first, maps here are channel last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Op, Role, TensorType
from tte.ops.layout import axes_of, reshaped
from tte.ops.spec import (
    Array,
    Backward,
    Contribution,
    Family,
    FloatOp,
    Importer,
    IntegerOp,
    OnnxNode,
    Quantizer,
)


@dataclass(frozen=True, slots=True)
class ReshapeAttrs:
    """Input: x. The output's shape."""

    shape: tuple[int, ...]


def infer(attrs: ReshapeAttrs | None, types: Sequence[TensorType]) -> TensorType:
    """The shape asked for, or [1, everything]; ValueError where it does not fit."""
    shape = (1, types[0].elems) if attrs is None else attrs.shape
    if math.prod(shape) != types[0].elems:
        raise ValueError(f"{types[0]} does not fit the shape {shape}")
    return TensorType(shape, "float32")


def float_reference(op: Op, inputs: Sequence[Array]) -> Array:
    """Each sample in its new shape."""
    shape = (-1,) if op.attrs is None else op.attrs.shape[1:]
    return inputs[0].reshape(len(inputs[0]), *shape)


def quantize(op: Op, quantizer: Quantizer) -> None:
    """A view: the output is stored in the input."""
    quantizer.builder.replace_tensor(op.outputs[0], stored_in=op.inputs[0])
    quantizer.builder.op("reshape", op.name, op.inputs, op.outputs)


# ---- nodes --------------------------------------------------------------------------------


def _axes(node: OnnxNode, importer: Importer, rank: int) -> tuple[int, ...] | None:
    """The node's axes: an attribute before opset 13, an input since; None where it has none."""
    listed = None
    if len(node.inputs) > 1 and node.inputs[1]:
        listed = importer.constant(node.inputs[1])
        if listed is None:
            raise importer.fail("its axes must be constant")
    elif "axes" not in node.attrs:
        return None
    try:
        return axes_of(node.attrs, listed, rank)
    except ValueError as error:
        raise importer.fail(str(error)) from error


def flatten_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Flatten to two dimensions."""
    shape = importer.layout(node.inputs[0]).shape
    axis = node.attrs.get("axis", 1)
    if not -len(shape) <= axis <= len(shape):
        raise importer.fail(f"its axis {axis} is none of {len(shape)} dimensions")
    axis += len(shape) if axis < 0 else 0
    importer.reshape(node.inputs[0], (math.prod(shape[:axis]), math.prod(shape[axis:])))


def reshape_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Reshape to a constant shape."""
    shape = importer.layout(node.inputs[0]).shape
    target = importer.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if target is None:
        raise importer.fail("its target shape must be constant")
    sizes = [int(size) for size in np.asarray(target).reshape(-1)]
    try:
        found = reshaped(shape, sizes, bool(node.attrs.get("allowzero", 0)))
    except ValueError as error:
        raise importer.fail(
            f"an activation of shape {list(shape)} cannot be reshaped to {sizes}",
            "export the model with a batch of 1 or a dynamic batch dimension",
        ) from error
    importer.reshape(node.inputs[0], found)


def squeeze_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Squeeze of axes of size 1."""
    shape = importer.layout(node.inputs[0]).shape
    axes = _axes(node, importer, len(shape))
    if axes is None:
        axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    if any(shape[axis] != 1 for axis in axes):
        raise importer.fail(f"axes {axes} of shape {list(shape)} are not all of size 1")
    importer.reshape(node.inputs[0], [s for axis, s in enumerate(shape) if axis not in axes])


def unsqueeze_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Unsqueeze: new axes of size 1."""
    shape = list(importer.layout(node.inputs[0]).shape)
    count = len(node.attrs.get("axes", ()))
    if len(node.inputs) > 1 and node.inputs[1]:
        listed = importer.constant(node.inputs[1])
        count = 0 if listed is None else listed.size
    axes = _axes(node, importer, len(shape) + count)
    for axis in sorted(axes or ()):
        shape.insert(axis, 1)
    importer.reshape(node.inputs[0], shape)


def transpose_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Transpose: only the order of the axes changes, until somebody needs another."""
    rank = len(importer.layout(node.inputs[0]).shape)
    perm = tuple(node.attrs.get("perm", range(rank)[::-1]))
    if sorted(perm) != list(range(rank)):
        raise importer.fail(f"its perm {list(perm)} is no order of {rank} axes")
    importer.transpose(node.inputs[0], perm)


def _blocks(node: OnnxNode, importer: Importer) -> int:
    shape = importer.layout(node.inputs[0]).shape
    size = int(node.attrs.get("blocksize", 0))
    if len(shape) != 4 or size < 1:
        raise importer.fail("its input must have four dimensions and its blocksize be positive")
    return size


def depth_to_space_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """DepthToSpace, both modes: a reshape, a transpose and a reshape."""
    size = _blocks(node, importer)
    n, channels, height, width = importer.layout(node.inputs[0]).shape
    if channels % size**2:
        raise importer.fail(f"{channels} channels are no multiple of blocks of {size}x{size}")
    share = channels // size**2
    column_first = node.attrs.get("mode", "DCR") == "CRD"
    split = (share, size, size) if column_first else (size, size, share)
    importer.reshape(node.inputs[0], (n, *split, height, width))
    importer.transpose(node.outputs[0], (0, 1, 4, 2, 5, 3) if column_first else (0, 3, 4, 1, 5, 2))
    importer.reshape(node.outputs[0], (n, share, height * size, width * size))


def space_to_depth_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """SpaceToDepth, both modes: the other way round."""
    size = _blocks(node, importer)
    n, channels, height, width = importer.layout(node.inputs[0]).shape
    if height % size or width % size:
        raise importer.fail(f"{height}x{width} is no multiple of blocks of {size}x{size}")
    split = (n, channels, height // size, size, width // size, size)
    importer.reshape(node.inputs[0], split)
    column_first = node.attrs.get("mode", "DCR") == "CRD"
    importer.transpose(node.outputs[0], (0, 1, 3, 5, 2, 4) if column_first else (0, 3, 5, 1, 2, 4))
    importer.reshape(node.outputs[0], (n, channels * size**2, height // size, width // size))


VIEW_RULES: dict[str, Callable[[OnnxNode, Importer], None]] = {
    "Flatten": flatten_from_onnx,
    "Reshape": reshape_from_onnx,
    "Squeeze": squeeze_from_onnx,
    "Unsqueeze": unsqueeze_from_onnx,
    "Transpose": transpose_from_onnx,
    "DepthToSpace": depth_to_space_from_onnx,
    "SpaceToDepth": space_to_depth_from_onnx,
}


# ---- integer op ---------------------------------------------------------------------------


def gradient(op: Op, grad: str, backward: Backward) -> None:
    """The same gradient, seen as the input's shape."""
    shape = backward.graph[op.inputs[0]].type.shape
    view = backward.builder.tensor(
        f"{grad}.{op.name}", shape, "int8", Role.GRADIENT, stored_in=grad
    )
    backward.builder.op("reshape", f"{op.name}.grad_input", [grad], [view])
    backward.contribute(op.inputs[0], Contribution((1.0,), tensor=view))


def reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """Left to the interpreter, which knows the output's shape."""
    return [inputs[0]]


FAMILY = Family(
    float_ops=(FloatOp("reshape", infer, float_reference, quantize, VIEW_RULES, keeps_quant=True),),
    integer_ops=(
        IntegerOp("reshape", reference, None, gradient=gradient, output_factors=lambda op: (1.0,)),
    ),
)
