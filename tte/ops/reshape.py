# SPDX-License-Identifier: Apache-2.0
"""Flatten and Reshape to [1, C]: the same bytes seen differently, no kernel.

An ONNX Flatten of a map orders its elements channel first; here maps are channel last. Where the
map is larger than 1x1 the order is put right in the weights of the linear layer behind
(tte/passes/fold.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tte.ir import Op, Role, TensorType
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


def infer(attrs: None, types: Sequence[TensorType]) -> TensorType:
    """[1, everything]."""
    return TensorType((1, types[0].elems), "float32")


def float_reference(op: Op, inputs: Sequence[Array]) -> Array:
    """Flattens each sample in NHWC order."""
    return inputs[0].reshape(len(inputs[0]), -1)


def quantize(op: Op, quantizer: Quantizer) -> None:
    """A view: the output is stored in the input."""
    quantizer.builder.replace_tensor(op.outputs[0], stored_in=op.inputs[0])
    quantizer.builder.op("reshape", op.name, op.inputs, op.outputs)


def flatten_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Flatten with axis 1."""
    rank = len(importer.type_of(node.inputs[0]).shape)
    if node.attrs.get("axis", 1) not in (1, 1 - rank):
        raise importer.fail("only Flatten with axis = 1 is supported")
    _emit(node, importer)


def reshape_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Reshape to [N, C]."""
    x = importer.type_of(node.inputs[0])
    target = importer.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if target is None:
        raise importer.fail("its target shape must be constant")
    shape = [int(size) for size in np.asarray(target).reshape(-1)]
    batch = (1, -1) if node.attrs.get("allowzero", 0) else (0, 1, -1)
    if (
        len(shape) != 2
        or shape[0] not in batch
        or shape[1] not in (-1, x.elems)
        or shape == [-1, -1]
    ):
        raise importer.fail(f"only Reshape to [batch, features] is supported, not {shape}")
    _emit(node, importer)


def squeeze_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Squeeze of the spatial axes of a 1x1 map."""
    shape = importer.type_of(node.inputs[0]).shape
    axes = node.attrs.get("axes")
    if axes is None and len(node.inputs) > 1:
        axes = importer.constant(node.inputs[1])
    wanted = set() if axes is None else {int(axis) for axis in np.asarray(axes).reshape(-1)}
    if (
        len(shape) != 4
        or shape[1:3] != (1, 1)
        or {axis + 4 if axis < 0 else axis for axis in wanted} != {2, 3}
    ):
        raise importer.fail("only Squeeze of the two spatial axes of a 1x1 map is supported")
    _emit(node, importer)


def _emit(node: OnnxNode, importer: Importer) -> None:
    if len(importer.type_of(node.inputs[0]).shape) == 2:
        importer.alias(node.inputs[0])
    else:
        importer.emit("reshape", node.inputs[:1], None)


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
    float_ops=(
        FloatOp(
            "reshape",
            infer,
            float_reference,
            quantize,
            {
                "Flatten": flatten_from_onnx,
                "Reshape": reshape_from_onnx,
                "Squeeze": squeeze_from_onnx,
            },
            keeps_quant=True,
        ),
    ),
    integer_ops=(
        IntegerOp("reshape", reference, None, gradient=gradient, output_factors=lambda op: (1.0,)),
    ),
)
