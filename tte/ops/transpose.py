# SPDX-License-Identifier: Apache-2.0
"""A transpose that really moves elements: where a node needs an order that memory does not have.

The input's memory is seen as an array of shape `dims`, its axes change places, and the output is
a map of what comes out. The gradient takes the way back; nothing is rounded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Graph, Op, Role, TensorType
from tte.ops import params
from tte.ops.spec import (
    Array,
    Backward,
    Contribution,
    Family,
    FloatOp,
    IntegerOp,
    KernelCall,
    Quantizer,
    Sample,
    TensorArg,
)

MAX_DIMS = 5  # of the kernel


@dataclass(frozen=True, slots=True)
class TransposeAttrs:
    """Input: x. Memory of shape `dims` becomes memory of shape dims[perm[0]], dims[perm[1]], ...;
    `shape` is the output's."""

    dims: tuple[int, ...]
    perm: tuple[int, ...]
    shape: tuple[int, ...]

    def order(self) -> Array:
        """The element of the input that each element of the output is."""
        return np.arange(math.prod(self.dims)).reshape(self.dims).transpose(self.perm).reshape(-1)


def infer(attrs: TransposeAttrs, types: Sequence[TensorType]) -> TensorType:
    """The output's shape; ValueError where the sizes differ."""
    if not math.prod(attrs.dims) == math.prod(attrs.shape) == types[0].elems:
        raise ValueError(f"{types[0]} cannot be transposed to {attrs.shape}")
    return TensorType(attrs.shape, "float32")


def move(attrs: TransposeAttrs, x: Array) -> Array:
    """Any numbers, any number of samples."""
    batch = len(x)
    perm = (0, *(axis + 1 for axis in attrs.perm))
    return x.reshape(batch, *attrs.dims).transpose(perm).reshape(batch, *attrs.shape[1:])


def float_reference(op: Op, inputs: Sequence[Array]) -> Array:
    """Real numbers."""
    return move(op.attrs, inputs[0])


def quantize(op: Op, quantizer: Quantizer) -> None:
    """One transpose_int8."""
    quantizer.builder.op("transpose_int8", op.name, op.inputs, op.outputs, op.attrs)


def reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """The same elements elsewhere."""
    return [move(op.attrs, inputs[0])]


def kernel_call(op: Op, graph: Graph) -> KernelCall:
    """tte_transpose_int8: sizes and strides in the order of the output."""
    attrs: TransposeAttrs = op.attrs
    strides = [math.prod(attrs.dims[axis + 1 :]) for axis in range(len(attrs.dims))]
    missing = MAX_DIMS - len(attrs.perm)
    sizes = [1] * missing + [attrs.dims[axis] for axis in attrs.perm]
    steps = [0] * missing + [strides[axis] for axis in attrs.perm]
    kernel_params = params.TransposeParams(
        **{f"size_{axis}": int(size) for axis, size in enumerate(sizes)},
        **{f"stride_{axis}": int(step) for axis, step in enumerate(steps)},
    )
    args = (TensorArg(op.inputs[0]), TensorArg(op.outputs[0]))
    return KernelCall(f"tte_{op.kind}", kernel_params, args)


def gradient(op: Op, grad: str, backward: Backward) -> None:
    """The gradient's elements at their old places."""
    attrs: TransposeAttrs = op.attrs
    shape = backward.graph[op.inputs[0]].type.shape
    dims = tuple(attrs.dims[axis] for axis in attrs.perm)
    perm = tuple(int(axis) for axis in np.argsort(attrs.perm))
    output = backward.builder.tensor(f"{grad}.{op.name}", shape, "int8", Role.GRADIENT)
    back = TransposeAttrs(dims, perm, shape)
    backward.builder.op("transpose_int8", f"{op.name}.grad_input", [grad], [output], back)
    backward.contribute(op.inputs[0], Contribution((1.0,), tensor=output))


FAMILY = Family(
    float_ops=(FloatOp("transpose", infer, float_reference, quantize, keeps_quant=True),),
    integer_ops=(
        IntegerOp(
            "transpose_int8",
            reference,
            kernel_call,
            gradient=gradient,
            output_factors=lambda op: (1.0,),
        ),
    ),
    samples=(
        Sample(
            "channel first",
            "transpose",
            TransposeAttrs((15, 7), (1, 0), (1, 7, 3, 5)),
            ((1, 3, 5, 7),),
        ),
        Sample(
            "channel shuffle",
            "transpose",
            TransposeAttrs((6, 2, 3), (0, 2, 1), (1, 2, 3, 6)),
            ((1, 2, 3, 6),),
        ),
        Sample(
            "depth to space",
            "transpose",
            TransposeAttrs((2, 3, 2, 4), (0, 2, 1, 3), (1, 4, 3, 4)),
            ((1, 2, 3, 8),),
        ),
    ),
)
