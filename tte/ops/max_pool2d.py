# SPDX-License-Identifier: Apache-2.0
"""Max pooling, windowed and global; NHWC, in the codes of the input: nothing is rounded.

While training, one byte an output remembers which element of its window was the first maximum.
That is all the gradient needs, and less than the input it would otherwise be found in: a 2x2
pooling with stride 2 keeps a quarter of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tte.ir import Graph, Op, TensorType
from tte.ops import params
from tte.ops.avg_pool2d import counts, reduce_from_onnx, window_kernel
from tte.ops.quantized import GradInputAttrs, grad_call, grad_epilogue
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
    ScratchArg,
    TensorArg,
)
from tte.ops.window import WindowAttrs, hwc, pad_map, spatial_rank, taps, unpad, window_from_onnx

MAX_TAPS = 256  # of a window: its index is a byte


@dataclass(frozen=True, slots=True)
class MaxPool2dAttrs:
    """Input: x; integer outputs: y, index (or "")."""

    window: WindowAttrs


def infer(attrs: MaxPool2dAttrs, types: Sequence[TensorType]) -> TensorType:
    """Output type."""
    _, in_h, in_w, channels = types[0].shape
    return TensorType((1, *attrs.window.out_size(in_h, in_w), channels), "float32")


def maxima(x: Array, window: WindowAttrs, lowest: float) -> tuple[Array, Array]:
    """The maximum of each window and its first place in it; padding is `lowest`."""
    out_h, out_w = window.out_size(x.shape[1], x.shape[2])
    padded = pad_map(x, window, lowest)
    inside = pad_map(np.ones((1, *x.shape[1:3], 1), bool), window, False)
    best = np.full((len(x), out_h, out_w, x.shape[3]), lowest, x.dtype)
    index = np.full(best.shape, -1, np.int64)
    for i, j, rows, cols in taps(window, out_h, out_w):
        value = padded[:, rows, cols]
        better = ((value > best) | (index < 0)) & inside[:, rows, cols]
        best = np.where(better, value, best)
        index = np.where(better, i * window.kernel[1] + j, index)
    return best, index


def float_reference(op: Op, inputs: Sequence[Array]) -> Array:
    """Real maxima."""
    return maxima(inputs[0], op.attrs.window, -np.inf)[0]


def quantize(op: Op, quantizer: Quantizer) -> None:
    """One max_pool2d_int8."""
    quantizer.builder.op(
        "max_pool2d_int8", op.name, op.inputs, [op.outputs[0], ""], MaxPool2dAttrs(op.attrs.window)
    )


# ---- nodes --------------------------------------------------------------------------------


def max_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """MaxPool in one or two dimensions; one of more than 256 elements by columns, then rows."""
    window = window_from_onnx(node, importer, window_kernel(node))
    x = importer.type_of(node.inputs[0])
    if counts(window, x.shape[1], x.shape[2], False).min() < 1:
        raise importer.fail("a window lies in the padding alone")
    _emit(node, importer, _stages(window, x), node.inputs[0])


def global_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """GlobalMaxPool."""
    spatial_rank(node, importer)
    x = importer.type_of(node.inputs[0])
    _emit(node, importer, _stages(WindowAttrs((x.shape[1], x.shape[2])), x), node.inputs[0])


def reduce_max_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """ReduceMax."""
    reduce_from_onnx(
        node,
        importer,
        "max_pool2d",
        lambda window, x: [MaxPool2dAttrs(stage) for stage in _stages(window, x)],
    )


def _stages(window: WindowAttrs, x: TensorType) -> list[WindowAttrs]:
    """Poolings one after the other, each with at most 256 elements under a window; the first of
    equal maxima stays the first."""
    if window.kernel[0] * window.kernel[1] <= MAX_TAPS:
        return [window]
    if window.kernel[0] > 1 and window.kernel[1] > 1:
        rows, cols = (
            replace(
                window,
                kernel=_only(window.kernel, axis),
                stride=_only(window.stride, axis),
                dilation=_only(window.dilation, axis),
                pads=(*_only(window.pads[:2], axis, 0), *_only(window.pads[2:], axis, 0)),
            )
            for axis in (0, 1)
        )
        between = infer(MaxPool2dAttrs(cols), [x])
        return _stages(cols, x) + _stages(rows, between)
    axis = 0 if window.kernel[0] > 1 else 1
    whole = window.out_size(x.shape[1], x.shape[2])[axis] == 1
    if not whole or any(window.pads) or window.dilation[axis] > 1:
        return [window]  # an error, see _emit
    kernel = _only((MAX_TAPS, MAX_TAPS), axis)
    part = WindowAttrs(kernel, kernel).with_ceil(x.shape[1], x.shape[2])
    between = infer(MaxPool2dAttrs(part), [x])
    rest = replace(window, kernel=_only(between.shape[1:3], axis))
    return [part, *_stages(rest, between)]


def _only(values: Sequence[int], axis: int, other: int = 1) -> tuple[int, int]:
    return (values[0], other) if axis == 0 else (other, values[1])


def _emit(node: OnnxNode, importer: Importer, stages: Sequence[WindowAttrs], x: str) -> None:
    for window in stages:
        if window.kernel[0] * window.kernel[1] > MAX_TAPS:
            raise importer.fail(
                f"its window of {window.kernel[0]}x{window.kernel[1]} is too large",
                f"windows up to {MAX_TAPS} elements a side are supported, or the whole map",
            )
        importer.emit("max_pool2d", [x], MaxPool2dAttrs(window))
        x = node.outputs[0]


# ---- integer ops --------------------------------------------------------------------------


def reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int8 maxima, uint8 indices."""
    best, index = maxima(inputs[0], op.attrs.window, -128)
    return [best.astype(np.int8), index.astype(np.uint8)]


