# SPDX-License-Identifier: Apache-2.0
"""A border of one value around a map. Before a convolution or pooling it is that layer's padding
and no op at all (tte/passes/fold.py).

y = round((x - z_x) s_x / s_y) + z_y inside, the code of the value around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Graph, Op, TensorType
from tte.ops import arith, params
from tte.ops.gradient import contribute_place
from tte.ops.layout import axes_of
from tte.ops.quantized import NO_CLAMP, RequantAttrs, clamp_codes, make_requant
from tte.ops.slice import emit_slice
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
from tte.ops.window import as_map, hwc

MAX_PAD = 0xFFFF


@dataclass(frozen=True, slots=True)
class PadAttrs:
    """Input: x. Elements `before` and `after`, per height, width and channels."""

    before: tuple[int, int, int]
    after: tuple[int, int, int]
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class PadInt8Attrs:
    """The same with the code of the value."""

    before: tuple[int, int, int]
    after: tuple[int, int, int]
    fill: int
    requant: RequantAttrs


def infer(attrs: PadAttrs, types: Sequence[TensorType]) -> TensorType:
    """Output type."""
    sizes = tuple(
        before + size + after
        for before, size, after in zip(attrs.before, hwc(types[0]), attrs.after, strict=True)
    )
    return TensorType((1, *sizes) if len(types[0].shape) == 4 else (1, sizes[2]), "float32")


def _widths(attrs: PadAttrs | PadInt8Attrs) -> list[tuple[int, int]]:
    return [(0, 0), *zip(attrs.before, attrs.after, strict=True)]


def float_reference(op: Op, inputs: Sequence[Array]) -> Array:
    """Real numbers."""
    y = np.pad(as_map(inputs[0]), _widths(op.attrs), constant_values=op.attrs.value)
    return y if inputs[0].ndim == 4 else y.reshape(len(y), -1)


def quantize(op: Op, quantizer: Quantizer) -> None:
    """One pad_int8."""
    attrs: PadAttrs = op.attrs
    y = quantizer.quant(op.outputs[0])
    requant = make_requant(quantizer.quant(op.inputs[0]), y, [1.0], NO_CLAMP)
    fill = clamp_codes(y, (attrs.value, attrs.value))[0]
    int_attrs = PadInt8Attrs(attrs.before, attrs.after, fill, requant)
    quantizer.builder.op("pad_int8", op.name, op.inputs, op.outputs, int_attrs)


def from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Pad with a constant; negative pads cut. -inf stands for the padding of a max pooling."""
    layout = importer.layout(node.inputs[0])
    rank = len(layout.shape)
    mode = node.attrs.get("mode", "constant")
    if mode != "constant":
        raise importer.fail(f"its mode is {mode!r}", "pad with a constant")
    inputs = [importer.constant(name) if name else None for name in node.inputs[1:4]]
    if any(name and value is None for name, value in zip(node.inputs[1:4], inputs, strict=True)):
        raise importer.fail("its pads, value and axes must be constant")
    inputs += [None] * (3 - len(inputs))
    pads = (
        node.attrs.get("pads", node.attrs.get("paddings", ())) if inputs[0] is None else inputs[0]
    )
    sizes = [int(size) for size in np.asarray(pads).reshape(-1)]
    value = float(node.attrs.get("value", 0.0) if inputs[1] is None else inputs[1].reshape(-1)[0])
    try:
        axes = tuple(range(rank)) if inputs[2] is None else axes_of({}, inputs[2], rank)
    except ValueError as error:
        raise importer.fail(str(error)) from error
    if len(sizes) != 2 * len(axes) or np.isnan(value) or max(map(abs, sizes), default=0) > MAX_PAD:
        raise importer.fail(f"its pads {sizes} do not fit {len(axes)} axes, or its value is NaN")
    around = list(zip(axes, sizes, sizes[len(axes) :], strict=False))
    cuts = [
        (axis, max(0, -first), 1, layout.shape[axis] + min(0, first) + min(0, last))
        for axis, first, last in around
        if first < 0 or last < 0
    ]
    x = node.inputs[0]
    if cuts:
        emit_slice(importer, x, cuts)
        x = node.outputs[0]
        layout = importer.layout(x)
    before, after = [0] * 4, [0] * 4
    missing = 4 - len(layout.map_shape)
    for axis, first, last in around:
        if first > 0 or last > 0:
            place = layout.axis(axis) + missing
            if place < 1:
                raise importer.fail(f"padding axis {axis} of size 1 is not supported")
            before[place], after[place] = max(first, 0), max(last, 0)
    if not any((*before, *after)):
        importer.alias(x)
        return
    attrs = PadAttrs(_three(before), _three(after), value if value > -3e38 else -np.inf)
    importer.emit("pad", [x], attrs, layout.memory)


def _three(values: Sequence[int]) -> tuple[int, int, int]:
    return (values[1], values[2], values[3])


# ---- integer op ---------------------------------------------------------------------------


def reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int8 map with its border."""
    attrs: PadInt8Attrs = op.attrs
    requant, x = attrs.requant, as_map(inputs[0])
    acc = x.astype(np.int64) - requant.input_zero_point
    value = arith.requantize(acc, requant.multipliers[0], requant.pre_shift)
    inside = np.clip(value + requant.output_zero_point, -128, 127).astype(np.int8)
    y = np.pad(inside, _widths(attrs), constant_values=attrs.fill)
    return [y if inputs[0].ndim == 4 else y.reshape(len(y), -1)]


def kernel_call(op: Op, graph: Graph) -> KernelCall:
    """tte_pad_int8."""
    attrs: PadInt8Attrs = op.attrs
    x, y = op.inputs[0], op.outputs[0]
    kernel_params = params.PadParams(
        *hwc(graph[x].type),
        *hwc(graph[y].type),
        *attrs.before,
        attrs.fill,
        attrs.requant.input_zero_point,
        attrs.requant.output_zero_point,
        attrs.requant.pre_shift,
        attrs.requant.multipliers[0],
    )
    return KernelCall(f"tte_{op.kind}", kernel_params, (TensorArg(x), TensorArg(y)))


def gradient(op: Op, grad: str, backward: Backward) -> None:
    """The inside of the gradient, times s_x / s_y."""
    attrs: PadInt8Attrs = op.attrs
    top, left, front = attrs.before
    begin = (-top, -left, -front)
    factor = attrs.requant.factor[0]
    contribute_place(backward, op, op.inputs[0], grad, begin, (1, 1, 1), factor)


FAMILY = Family(
    float_ops=(
        FloatOp(
            "pad",
            infer,
            float_reference,
            quantize,
            {"Pad": from_onnx},
            kernels=("pad_int8",),
            grad_kernels=("grad_place_int8",),
        ),
    ),
    integer_ops=(
        IntegerOp(
            "pad_int8",
            reference,
            kernel_call,
            gradient=gradient,
            output_factors=lambda op: (1.0,),
        ),
    ),
    samples=(
        Sample("border", "pad", PadAttrs((1, 2, 0), (0, 1, 0)), ((1, 3, 4, 5),)),
        Sample(
            "channels, with a value", "pad", PadAttrs((0, 0, 1), (0, 1, 2), 7.5), ((1, 3, 2, 4),)
        ),
        Sample("vector", "pad", PadAttrs((0, 0, 2), (0, 0, 3)), ((1, 7),)),
    ),
)
