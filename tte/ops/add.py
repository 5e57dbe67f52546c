# SPDX-License-Identifier: Apache-2.0
"""Element-wise sum of two activations: a residual connection.

y = ((a - z_a) m_a + (b - z_b) m_b + 2^(shift-1)) >> shift, + z_y: one rounding
(docs/numerics.md, section 1). The gradient of each branch is the incoming one, rescaled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Graph, Op, TensorType
from tte.ops import batch_norm, params
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
    """Inputs: a, b of one shape. `clamp`: a fused relu."""

    clamp: tuple[float, float] = NO_CLAMP


@dataclass(frozen=True, slots=True)
class AddInt8Attrs:
    """Inputs: a, b; outputs: y, mask (or ""). `factors`: s_a / s_y and s_b / s_y, real."""

    factors: tuple[float, float]
    multipliers: tuple[int, int]
    shift: int
    zero_points: tuple[int, int]
    output_zero_point: int
    act_min: int
    act_max: int


def infer(attrs: AddAttrs, types: Sequence[TensorType]) -> TensorType:
    """Output type; ValueError for different shapes."""
    if types[0].shape != types[1].shape:
        raise ValueError(f"inputs {types[0]} and {types[1]} have different shapes")
    return TensorType(types[0].shape, "float32")


def float_reference(op: Op, inputs: Sequence[Array]) -> Array:
    """Real sum with its clamp."""
    return np.clip(inputs[0] + inputs[1], *op.attrs.clamp)


def quantize(op: Op, quantizer: Quantizer) -> None:
    """One add_int8."""
    a, b = (quantizer.quant(name) for name in op.inputs)
    y = quantizer.quant(op.outputs[0])
    factors = (
        a.per_tensor_scale / y.per_tensor_scale,
        b.per_tensor_scale / y.per_tensor_scale,
    )
    shift = 30
    while shift > 1 and max(factors) * 2.0**shift >= 2**MULTIPLIER_BITS - 1:
        shift -= 1
    multipliers = tuple(int(np.floor(factor * 2.0**shift + 0.5)) for factor in factors)
    act_min, act_max = clamp_codes(y, op.attrs.clamp)
    quantizer.builder.op(
        "add_int8",
        op.name,
        op.inputs,
        [op.outputs[0], ""],
        AddInt8Attrs(
            factors,
            (
                min(multipliers[0], 2**MULTIPLIER_BITS - 1),
                min(multipliers[1], 2**MULTIPLIER_BITS - 1),
            ),
            shift,
            (a.zero_point, b.zero_point),
            y.zero_point,
            act_min,
            act_max,
        ),
    )


def from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Add of two activations of one shape; of a constant, see batch_norm."""
    if any(importer.constant(name) is not None for name in node.inputs):
        batch_norm.arithmetic_from_onnx(node, importer)
        return
    shapes = [importer.layout(name).shape for name in node.inputs]
    if shapes[0] != shapes[1]:
        raise importer.fail(f"broadcasting {shapes[0]} and {shapes[1]} is not supported")
    importer.emit("add", node.inputs, AddAttrs())


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
    attrs: AddInt8Attrs = op.attrs
    kernel_params = params.AddParams(
        elems=graph[op.outputs[0]].type.elems,
        a_multiplier=attrs.multipliers[0],
        b_multiplier=attrs.multipliers[1],
        shift=attrs.shift,
        a_zero_point=attrs.zero_points[0],
        b_zero_point=attrs.zero_points[1],
        output_zero_point=attrs.output_zero_point,
        act_min=attrs.act_min,
        act_max=attrs.act_max,
    )
    names = (*op.inputs, *op.outputs)
    return KernelCall(f"tte_{op.kind}", kernel_params, tuple(TensorArg(name) for name in names))


def gradient(op: Op, grad: str, backward: Backward) -> None:
    """dL/da = dL/dy s_a / s_y: the same tensor, another scale."""
    for name, factor in zip(op.inputs, op.attrs.factors, strict=True):
        backward.contribute(name, Contribution((factor,), tensor=grad))


FAMILY = Family(
    float_ops=(
        FloatOp("add", infer, float_reference, quantize, {"Add": from_onnx}, any_order=True),
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
    ),
    samples=(
        Sample("map", "add", AddAttrs(), ((1, 3, 5, 7), (1, 3, 5, 7))),
        Sample("vector with relu", "add", AddAttrs((0.0, float("inf"))), ((1, 13), (1, 13))),
    ),
)