def kernel_call(op: Op, graph: Graph) -> KernelCall:
    """tte_max_pool2d_int8."""
    x, y = op.inputs[0], op.outputs[0]
    kernel_params = params.MaxPool2dParams(op.attrs.window.params(graph[x].type, graph[y].type))
    args = (TensorArg(x), TensorArg(y), TensorArg(op.outputs[1]))
    return KernelCall(f"tte_{op.kind}", kernel_params, args)


def gradient(op: Op, grad: str, backward: Backward) -> None:
    """Each output's gradient goes to its first maximum."""
    window, index = op.attrs.window, op.outputs[1]
    shape = backward.graph[op.inputs[0]].type.shape

    def emit(scale: GradScale, addend: str, mask: str, output: str) -> None:
        backward.builder.op(
            "max_pool2d_grad_input_int8",
            f"{op.name}.grad_input",
            [grad, index, addend, mask],
            [output],
            GradInputAttrs(window, shape, scale),
        )

    backward.contribute(op.inputs[0], Contribution((1.0,), emit=emit))


def grad_input_sums(op: Op, inputs: Sequence[Array]) -> Array:
    """sum of the gradients of the windows whose maximum an element is."""
    grad, index = inputs
    window: WindowAttrs = op.attrs.window
    _, in_h, in_w, channels = op.attrs.shape
    top, left, bottom, right = window.pads
    n, out_h, out_w, _ = grad.shape
    padded = np.zeros((n, in_h + top + bottom, in_w + left + right, channels), grad.dtype)
    for i, j, rows, cols in taps(window, out_h, out_w):
        padded[:, rows, cols] += np.where(index == i * window.kernel[1] + j, grad, 0)
    return unpad(padded, window, in_h, in_w)


def grad_input_reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int8 grad_input and its saturations."""
    grad, index, addend, mask = inputs
    sums = grad_input_sums(op, [grad.astype(np.int64), index])
    return grad_epilogue(op, sums, addend, mask)


def grad_input_call(op: Op, graph: Graph) -> KernelCall:
    """tte_max_pool2d_grad_input_int8 with its scratch."""
    grad, index = op.inputs[:2]
    window = op.attrs.window.params(graph[op.outputs[0]].type, graph[grad].type)
    kernel_params = params.MaxPool2dGradInputParams(window, op.attrs.scale.pre_shift)
    call = grad_call(op, kernel_params, [grad, index])
    return KernelCall(call.symbol, call.params, (*call.args, ScratchArg("int32_t")))


def grad_input_scratch(op: Op, graph: Graph) -> int:
    """int32 per channel."""
    return 4 * hwc(graph[op.outputs[0]].type)[2]


def _samples() -> tuple[Sample, ...]:
    def case(title: str, size: tuple[int, int], channels: int, window: WindowAttrs) -> Sample:
        return Sample(title, "max_pool2d", MaxPool2dAttrs(window), ((1, *size, channels),))

    return (
        case("2x2", (6, 5), 3, WindowAttrs((2, 2), (2, 2))),
        case("overlapping, padded", (7, 6), 4, WindowAttrs((3, 3), (2, 2), pads=(1, 1, 1, 1))),
        case("dilated", (8, 7), 2, WindowAttrs((2, 3), dilation=(3, 2), pads=(0, 1, 2, 1))),
        case("series", (1, 15), 5, WindowAttrs((1, 4), (1, 2))),
        case("global", (4, 3), 7, WindowAttrs((4, 3))),
    )


FAMILY = Family(
    float_ops=(
        FloatOp(
            "max_pool2d",
            infer,
            float_reference,
            quantize,
            {
                "MaxPool": max_from_onnx,
                "GlobalMaxPool": global_from_onnx,
                "ReduceMax": reduce_max_from_onnx,
            },
            keeps_quant=True,
            kernels=("max_pool2d_int8",),
            grad_kernels=("max_pool2d_grad_input_int8",),
        ),
    ),
    integer_ops=(
        IntegerOp(
            "max_pool2d_int8",
            reference,
            kernel_call,
            gradient=gradient,
            output_factors=lambda op: (1.0,),
            saved="uint8",
        ),
        IntegerOp(
            "max_pool2d_grad_input_int8",
            grad_input_reference,
            grad_input_call,
            accumulate=grad_input_sums,
            scratch_bytes=grad_input_scratch,
            in_place=lambda op: (2,),
        ),
    ),
    samples=_samples(),
)
