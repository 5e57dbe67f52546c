# SPDX-License-Identifier: Apache-2.0
"""Activations behind one another along an axis, each rescaled to the output's quantisation.

y = round((x - z_x) s_x / s_y) + z_y, one rounding; an input that has y's scale already is copied.
The gradient of an input is its part of the output's, rescaled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Graph, Op, Role, TensorType
from tte.ops import arith, params
from tte.ops.gradient import contribute_place
from tte.ops.layout import channels_last
from tte.ops.spec import (
    Arg,
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
    TableArg,
    TensorArg,
)

MAX_INPUTS = 4  # of the kernel; more are put together in steps


@dataclass(frozen=True, slots=True)
class ConcatAttrs:
    """Inputs: two or more activations. `axis` of NHWC, or of [1, C]."""

    axis: int


@dataclass(frozen=True, slots=True)
class ConcatInt8Attrs:
    """Inputs: 2 to 4 activations; `factors`: s_x / s_y of each, real; `multipliers`, `pre_shift`:
    the same in fixed point."""

    axis: int
    factors: tuple[float, ...]
    multipliers: tuple[int, ...]
    pre_shift: int
    zero_points: tuple[int, ...]
    output_zero_point: int


def infer(attrs: ConcatAttrs, types: Sequence[TensorType]) -> TensorType:
    """Output type; ValueError where another axis differs too."""
    shapes = [list(one.shape) for one in types]
    whole = sum(shape[attrs.axis] if attrs.axis < len(shape) else 0 for shape in shapes)
    for shape in shapes:
        if len(shape) != len(shapes[0]) or not 1 <= attrs.axis < len(shape):
            raise ValueError(f"inputs {', '.join(map(str, types))} have different dimensions")
        shape[attrs.axis] = whole
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"inputs {', '.join(map(str, types))} differ in more than one axis")
    return TensorType(tuple(shapes[0]), "float32")


def float_reference(op: Op, inputs: Sequence[Array]) -> Array:
    """Real numbers."""
    return np.concatenate(inputs, axis=op.attrs.axis)


def quantize(op: Op, quantizer: Quantizer) -> None:
    """One concat_int8; several where there are more than four inputs."""
    builder, y = quantizer.builder, op.outputs[0]
    axis: int = op.attrs.axis
    names, quants = list(op.inputs), [quantizer.quant(name) for name in op.inputs]
    target = quantizer.quant(y)
    step = 1
    while names:
        part, rest = names[:MAX_INPUTS], names[MAX_INPUTS:]
        factors = [
            quant.per_tensor_scale / target.per_tensor_scale for quant in quants[: len(part)]
        ]
        multipliers, pre_shift = arith.fixed_multipliers(factors)
        attrs = ConcatInt8Attrs(
            axis,
            tuple(factors),
            multipliers,
            pre_shift,
            tuple(quant.zero_point for quant in quants[: len(part)]),
            target.zero_point,
        )
        output, name = y, op.name
        if rest:
            shape = list(builder.tensors[y].type.shape)
            shape[axis] = sum(builder.tensors[one].type.shape[axis] for one in part)
            output, name = f"{y}.part{step}", f"{op.name}.part{step}"
            builder.tensor(output, shape, "int8", Role.ACTIVATION, quant=target)
            rest, quants = [output, *rest], [target, *quants[len(part) :]]
        builder.op("concat_int8", name, part, [output], attrs)
        names, step = rest, step + 1


def from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Concat of activations along any axis but the batch."""
    if any(importer.constant(name) is not None for name in node.inputs):
        raise importer.fail("a constant among its inputs is not supported")
    layouts = [importer.layout(name) for name in node.inputs]
    ranks = {len(layout.shape) for layout in layouts}
    axis = int(node.attrs.get("axis", 1))
    rank = min(ranks)
    if len(ranks) > 1 or not -rank <= axis < rank:
        raise importer.fail(f"its axis {axis} or its inputs do not fit: {sorted(ranks)} dimensions")
    if len(node.inputs) == 1:
        importer.alias(node.inputs[0])
        return
    axis %= rank
    main = max(layouts, key=lambda layout: math.prod(layout.shape))
    usual = main.ordered(channels_last(rank))
    stored = usual if usual.moving == main.moving else main
    place = stored.axis(axis)
    if place < 1:
        raise importer.fail(f"concatenating along axis {axis} is not supported")
    importer.emit("concat", node.inputs, ConcatAttrs(place), stored.memory)


# ---- integer op ---------------------------------------------------------------------------


def reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int8 parts, rescaled."""
    attrs: ConcatInt8Attrs = op.attrs
    parts = []
    for x, multiplier, zero_point in zip(inputs, attrs.multipliers, attrs.zero_points, strict=True):
        value = arith.requantize(x.astype(np.int64) - zero_point, multiplier, attrs.pre_shift)
        parts.append(np.clip(value + attrs.output_zero_point, -128, 127).astype(np.int8))
    return [np.concatenate(parts, axis=attrs.axis)]


def kernel_call(op: Op, graph: Graph) -> KernelCall:
    """tte_concat_int8."""
    attrs: ConcatInt8Attrs = op.attrs
    shapes = [graph[name].type.shape for name in op.inputs]
    missing = [0] * (MAX_INPUTS - len(op.inputs))
    elems = [math.prod(shape[attrs.axis :]) for shape in shapes] + missing
    zero_points = [*attrs.zero_points, *missing]
    kernel_params = params.ConcatParams(
        outer=math.prod(shapes[0][: attrs.axis]),
        pre_shift=attrs.pre_shift,
        output_zero_point=attrs.output_zero_point,
        **{f"{letter}_elems": size for letter, size in zip("abcd", elems, strict=True)},
        **{f"{letter}_zero_point": zero for letter, zero in zip("abcd", zero_points, strict=True)},
    )
    names = [*op.inputs, *("" for _ in missing)]
    args: list[Arg] = [TensorArg(name) for name in names]
    args.append(TableArg("multipliers", "int32_t", attrs.multipliers))
    return KernelCall(f"tte_{op.kind}", kernel_params, (*args, TensorArg(op.outputs[0])))


def gradient(op: Op, grad: str, backward: Backward) -> None:
    """To each input its part of the gradient, times s_x / s_y."""
    attrs: ConcatInt8Attrs = op.attrs
    offset = 0
    for position, name in enumerate(op.inputs):
        shape = backward.graph[name].type.shape
        begin = [0, 0, 0]
        begin[attrs.axis - 1 if len(shape) == 4 else 2] = -offset
        place = (begin[0], begin[1], begin[2])
        contribute_place(
            backward, op, name, grad, place, (1, 1, 1), attrs.factors[position], position
        )
        offset += shape[attrs.axis]


FAMILY = Family(
    float_ops=(
        FloatOp(
            "concat",
            infer,
            float_reference,
            quantize,
            {"Concat": from_onnx},
            any_order=True,
            kernels=("concat_int8",),
            grad_kernels=("grad_place_int8",),
        ),
    ),
    integer_ops=(
        IntegerOp(
            "concat_int8",
            reference,
            kernel_call,
            gradient=gradient,
            output_factors=lambda op: (1.0,),
        ),
    ),
    samples=(
        Sample("channels", "concat", ConcatAttrs(3), ((1, 3, 5, 7), (1, 3, 5, 2))),
        Sample("rows of three", "concat", ConcatAttrs(1), ((1, 3, 5, 4),) * 3),
        Sample("five", "concat", ConcatAttrs(2), ((1, 3, 2, 4),) * 5),
        Sample("vectors", "concat", ConcatAttrs(1), ((1, 13), (1, 13))),
    ),
)
