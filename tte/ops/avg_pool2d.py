# SPDX-License-Identifier: Apache-2.0
"""Average pooling, windowed and global; NHWC.

y = requantize(sum (x - z_x), M / count) + z_y, one rounding (docs/numerics.md, section 1). Where
padding is not counted, `count` is the number of elements under the clipped window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tte.ir import Graph, Op, TensorType
from tte.ops import arith, params
from tte.ops.layout import axes_of
from tte.ops.quantized import GradInputAttrs, RequantAttrs, grad_call, grad_epilogue, make_requant
from tte.ops.spec import (
    Array,
    Backward,
    Contribution,
    Family,
    FloatOp,
    GradScale,
    Importer,
    IntegerOp,
    KernelCall,
    OnnxNode,
    Quantizer,
    Sample,
    TableArg,
    TensorArg,
)
from tte.ops.window import (
    WindowAttrs,
    pad_map,
    patches,
    spatial_rank,
    taps,
    unpad,
    window_from_onnx,
)

COUNT_WEIGHT_ONE = 2**15  # a window's weight in grad_input, where counts differ


@dataclass(frozen=True, slots=True)
class AvgPool2dAttrs:
    """Input: x."""

    window: WindowAttrs
    count_include_pad: bool = True


@dataclass(frozen=True, slots=True)
class AvgPool2dInt8Attrs:
    """Input: x; output: y. `requant.multipliers`: [0] if count_include_pad, else [count - 1]."""

    window: WindowAttrs
    count_include_pad: bool
    requant: RequantAttrs


@dataclass(frozen=True, slots=True)
class AvgPool2dGradAttrs(GradInputAttrs):
    """Inputs: grad_output, addend or "", mask or ""."""

    count_include_pad: bool = True


def counts(window: WindowAttrs, in_h: int, in_w: int, include_pad: bool) -> Array:
    """Elements under each window, int64[out_h, out_w]."""
    inside = np.ones((1, in_h, in_w, 1), np.int64)
    view = patches(pad_map(inside, window), window)
    if include_pad:
        return np.full(view.shape[1:3], window.kernel[0] * window.kernel[1], np.int64)
    return view.sum(axis=(0, 3, 4, 5))


def infer(attrs: AvgPool2dAttrs, types: Sequence[TensorType]) -> TensorType:
    """Output type."""
    _, in_h, in_w, channels = types[0].shape
    return TensorType((1, *attrs.window.out_size(in_h, in_w), channels), "float32")


def sums(x: Array, window: WindowAttrs) -> Array:
    """Sum over each window, [N, out_h, out_w, C]."""
    out_h, out_w = window.out_size(x.shape[1], x.shape[2])
    padded = pad_map(x, window)
    out = np.zeros((x.shape[0], out_h, out_w, x.shape[3]), x.dtype)
    for _, _, rows, cols in taps(window, out_h, out_w):
        out += padded[:, rows, cols]
    return out


def float_reference(op: Op, inputs: Sequence[Array]) -> Array:
    """Real average."""
    x, attrs = inputs[0], op.attrs
    count = counts(attrs.window, x.shape[1], x.shape[2], attrs.count_include_pad)
    return sums(x, attrs.window) / count[..., None]


def quantize(op: Op, quantizer: Quantizer) -> None:
    """One avg_pool2d_int8."""
    attrs: AvgPool2dAttrs = op.attrs
    elems = attrs.window.kernel[0] * attrs.window.kernel[1]
    include_pad = attrs.count_include_pad or not any(attrs.window.pads)
    per_count = [elems] if include_pad else list(range(1, elems + 1))
    requant = make_requant(
        quantizer.quant(op.inputs[0]),
        quantizer.quant(op.outputs[0]),
        [1.0 / count for count in per_count],
        (-math.inf, math.inf),
    )
    int_attrs = AvgPool2dInt8Attrs(attrs.window, include_pad, requant)
    quantizer.builder.op("avg_pool2d_int8", op.name, op.inputs, op.outputs, int_attrs)


def average_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """AveragePool in one or two dimensions."""
    window = window_from_onnx(node, importer, window_kernel(node))
    x = importer.type_of(node.inputs[0])
    include_pad = bool(node.attrs.get("count_include_pad", 0)) and any(window.pads)
    if include_pad and node.attrs.get("ceil_mode", 0):
        unpadded = dict(node.attrs, ceil_mode=0)
        if window != window_from_onnx(replace(node, attrs=unpadded), importer, window_kernel(node)):
            raise importer.fail(
                "ceil_mode = 1 with count_include_pad = 1 has windows beyond the padding",
                "export with ceil_mode = 0 or count_include_pad = 0",
            )
    if not include_pad and counts(window, x.shape[1], x.shape[2], False).min() < 1:
        raise importer.fail("a window lies in the padding alone")
    importer.emit("avg_pool2d", node.inputs[:1], AvgPool2dAttrs(window, include_pad))


def window_kernel(node: OnnxNode) -> tuple[int, ...]:
    """kernel_shape."""
    return tuple(node.attrs.get("kernel_shape", ()))


def global_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """GlobalAveragePool."""
    spatial_rank(node, importer)
    shape = importer.type_of(node.inputs[0]).shape
    importer.emit("avg_pool2d", node.inputs[:1], AvgPool2dAttrs(WindowAttrs((shape[1], shape[2]))))


def mean_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """ReduceMean."""
    reduce_from_onnx(node, importer, "avg_pool2d", lambda window, x: [AvgPool2dAttrs(window)])


def reduce_from_onnx(
    node: OnnxNode,
    importer: Importer,
    kind: str,
    pool: Callable[[WindowAttrs, TensorType], Sequence[Any]],
) -> None:
    """A reduction as poolings over whole axes; `pool`: their attributes. An axis that is kept
    becomes the channels, the others height and width, whichever the file reduces."""
    x = node.inputs[0]
    layout = importer.layout(node.inputs[0])
    axes = node.attrs.get("axes")
    if len(node.inputs) > 1 and node.inputs[1]:
        axes = importer.constant(node.inputs[1])
        if axes is None:
            raise importer.fail("its axes must be constant")
    rank = len(layout.shape)
    listed = [] if axes is None else np.asarray(axes).reshape(-1).tolist()
    if not listed and not node.attrs.get("noop_with_empty_axes", 0):
        listed = list(range(rank))
    try:
        reduced = axes_of({"axes": listed}, None, rank)
    except ValueError as error:
        raise importer.fail(str(error)) from error
    keepdims = node.attrs.get("keepdims", 1)
    result = [
        1 if axis in reduced else size
        for axis, size in enumerate(layout.shape)
        if keepdims or axis not in reduced
    ]
    if math.prod(result) == 1:  # a number: of one column
        importer.reshape(x, (1, 1, math.prod(layout.shape), 1))
        x, reduced = node.outputs[0], (2,)
        layout = importer.layout(x)
    kept = [axis for axis in range(len(layout.shape)) if axis not in reduced]
    moving = [axis for axis in layout.moving if axis in kept]
    order = layout.memory
    if not layout.moving or layout.moving[-1] in reduced:
        last = moving[-1] if moving else kept[-1]
        order = layout.with_last(last)
        if layout.ordered(order).axis(last) < 3:
            raise importer.fail(
                f"the axes {reduced} of shape {list(layout.shape)} leave no channels"
            )
    stored = layout.ordered(order)
    shape = stored.map_shape
    places = {stored.axis(axis) for axis in reduced}
    kernel = tuple(size if axis in places else 1 for axis, size in enumerate(shape))
    window = WindowAttrs((kernel[1], kernel[2]), (kernel[1], kernel[2]))
    for attrs in pool(window, TensorType(shape, "float32")):
        importer.emit(kind, [x], attrs, order)
        x = node.outputs[0]
    importer.reshape(x, result)


# ---- integer ops --------------------------------------------------------------------------


def _per_window(op: Op, x_shape: Sequence[int], table: Sequence[int]) -> Array:
    """The table entry of each window, [out_h, out_w, 1]."""
    if op.attrs.count_include_pad:
        return np.asarray(table[0])
    count = counts(op.attrs.window, x_shape[1], x_shape[2], False)
    return np.asarray(table)[count - 1][..., None]


def reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int8 averages."""
    x, requant = inputs[0], op.attrs.requant
    acc = sums(x.astype(np.int64) - requant.input_zero_point, op.attrs.window)
    # The padding is 0 behind the zero point, so it adds nothing.
    multipliers = _per_window(op, x.shape, requant.multipliers)
    value = arith.requantize(acc, multipliers, requant.pre_shift) + requant.output_zero_point
    return [np.clip(value, requant.act_min, requant.act_max).astype(np.int8)]


