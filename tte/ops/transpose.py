# SPDX-License-Identifier: Apache-2.0
"""A transpose that really moves elements: where a node needs an order that memory does not have.

The input's memory is seen as an array of shape `dims`, its axes change places, and the output is
a map of what comes out: a strided copy, as a slice is. The gradient takes the way back; nothing is
rounded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Graph, Op, Role, TensorType
from tte.ops import params
from tte.ops.gradient import contribute_place
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
    """One strided_copy_int8."""
    attrs: TransposeAttrs = op.attrs
    strides = [math.prod(attrs.dims[axis + 1 :]) for axis in range(len(attrs.dims))]
    copy = StridedCopyAttrs(
        attrs.shape,
        tuple(attrs.dims[axis] for axis in attrs.perm),
        tuple(strides[axis] for axis in attrs.perm),
    )
    quantizer.builder.op("strided_copy_int8", op.name, op.inputs, op.outputs, copy)


# ---- strided copies -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StridedCopyAttrs:
    """Input: x; output: a tensor of `shape`, whose memory is an array of `sizes`; its element i is
    x[offset + i . strides]. A slice names what it takes of a map: `begin` and `step`, per height,
    width and channel; without them all of x moves."""

    shape: tuple[int, ...]
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    begin: tuple[int, int, int] = (0, 0, 0)
    step: tuple[int, int, int] | None = None

    def index(self) -> Array:
        """The element of the input that each element of the output is."""
        index = np.asarray(self.offset)
        for size, stride in zip(self.sizes, self.strides, strict=True):
            index = index[..., None] + np.arange(size) * stride
        return index.reshape(-1)

    def reversed(self, shape: tuple[int, ...]) -> StridedCopyAttrs:
        """The way back to `shape`, where all of x moves."""
        order = sorted(range(len(self.sizes)), key=lambda axis: -self.strides[axis])
        strides = [math.prod(self.sizes[axis + 1 :]) for axis in range(len(self.sizes))]
        return StridedCopyAttrs(
            shape,
            tuple(self.sizes[axis] for axis in order),
            tuple(strides[axis] for axis in order),
        )


def reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """The same elements elsewhere, int8 or real."""
    attrs: StridedCopyAttrs = op.attrs
    flat = inputs[0].reshape(len(inputs[0]), -1)
    return [flat[:, attrs.index()].reshape(len(flat), *attrs.shape[1:])]


def kernel_call(op: Op, graph: Graph) -> KernelCall:
    """tte_strided_copy_int8."""
    attrs: StridedCopyAttrs = op.attrs
    missing = MAX_DIMS - len(attrs.sizes)
    sizes, strides = (1,) * missing + attrs.sizes, (0,) * missing + attrs.strides
    kernel_params = params.StridedCopyParams(attrs.offset, *sizes, *strides)
    args = (TensorArg(op.inputs[0]), TensorArg(op.outputs[0]))
    return KernelCall(f"tte_{op.kind}", kernel_params, args)


def gradient(op: Op, grad: str, backward: Backward) -> None:
    """The gradient's elements at their old places; of what was not taken, 0."""
    attrs: StridedCopyAttrs = op.attrs
    x = op.inputs[0]
    shape = backward.graph[x].type.shape
    if attrs.step is not None:
        contribute_place(backward, op, x, grad, attrs.begin, attrs.step, 1.0)
        return
    output = backward.builder.tensor(f"{grad}.{op.name}", shape, "int8", Role.GRADIENT)
    back = attrs.reversed(shape)
    backward.builder.op("strided_copy_int8", f"{op.name}.grad_input", [grad], [output], back)
    backward.contribute(x, Contribution((1.0,), tensor=output))


FAMILY = Family(
    float_ops=(
        FloatOp(
            "transpose",
            infer,
            float_reference,
            quantize,
            keeps_quant=True,
            kernels=("strided_copy_int8",),
            grad_kernels=("strided_copy_int8",),
        ),
    ),
    integer_ops=(
        IntegerOp(
            "strided_copy_int8",
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
