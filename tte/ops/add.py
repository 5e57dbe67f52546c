# SPDX-License-Identifier: Apache-2.0
"""Element-wise sum or difference of two tensors: a residual connection, a bias of any shape.

y = ((a - z_a) m_a + (b - z_b) m_b + 2^(shift-1)) >> shift, + z_y: one rounding, m < 0 for what is
subtracted (docs/numerics.md, section 1). The gradient of each branch is the incoming one,
rescaled, and summed over where the branch was repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tte.ir import Graph, Op, Role, TensorType
from tte.ops import broadcast, params
from tte.ops.quantized import NO_CLAMP, clamp_codes
from tte.ops.spec import (
    Array,
    Backward,
    Contribution,
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

MULTIPLIER_BITS = 21  # 9-bit inputs: the sum of two products fits int32


@dataclass(frozen=True, slots=True)
class AddAttrs:
    """Inputs: a, b. `clamp`: a fused relu. `signs`: 1, or -1 for an operand that is subtracted."""

    clamp: tuple[float, float] = NO_CLAMP
    signs: tuple[int, int] = (1, 1)


@dataclass(frozen=True, slots=True)
class AddInt8Attrs:
    """Inputs: a, b; outputs: y, mask (or ""). `factors`: +-s_a / s_y and +-s_b / s_y, real.
    `in_place`: operands of y's shape."""

    factors: tuple[float, float]
    multipliers: tuple[int, int]
    shift: int
    zero_points: tuple[int, int]
    output_zero_point: int
    act_min: int
    act_max: int
    in_place: tuple[int, ...] = (0, 1)


def infer(attrs: AddAttrs, types: Sequence[TensorType]) -> TensorType:
    """Output type; ValueError where the operands do not fit."""
    return broadcast.infer(types)


def float_reference(op: Op, inputs: Sequence[Array]) -> Array:
    """Real sum with its clamp."""
    first, second = op.attrs.signs
    return np.clip(first * inputs[0] + second * inputs[1], *op.attrs.clamp)


def quantize(op: Op, quantizer: Quantizer) -> None:
    """One add_int8, or add_broadcast_int8 for different shapes."""
    (a, a_quant), (b, b_quant) = (broadcast.operand(quantizer, op, i) for i in (0, 1))
    y = quantizer.quant(op.outputs[0])
    first, second = op.attrs.signs
    factors = (
        first * a_quant.per_tensor_scale / y.per_tensor_scale,
        second * b_quant.per_tensor_scale / y.per_tensor_scale,
    )
    limit = 2**MULTIPLIER_BITS - 1
    shift = 30
    while shift > 1 and max(map(abs, factors)) * 2.0**shift >= limit:
        shift -= 1
    one, other = (
        int(np.copysign(min(np.floor(abs(factor) * 2.0**shift + 0.5), limit), factor))
        for factor in factors
    )
    act_min, act_max = clamp_codes(y, op.attrs.clamp)
    builder = quantizer.builder
    shapes = [builder.tensors[name].type.shape for name in (a, b)]
    in_place = broadcast.whole(shapes, builder.tensors[op.outputs[0]].type.shape)
    builder.op(
        "add_int8" if len(in_place) == 2 else "add_broadcast_int8",
        op.name,
        [a, b],
        [op.outputs[0], ""],
        AddInt8Attrs(
            factors,
            (one, other),
            shift,
            (a_quant.zero_point, b_quant.zero_point),
            y.zero_point,
            act_min,
            act_max,
            in_place,
        ),
    )


def add_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Add of two tensors."""
    inputs = broadcast.operands(node, importer)
    if inputs is not None:
        importer.emit("add", inputs, AddAttrs())


def sub_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Sub of two tensors."""
    inputs = broadcast.operands(node, importer)
    if inputs is not None:
        importer.emit("add", inputs, AddAttrs(signs=(1, -1)))