def kernel_call(op: Op, graph: Graph) -> KernelCall:
    """tte_avg_pool2d_int8."""
    x, y = op.inputs[0], op.outputs[0]
    kernel_params = params.AvgPool2dParams(
        window=op.attrs.window.params(graph[x].type, graph[y].type),
        requant=op.attrs.requant.params(),
        count_include_pad=int(op.attrs.count_include_pad),
    )
    table = TableArg("multipliers", "int32_t", op.attrs.requant.multipliers)
    return KernelCall(f"tte_{op.kind}", kernel_params, (TensorArg(x), table, TensorArg(y)))


def gradient(op: Op, grad: str, backward: Backward) -> None:
    """Every element gets its windows' gradients over their counts, times s_x / s_y."""
    attrs: AvgPool2dInt8Attrs = op.attrs
    shape = backward.graph[op.inputs[0]].type.shape
    if attrs.count_include_pad:
        factor = attrs.requant.factor[0]
    else:
        factor = attrs.requant.factor[0] / COUNT_WEIGHT_ONE  # [0]: a count of one

    def emit(scale: GradScale, addend: str, mask: str, output: str) -> None:
        backward.builder.op(
            "avg_pool2d_grad_input_int8",
            f"{op.name}.grad_input",
            [grad, addend, mask],
            [output],
            AvgPool2dGradAttrs(
                attrs.window, shape, scale, count_include_pad=attrs.count_include_pad
            ),
        )

    backward.contribute(op.inputs[0], Contribution((factor,), emit=emit))


