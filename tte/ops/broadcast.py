# SPDX-License-Identifier: Apache-2.0
"""What the element-wise operators of two tensors share: how one is repeated along the other.

Every dimension of an operand is the output's or 1 (numpy's rule); axes that both operands treat
alike are one, so that three are left for a kernel. The gradient of an operand that was repeated is
the sum over its repetitions, in int32, rounded once (docs/numerics.md, section 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tte.errors import TteError
from tte.ir import Graph, Op, QuantParams, Role, TensorType
from tte.ops import arith, batch_norm, params
from tte.ops.quantized import (
    GradInputAttrs,
    grad_call,
    grad_epilogue,
    quant_of_range,
    real_data,
)
from tte.ops.spec import (
    Array,
    Backward,
    Contribution,
    Family,
    GradScale,
    Importer,
    IntegerOp,
    KernelCall,
    OnnxNode,
    Quantizer,
)
from tte.ops.window import WindowAttrs

MAX_POSITIONS = arith.INT32_MAX // (127 * 255)  # that a gradient is the sum over

# ---- shapes -------------------------------------------------------------------------------


def output_shape(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    """The shape of both together; ValueError where they do not fit."""
    if len(a) != len(b) or any(p != q and 1 not in (p, q) for p, q in zip(a, b, strict=True)):
        raise ValueError(f"shapes {list(a)} and {list(b)} cannot be broadcast together")
    return tuple(max(p, q) for p, q in zip(a, b, strict=True))


def infer(types: Sequence[TensorType]) -> TensorType:
    """Output type of an operator of two tensors."""
    return TensorType(output_shape(types[0].shape, types[1].shape), "float32")


def merged(shape: Sequence[int], a: Sequence[int], b: Sequence[int]) -> params.Broadcast:
    """Three axes of a tensor of `shape`, and how far each operand moves along them."""
    axes: list[tuple[int, bool, bool]] = []  # size, whether a and b have it
    for size, own_a, own_b in zip(shape, a, b, strict=True):
        here = (size, own_a == size, own_b == size)
        if axes and (size == 1 or here[1:] == axes[-1][1:]):
            axes[-1] = (axes[-1][0] * size, *axes[-1][1:])
        elif axes and axes[-1][0] == 1:
            axes[-1] = here
        else:
            axes.append(here)
    if len(axes) > 3:
        raise ValueError(f"{len(axes)} axes that differ")
    axes = [(1, True, True)] * (3 - len(axes)) + axes
    strides = []
    for operand in (1, 2):
        step, found = 1, []
        for axis in reversed(axes):
            found.append(step if axis[operand] else 0)
            step *= axis[0] if axis[operand] else 1
        strides += found[::-1]
    return params.Broadcast(*(axis[0] for axis in axes), *strides)


def whole(shapes: Sequence[Sequence[int]], shape: Sequence[int]) -> tuple[int, ...]:
    """The operands that have the output's shape: it may take their place."""
    return tuple(i for i, one in enumerate(shapes) if tuple(one) == tuple(shape))


# ---- nodes --------------------------------------------------------------------------------


def operands(node: OnnxNode, importer: Importer) -> list[str] | None:
    """The two inputs of a node, a constant among them laid out as the activation is; None where
    it is one value per channel, and the node a batch_norm now."""
    constants = [importer.constant(name) for name in node.inputs]
    if all(value is None for value in constants):
        return list(node.inputs)
    if batch_norm.arithmetic_from_onnx(node, importer):
        return None
    first = constants[0] is not None
    name, value = node.inputs[0 if first else 1], constants[0 if first else 1]
    layout = importer.layout(node.inputs[1 if first else 0]).settled
    rank = len(layout.shape)
    assert value is not None
    shape = (1,) * (rank - value.ndim) + value.shape
    if len(shape) > rank or any(
        size != 1 for axis, size in enumerate(shape) if axis not in layout.axes
    ):
        raise importer.fail(f"its constant of shape {value.shape} does not fit {layout.shape}")
    sizes = tuple(1 if axis < 0 else shape[axis] for axis in layout.axes)

    def laid_out(data: Array) -> Array:
        return data.reshape(shape).transpose(layout.memory).reshape(sizes)

    constant = importer.weight(name, laid_out, -1)
    return [constant, node.inputs[1]] if first else [node.inputs[0], constant]


