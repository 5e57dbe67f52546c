# SPDX-License-Identifier: Apache-2.0
"""Element-wise product of two tensors, one of them repeated where it is smaller: the gate of a
squeeze-and-excite block.

y = requantize((a - z_a) (b - z_b), M) + z_y, M = s_a s_b / s_y (docs/numerics.md, section 1). The
gradient of each operand is the incoming one times the other operand, which is saved for it.
Squeeze-and-excitation: Hu et al., CVPR 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Graph, Op, QuantParams, TensorType
from tte.ops import broadcast, params
from tte.ops.expression import Expression
from tte.ops.function import FunctionAttrs
from tte.ops.quantized import NO_CLAMP, RequantAttrs, make_requant
from tte.ops.spec import (
    Array,
    Backward,
    Family,
    FloatOp,
    Importer,
    IntegerOp,
    KernelCall,
    OnnxNode,
    Quantizer,
    Sample,
    TensorArg,
)


@dataclass(frozen=True, slots=True)
class MulAttrs:
    """Inputs: a, b. `clamp`: a fused relu."""

    clamp: tuple[float, float] = NO_CLAMP


@dataclass(frozen=True, slots=True)
class MulInt8Attrs:
    """Inputs: a, b; outputs: y, mask (or ""). `requant.input_zero_point` is a's; `in_place`:
    operands of y's shape."""

    requant: RequantAttrs
    b_zero_point: int
    in_place: tuple[int, ...]


def infer(attrs: MulAttrs, types: Sequence[TensorType]) -> TensorType:
    """Output type; ValueError where the operands do not fit."""
    return broadcast.infer(types)


def float_reference(op: Op, inputs: Sequence[Array]) -> Array:
    """Real product with its clamp."""
    return np.clip(inputs[0] * inputs[1], *op.attrs.clamp)


def quantize(op: Op, quantizer: Quantizer) -> None:
    """One mul_int8."""
    (a, a_quant), (b, b_quant) = (broadcast.operand(quantizer, op, i) for i in (0, 1))
    builder, y = quantizer.builder, op.outputs[0]
    unit = QuantParams((a_quant.per_tensor_scale * b_quant.per_tensor_scale,), a_quant.zero_point)
    requant = make_requant(unit, quantizer.quant(y), [1.0], op.attrs.clamp)
    shapes = [builder.tensors[name].type.shape for name in (a, b)]
    in_place = broadcast.whole(shapes, builder.tensors[y].type.shape)
    attrs = MulInt8Attrs(requant, b_quant.zero_point, in_place)
    builder.op("mul_int8", op.name, [a, b], [y, ""], attrs)


def mul_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Mul of two activations, or of one and a constant."""
    inputs = broadcast.operands(node, importer)
    if inputs is not None:
        importer.emit("mul", inputs, MulAttrs())


def div_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Div by a constant, of a number by an activation, or of two functions of one tensor
    (tte/passes/fold.py)."""
    value = importer.constant(node.inputs[0])
    if value is not None and importer.constant(node.inputs[1]) is None:
        number = np.unique(value)
        if number.size != 1 or not np.isfinite(number).all():
            raise importer.fail("what it divides must be an activation or one number")
        inverse = Expression("power", (Expression(),), (-1.0,))
        expression = Expression("affine", (inverse,), (float(number[0]), 0.0))
        importer.emit("function", node.inputs[1:], FunctionAttrs(expression))
        return
    inputs = broadcast.operands(node, importer)
    if inputs is not None:
        if importer.constant(node.inputs[1]) is not None:
            raise importer.fail(
                "it divides by a constant for each position", "multiply by its reciprocal"
            )
        importer.emit("div", inputs, MulAttrs())


def reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int8 product and mask."""
    attrs: MulInt8Attrs = op.attrs
    a = inputs[0].astype(np.int64) - attrs.requant.input_zero_point
    return attrs.requant.apply(a * (inputs[1].astype(np.int64) - attrs.b_zero_point))


def kernel_call(op: Op, graph: Graph) -> KernelCall:
    """tte_mul_int8."""
    shape, *shapes = (graph[name].type.shape for name in (op.outputs[0], *op.inputs))
    kernel_params = params.MulParams(
        broadcast=broadcast.merged(shape, *shapes),
        requant=op.attrs.requant.params(),
        b_zero_point=op.attrs.b_zero_point,
        multiplier=op.attrs.requant.multipliers[0],
    )
    names = (*op.inputs, *op.outputs)
    return KernelCall(f"tte_{op.kind}", kernel_params, tuple(TensorArg(name) for name in names))


def gradient(op: Op, grad: str, backward: Backward) -> None:
    """dL/da = dL/d(ab) b, and the other way round."""
    a, b = op.inputs
    a_zero_point, b_zero_point = op.attrs.requant.input_zero_point, op.attrs.b_zero_point
    broadcast.contribute(backward, op, 0, grad, 1.0, b, b_zero_point)
    broadcast.contribute(backward, op, 1, grad, 1.0, a, a_zero_point)


FAMILY = Family(
    float_ops=(
        FloatOp(
            "mul",
            infer,
            float_reference,
            quantize,
            {"Mul": mul_from_onnx},
            any_order=True,
            kernels=("mul_int8",),
            grad_kernels=("broadcast_grad_input_int8",),
        ),
        FloatOp(
            "div",
            infer,
            lambda op, inputs: inputs[0] / inputs[1],
            None,
            {"Div": div_from_onnx},
            any_order=True,
        ),
    ),
    integer_ops=(
        IntegerOp(
            "mul_int8",
            reference,
            kernel_call,
            gradient=gradient,
            output_factors=lambda op: op.attrs.requant.factor,
            in_place=lambda op: op.attrs.in_place,
        ),
    ),
    samples=(
        Sample("gate", "mul", MulAttrs(), ((1, 4, 3, 7), (1, 1, 1, 7))),
        Sample("one shape, relu", "mul", MulAttrs((0.0, float("inf"))), ((1, 3, 5, 4),) * 2),
        Sample("position by position", "mul", MulAttrs(), ((1, 3, 5, 4), (1, 3, 5, 1))),
        Sample("rows and columns", "mul", MulAttrs(), ((1, 1, 5, 3), (1, 4, 1, 3))),
        Sample("vectors", "mul", MulAttrs(), ((1, 13), (1, 13))),
        Sample("a number", "mul", MulAttrs(), ((1, 13), (1, 1))),
        Sample("constant map", "mul", MulAttrs(), ((1, 3, 4, 5),), ((1, 3, 4, 1),)),
    ),
)