def count_weights(op: Op) -> tuple[int, ...]:
    """2^15 / count, or 1 where all counts are equal."""
    if op.attrs.count_include_pad:
        return (1,)
    elems = op.attrs.window.kernel[0] * op.attrs.window.kernel[1]
    return tuple(math.floor(COUNT_WEIGHT_ONE / count + 0.5) for count in range(1, elems + 1))


def grad_input_sums(op: Op, inputs: Sequence[Array]) -> Array:
    """sum over the windows that cover an element of their gradient times weight."""
    attrs: AvgPool2dGradAttrs = op.attrs
    grad = inputs[0]
    _, in_h, in_w, channels = attrs.shape
    grad = grad.reshape(-1, *attrs.window.out_size(in_h, in_w), channels)
    weighted = grad * _per_window(op, attrs.shape, count_weights(op)).astype(grad.dtype)
    top, left, bottom, right = attrs.window.pads
    n, out_h, out_w, _ = grad.shape
    padded = np.zeros((n, in_h + top + bottom, in_w + left + right, channels), grad.dtype)
    for _, _, rows, cols in taps(attrs.window, out_h, out_w):
        padded[:, rows, cols] += weighted
    return unpad(padded, attrs.window, in_h, in_w)


def grad_input_reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int8 grad_input and its saturations."""
    grad, addend, mask = inputs
    return grad_epilogue(op, grad_input_sums(op, [grad.astype(np.float64)]), addend, mask)


def grad_input_call(op: Op, graph: Graph) -> KernelCall:
    """tte_avg_pool2d_grad_input_int8."""
    grad = op.inputs[0]
    kernel_params = params.AvgPool2dGradInputParams(
        window=op.attrs.window.params(graph[op.outputs[0]].type, graph[grad].type),
        pre_shift=op.attrs.scale.pre_shift,
        count_include_pad=int(op.attrs.count_include_pad),
    )
    table = TableArg("count_weights", "int32_t", count_weights(op))
    return grad_call(op, kernel_params, [grad], (table,))


FAMILY = Family(
    float_ops=(
        FloatOp(
            "avg_pool2d",
            infer,
            float_reference,
            quantize,
            {
                "AveragePool": average_from_onnx,
                "GlobalAveragePool": global_from_onnx,
                "ReduceMean": mean_from_onnx,
            },
            kernels=("avg_pool2d_int8",),
            grad_kernels=("avg_pool2d_grad_input_int8",),
        ),
    ),
    integer_ops=(
        IntegerOp(
            "avg_pool2d_int8",
            reference,
            kernel_call,
            gradient=gradient,
            output_factors=lambda op: (1.0,),
        ),
        IntegerOp(
            "avg_pool2d_grad_input_int8",
            grad_input_reference,
            grad_input_call,
            accumulate=grad_input_sums,
            in_place=lambda op: (1,),
        ),
    ),
    samples=(
        Sample("global", "avg_pool2d", AvgPool2dAttrs(WindowAttrs((4, 3))), ((1, 4, 3, 7),)),
        Sample("2x2", "avg_pool2d", AvgPool2dAttrs(WindowAttrs((2, 2), (2, 2))), ((1, 6, 5, 3),)),
        Sample(
            "overlapping, padding counted",
            "avg_pool2d",
            AvgPool2dAttrs(WindowAttrs((3, 3), (2, 2), pads=(1, 1, 1, 1))),
            ((1, 7, 6, 4),),
        ),
        Sample(
            "overlapping, padding not counted",
            "avg_pool2d",
            AvgPool2dAttrs(WindowAttrs((3, 3), pads=(1, 1, 1, 1)), False),
            ((1, 5, 6, 2),),
        ),
    ),
)