def sum_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Sum of any number of tensors, one after the other."""
    total, *others = sorted(node.inputs, key=lambda name: importer.constant(name) is not None)
    if not others:
        importer.alias(total)
    for name in others:
        add_from_onnx(replace(node, op_type="Add", inputs=(total, name)), importer)
        total = node.outputs[0]


def reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int8 sum and mask."""
    attrs: AddInt8Attrs = op.attrs
    total = np.int64(1 << (attrs.shift - 1))
    for data, multiplier, zero_point in zip(
        inputs, attrs.multipliers, attrs.zero_points, strict=True
    ):
        total = total + (data.astype(np.int64) - zero_point) * multiplier
    value = (total >> attrs.shift) + attrs.output_zero_point
    value = (
        np.clip(value, attrs.act_min, attrs.act_max),
        ((value >= attrs.act_min) & (value <= attrs.act_max)),
    )
    return [value[0].astype(np.int8), value[1]]


def kernel_call(op: Op, graph: Graph) -> KernelCall:
    """tte_add_int8."""
    names = (*op.inputs, *op.outputs)
    return KernelCall(
        f"tte_{op.kind}",
        _params(op.attrs, graph[op.outputs[0]].type.elems),
        tuple(TensorArg(name) for name in names),
    )


def broadcast_call(op: Op, graph: Graph) -> KernelCall:
    """tte_add_broadcast_int8."""
    shape, *shapes = (graph[name].type.shape for name in (op.outputs[0], *op.inputs))
    call = kernel_call(op, graph)
    kernel_params = params.AddBroadcastParams(broadcast.merged(shape, *shapes), call.params)
    return replace(call, params=kernel_params)


def _params(attrs: AddInt8Attrs, elems: int) -> params.AddParams:
    return params.AddParams(
        elems=elems,
        a_multiplier=attrs.multipliers[0],
        b_multiplier=attrs.multipliers[1],
        shift=attrs.shift,
        a_zero_point=attrs.zero_points[0],
        b_zero_point=attrs.zero_points[1],
        output_zero_point=attrs.output_zero_point,
        act_min=attrs.act_min,
        act_max=attrs.act_max,
    )


def gradient(op: Op, grad: str, backward: Backward) -> None:
    """dL/da = +-dL/dy s_a / s_y: the same tensor in another scale, or its sums."""
    for position, (name, factor) in enumerate(zip(op.inputs, op.attrs.factors, strict=True)):
        if backward.builder.tensors[name].role is Role.CONSTANT:
            continue
        if position in op.attrs.in_place:
            backward.contribute(name, Contribution((factor,), tensor=grad))
        else:
            broadcast.contribute(backward, op, position, grad, factor)


FAMILY = Family(
    float_ops=(
        FloatOp(
            "add",
            infer,
            float_reference,
            quantize,
            {"Add": add_from_onnx, "Sub": sub_from_onnx, "Sum": sum_from_onnx},
            any_order=True,
            kernels=(
                "add_int8",
                "add_broadcast_int8",
            ),
            grad_kernels=(
                "grad_add_int8",
                "broadcast_grad_input_int8",
            ),
        ),
    ),
    integer_ops=(
        IntegerOp(
            "add_int8",
            reference,
            kernel_call,
            gradient=gradient,
            output_factors=lambda op: (1.0,),
            in_place=lambda op: (0, 1),
        ),
        IntegerOp(
            "add_broadcast_int8",
            reference,
            broadcast_call,
            gradient=gradient,
            output_factors=lambda op: (1.0,),
            in_place=lambda op: op.attrs.in_place,
        ),
    ),
    samples=(
        Sample("map", "add", AddAttrs(), ((1, 3, 5, 7), (1, 3, 5, 7))),
        Sample("vector with relu", "add", AddAttrs((0.0, float("inf"))), ((1, 13), (1, 13))),
        Sample("difference", "add", AddAttrs(signs=(1, -1)), ((1, 3, 5, 4), (1, 3, 5, 4))),
        Sample("vector to a map", "add", AddAttrs(), ((1, 3, 5, 4), (1, 1, 1, 4))),
        Sample("less a number", "add", AddAttrs(signs=(1, -1)), ((1, 9), (1, 1))),
        Sample("rows less columns", "add", AddAttrs(signs=(1, -1)), ((1, 1, 5, 3), (1, 4, 1, 3))),
        Sample("constant map", "add", AddAttrs(signs=(-1, 1)), ((1, 3, 4, 5),), ((1, 3, 4, 5),)),
    ),
)
