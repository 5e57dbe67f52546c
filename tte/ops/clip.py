# SPDX-License-Identifier: Apache-2.0
"""Relu, relu6 and clip. Behind a layer they are that layer's clamp range and no op at all; only
where nothing before can take them (after pooling, at the input) do they run by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Graph, Op, TensorType
from tte.ops import params
from tte.ops.arith import clamp_with_mask
from tte.ops.quantized import clamp_codes
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

FLOAT_MAX = 3.4e38  # exporters write about this for "no bound"


@dataclass(frozen=True, slots=True)
class ClipAttrs:
    """Input: x. The real range."""

    clamp: tuple[float, float]


@dataclass(frozen=True, slots=True)
class ClipInt8Attrs:
    """Input: x; outputs: y of the same quantisation, mask (or "")."""

    act_min: int
    act_max: int


def quantize(op: Op, quantizer: Quantizer) -> None:
    """One clip_int8."""
    act_min, act_max = clamp_codes(quantizer.quant(op.inputs[0]), op.attrs.clamp)
    quantizer.builder.op(
        "clip_int8", op.name, op.inputs, [op.outputs[0], ""], ClipInt8Attrs(act_min, act_max)
    )


def relu_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Relu."""
    importer.emit("clip", node.inputs[:1], ClipAttrs((0.0, math.inf)))


def clip_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Clip with constant bounds: attributes before opset 11, inputs since."""
    bounds = [float(node.attrs.get("min", -math.inf)), float(node.attrs.get("max", math.inf))]
    for position, name in enumerate(node.inputs[1:3]):
        if name:
            value = importer.constant(name)
            if value is None or value.size != 1:
                raise importer.fail("its bounds must be constant numbers")
            bounds[position] = float(value.reshape(-1)[0])
    bounds = [math.copysign(math.inf, b) if abs(b) >= FLOAT_MAX else b for b in bounds]
    if math.isnan(bounds[0]) or math.isnan(bounds[1]) or bounds[0] > bounds[1]:
        raise importer.fail(f"its range [{bounds[0]}, {bounds[1]}] is empty")
    importer.emit("clip", node.inputs[:1], ClipAttrs((bounds[0], bounds[1])))


def reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """Clamped codes and mask."""
    return list(clamp_with_mask(inputs[0].astype(np.int64), op.attrs.act_min, op.attrs.act_max))


def kernel_call(op: Op, graph: Graph) -> KernelCall:
    """tte_clip_int8."""
    names = (*op.inputs, *op.outputs)
    return KernelCall(
        f"tte_{op.kind}",
        params.ClipParams(
            elems=graph[op.outputs[0]].type.elems,
            act_min=op.attrs.act_min,
            act_max=op.attrs.act_max,
        ),
        tuple(TensorArg(name) for name in names),
    )


def gradient(op: Op, grad: str, backward: Backward) -> None:
    """The masked gradient passes through."""
    backward.contribute(op.inputs[0], Contribution((1.0,), tensor=grad))


def infer(attrs: ClipAttrs, types: Sequence[TensorType]) -> TensorType:
    """The input's type."""
    return types[0]


FAMILY = Family(
    float_ops=(
        FloatOp(
            "clip",
            infer,
            lambda op, inputs: np.clip(inputs[0], *op.attrs.clamp),
            quantize,
            {"Relu": relu_from_onnx, "Clip": clip_from_onnx},
            keeps_quant=True,
            any_order=True,
            kernels=("clip_int8",),
            grad_kernels=("grad_add_int8",),
        ),
    ),
    integer_ops=(
        IntegerOp(
            "clip_int8",
            reference,
            kernel_call,
            gradient=gradient,
            output_factors=lambda op: (1.0,),
            in_place=lambda op: (0,),
        ),
    ),
    samples=(Sample("range", "clip", ClipAttrs((-0.4, 0.7)), ((1, 3, 3, 5),)),),
)