# ---- constants ----------------------------------------------------------------------------


def operand(quantizer: Quantizer, op: Op, position: int) -> tuple[str, QuantParams]:
    """An operand's int8 tensor and quantisation; a constant's range gets all codes."""
    name = op.inputs[position]
    tensor = quantizer.graph[name]
    if tensor.data is None:
        return name, quantizer.quant(name)
    quant, codes = tensor.quant, tensor.data
    if quant is None or len(quant.scale) != 1 or tensor.type.dtype != "int8":
        real = real_data(tensor)
        quant = quant_of_range(float(real.min()), float(real.max()))
        codes = quant.quantize(real)
    return quantizer.builder.constant(f"{op.name}.operand", codes, quant), quant


# ---- the gradient -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BroadcastGradAttrs(GradInputAttrs):
    """Inputs: grad_output, other or "", addend or "", mask or "". `zero_point`: other's.
    `elementwise`: positions of inputs of grad_input's shape, where nothing is summed."""

    zero_point: int = 0
    elementwise: tuple[int, ...] = ()


def contribute(
    backward: Backward,
    op: Op,
    position: int,
    grad: str,
    factor: float,
    other: str = "",
    zero_point: int = 0,
) -> None:
    """Registers the share of operand `position`, still unwritten: the sum over its repetitions of
    grad_output * (other - zero_point); without `other`, of grad_output."""
    name, tensors = op.inputs[position], backward.builder.tensors
    if tensors[name].role is Role.CONSTANT:
        return
    shape, out_shape = tensors[name].type.shape, tensors[op.outputs[0]].type.shape
    elementwise: tuple[int, ...] = ()
    if shape == out_shape:
        alike = bool(other) and tensors[other].type.shape == shape
        elementwise = (0, 1) if alike else (0,)

    def emit(scale: GradScale, addend: str, mask: str, output: str) -> None:
        backward.builder.op(
            "broadcast_grad_input_int8",
            f"{op.name}.grad_input.{position}",
            [grad, other, addend, mask],
            [output],
            BroadcastGradAttrs(
                WindowAttrs((1, 1)), shape, scale, zero_point=zero_point, elementwise=elementwise
            ),
        )

    backward.contribute(name, Contribution((factor,), emit=emit))


def grad_input_sums(op: Op, inputs: Sequence[Array]) -> Array:
    """Gradients, times the other operand, summed over what the operand was repeated along."""
    grad, other = inputs
    attrs: BroadcastGradAttrs = op.attrs
    if other is not None:
        grad = grad * (other.astype(grad.dtype) - grad.dtype.type(attrs.zero_point))
    axes = tuple(axis for axis, size in enumerate(attrs.shape) if axis and grad.shape[axis] != size)
    return grad.sum(axis=axes, keepdims=True)


def grad_input_reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int8 grad_input and its saturations."""
    grad, other, addend, mask = inputs
    return grad_epilogue(op, grad_input_sums(op, [grad.astype(np.int64), other]), addend, mask)


def grad_input_call(op: Op, graph: Graph) -> KernelCall:
    """tte_broadcast_grad_input_int8."""
    grad, other = op.inputs[:2]
    target = graph[op.outputs[0]].type
    shapes = [target.shape, graph[other or grad].type.shape]
    positions = graph[grad].type.elems // target.elems
    if positions > MAX_POSITIONS:
        raise TteError(
            "the gradient of a broadcast operand could overflow 32 bits",
            where=op.origin or op.name,
            why=f"it is the sum over {positions} positions; up to {MAX_POSITIONS} are possible",
            hint="train layers behind it only",
        )
    kernel_params = params.BroadcastGradInputParams(
        broadcast=merged(graph[grad].type.shape, *shapes),
        channels=target.shape[-1],
        other_zero_point=op.attrs.zero_point,
        pre_shift=op.attrs.scale.pre_shift,
    )
    return grad_call(op, kernel_params, [grad, other])


FAMILY = Family(
    integer_ops=(
        IntegerOp(
            "broadcast_grad_input_int8",
            grad_input_reference,
            grad_input_call,
            accumulate=grad_input_sums,
            in_place=lambda op: (*op.attrs.elementwise, 2),
        ),
    ),
)
