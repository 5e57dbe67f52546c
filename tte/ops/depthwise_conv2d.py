# SPDX-License-Identifier: Apache-2.0
"""Depthwise 2-D convolution: every channel by itself; NHWC, weights [C, kernel_h, kernel_w, 1].

acc[c, p] = bias[c] + sum w[c, i, j] (x[p * stride + (i, j) * dilation - pad, c] - z_x). The
kernel works on one channel's plane at a time, so it may run in place (docs/kernels.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tte.ir import Graph, Op, TensorType
from tte.ops import params
from tte.ops.conv2d import (
    Conv2dAttrs,
    biased_and_clamped,
    check_bias,
    output_factors,
)
from tte.ops.conv2d import quantize as quantize_conv2d
from tte.ops.quantized import (
    add_updates,
    contribute_grad_input,
    grad_call,
    grad_epilogue,
    weight_update_call,
    weight_update_reference,
)
from tte.ops.spec import (
    Array,
    Backward,
    Family,
    FloatOp,
    IntegerOp,
    KernelCall,
    Quantizer,
    RowsArg,
    Sample,
    ScratchArg,
    TableArg,
    TensorArg,
    as_real,
)
from tte.ops.window import WindowAttrs, hwc, pad_map, taps, unpad

FOUR_PLANES_BYTES = 8192  # at most, to copy four channels at once: tte_planes.h

# ---- sums, on integers or real numbers ----------------------------------------------------


def convolve(x: Array, weight: Array, window: WindowAttrs) -> Array:
    """sum w x over a zero-padded map, tap by tap: [N, out_h, out_w, C]."""
    out_h, out_w = window.out_size(x.shape[1], x.shape[2])
    padded = pad_map(x, window)
    out = np.zeros((x.shape[0], out_h, out_w, x.shape[3]), np.result_type(x, weight))
    for i, j, rows, cols in taps(window, out_h, out_w):
        out += padded[:, rows, cols] * weight[:, i, j, 0]
    return out


def convolve_transposed(
    grad: Array, weight: Array, window: WindowAttrs, in_shape: tuple[int, ...]
) -> Array:
    """The adjoint of convolve() in x: [N, in_h, in_w, C]."""
    n, out_h, out_w, channels = grad.shape
    top, left, bottom, right = window.pads
    _, in_h, in_w, _ = in_shape
    padded = np.zeros((n, in_h + top + bottom, in_w + left + right, channels), grad.dtype)
    for i, j, rows, cols in taps(window, out_h, out_w):
        padded[:, rows, cols] += grad * weight[:, i, j, 0]
    return unpad(padded, window, in_h, in_w)


def correlate(x: Array, grad: Array, window: WindowAttrs) -> Array:
    """The adjoint of convolve() in the weights: [C, kernel_h, kernel_w, 1]."""
    _, out_h, out_w, channels = grad.shape
    padded = pad_map(x, window)
    out = np.empty((channels, *window.kernel, 1), np.result_type(x, grad))
    for i, j, rows, cols in taps(window, out_h, out_w):
        out[:, i, j, 0] = np.einsum("nhwc,nhwc->c", padded[:, rows, cols], grad)
    return out


# ---- float op -----------------------------------------------------------------------------


def infer(attrs: Conv2dAttrs, types: Sequence[TensorType]) -> TensorType:
    """Output type; ValueError where the weights do not fit the input."""
    _, in_h, in_w, in_c = types[0].shape
    if types[1].shape != (in_c, *attrs.window.kernel, 1):
        raise ValueError(f"weights {types[1]} do not fit input {types[0]}")
    check_bias(types)
    return TensorType((1, *attrs.window.out_size(in_h, in_w), in_c), "float32")


def float_reference(op: Op, inputs: Sequence[Array]) -> Array:
    """Real depthwise convolution with its clamp."""
    return biased_and_clamped(op, convolve(inputs[0], inputs[1], op.attrs.window), inputs[2:])


def quantize(op: Op, quantizer: Quantizer) -> None:
    """One depthwise_conv2d_int8."""
    quantize_conv2d(op, quantizer, "depthwise_conv2d_int8")


# ---- integer ops --------------------------------------------------------------------------


def reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int8 output and mask."""
    x, weight, bias = inputs
    real_weight = as_real(weight, 256.0 * 128 * weight[0].size)
    centred = x.astype(real_weight.dtype) - op.attrs.requant.input_zero_point
    acc = np.rint(convolve(centred, real_weight, op.attrs.window)).astype(np.int64) + bias
    return op.attrs.requant.apply(acc)


def kernel_call(op: Op, graph: Graph) -> KernelCall:
    """tte_depthwise_conv2d_int8 over all rows."""
    x, weight, bias = op.inputs
    y, mask = op.outputs
    window = op.attrs.window.params(graph[x].type, graph[y].type)
    return KernelCall(
        f"tte_{op.kind}",
        params.Conv2dParams(window=window, requant=op.attrs.requant.params()),
        (
            TensorArg(x),
            TensorArg(weight),
            TensorArg(bias),
            TableArg("multipliers", "int32_t", op.attrs.requant.multipliers),
            RowsArg(window.out_h),
            TensorArg(y),
            TensorArg(mask),
            ScratchArg("int16_t"),
        ),
    )


def planes_scratch_bytes(rows: int, cols: int, kernel_w: int, out_w: int, mask_rows: int) -> int:
    """int16 planes of four channels, of one where these are too large; then int32 sums of a row of
    outputs or more, or four channels of a row and mask bits of all."""
    plane = _plane_bytes(rows, cols, kernel_w)
    whole_w = _up(out_w, 4)
    planes = 4 * plane if 4 * plane <= FOUR_PLANES_BYTES else plane
    return planes + max(4 * max(64, whole_w), (4 + mask_rows) * whole_w)


def _plane_bytes(rows: int, cols: int, kernel_w: int) -> int:
    return 2 * rows * _up(cols + kernel_w // 2 % 2, 2)


def has_four_planes(op: Op, graph: Graph, out_rows: int) -> bool:
    """Whether so many output rows have room for four channels at a time."""
    _, out_w, _ = hwc(graph[op.outputs[0]].type)
    rows, cols = op.attrs.window.span(out_rows, _up(out_w, 4))
    kernel_w = op.attrs.window.kernel[1]
    return 4 * _plane_bytes(int(rows), int(cols), kernel_w) <= FOUR_PLANES_BYTES


def scratch_bytes(op: Op, graph: Graph) -> int:
    """What the outputs look at, a multiple of four of them in a row."""
    out_h, out_w, _ = hwc(graph[op.outputs[0]].type)
    rows, cols = op.attrs.window.span(out_h, _up(out_w, 4))
    mask_rows = out_h if op.outputs[1] else 0
    return planes_scratch_bytes(int(rows), int(cols), op.attrs.window.kernel[1], out_w, mask_rows)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def macs(op: Op, graph: Graph) -> int:
    """One per output element and tap."""
    kernel_h, kernel_w = op.attrs.window.kernel
    return graph[op.outputs[0]].type.elems * int(kernel_h) * int(kernel_w)


def gradient(op: Op, grad: str, backward: Backward) -> None:
    """grad_input, and the updates of weight and bias."""
    x_shape = backward.graph[op.inputs[0]].type.shape
    window = op.attrs.window
    contribute_grad_input(op, "depthwise_conv2d_grad_input_int8", grad, x_shape, window, backward)
    kind = "depthwise_conv2d_grad_weight_int8"
    add_updates(op, grad, backward, kind, window, x_shape[-1])


def grad_input_sums(op: Op, inputs: Sequence[Array]) -> Array:
    """sum over taps of w D."""
    grad, weight = inputs[:2]
    return convolve_transposed(grad, weight.astype(grad.dtype), op.attrs.window, op.attrs.shape)


def grad_input_reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int8 grad_input and its saturations."""
    grad, weight, addend, mask = inputs
    return grad_epilogue(op, grad_input_sums(op, [grad.astype(np.float64), weight]), addend, mask)


def grad_input_call(op: Op, graph: Graph) -> KernelCall:
    """tte_depthwise_conv2d_grad_input_int8 with its scratch."""
    grad, weight = op.inputs[:2]
    window = op.attrs.window.params(graph[op.outputs[0]].type, graph[grad].type)
    call = grad_call(
        op,
        params.Conv2dGradInputParams(window=window, pre_shift=op.attrs.scale.pre_shift),
        [grad, weight],
    )
    return KernelCall(call.symbol, call.params, (*call.args, ScratchArg("int32_t")))


def grad_input_scratch_bytes(in_h: int, in_w: int, kernel_h: int, kernel_w: int) -> int:
    """int32 sums of one channel, or the planes that its transposed convolution looks at; behind
    those of four channels their int16 gradients, of a band where the map has no room for that."""
    rows, cols, whole_w = in_h + kernel_h - 1, _up(in_w, 4) + kernel_w - 1, _up(in_w, 4)
    planes = 4 * _plane_bytes(rows, cols, kernel_w)
    four = planes + 4 * 2 * in_h * whole_w if planes <= FOUR_PLANES_BYTES else FOUR_PLANES_BYTES
    return max(4 * in_h * in_w, planes_scratch_bytes(rows, cols, kernel_w, in_w, 0), four)


def grad_input_scratch(op: Op, graph: Graph) -> int:
    """The planes and maps of a channel or four."""
    in_h, in_w, _ = hwc(graph[op.outputs[0]].type)
    return grad_input_scratch_bytes(in_h, in_w, *op.attrs.window.kernel)


def grad_macs(op: Op, graph: Graph) -> int:
    """The same as the forward layer's."""
    grad = op.inputs[0] if "grad_input" in op.kind else op.inputs[1]
    kernel_h, kernel_w = op.attrs.window.kernel
    return graph[grad].type.elems * int(kernel_h) * int(kernel_w)


def grad_weight_reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """Updated weight and residual."""
    x, grad, *state = inputs
    total = np.rint(real_grad_weight(op, [x, grad.astype(np.float64)])).astype(np.int64)
    return weight_update_reference(op.attrs, total, state)


def real_grad_weight(op: Op, inputs: Sequence[Array]) -> Array:
    """dL/dw_q for real dL/d(acc)."""
    x, grad = inputs[:2]
    centred = x.astype(grad.dtype) - op.attrs.input_zero_point
    return correlate(centred, grad, op.attrs.window)


def grad_weight_call(op: Op, graph: Graph) -> KernelCall:
    """tte_depthwise_conv2d_grad_weight_int8."""
    x, grad = (graph[name].type for name in op.inputs[:2])
    return weight_update_call(op, op.attrs.window.params(x, grad), "int16_t")


def _is_portable(window: params.Window) -> bool:
    kernel, stride = (window.kernel_h, window.kernel_w), (window.stride_h, window.stride_w)
    return max(kernel) > 7 or max(stride) > 2


def _tap_reach(window: params.Window) -> int | None:
    """How far taps are off to the sides, on maps of at most 4 columns that have no border there."""
    reach = max(window.pad_left, _last_offset(window), 1)
    near = max(window.out_w, window.in_w / window.stride_w) <= 4 and reach <= 3
    return reach if near and window.stride_h == window.stride_w else None


def _last_offset(window: params.Window) -> int:
    return (window.kernel_w - 1) * window.dilation_w - window.pad_left


def tap_planes_scratch_bytes(window: params.Window) -> int:
    """int16 planes of four channels, of one where these are too large: inputs, and gradients in
    blocks of columns, each behind a row of zeros; none for kernels that stay portable."""
    if _is_portable(window):
        return 0
    last = (window.kernel_h - 1) * window.dilation_h - window.pad_top
    rows = min(window.in_h, max((window.out_h - 1) * window.stride_h + last + 1, 1))
    stride = window.stride_w
    block, inputs = 4, 4 * stride * rows
    if _tap_reach(window) is None:
        low = -window.pad_left // stride
        reach = window.out_w + max(_last_offset(window) // stride, 0)
        pitch = _up(max(reach, min(reach, -(-window.in_w // stride)) - low), 2)
        block, inputs = 8, stride * (4 + 2 * _up(-low, 2) + rows * pitch) + 16 * (stride - 1)
    channel = 2 * (inputs + _up(window.out_w, block) * (1 + window.out_h))
    return 4 * channel if 4 * channel <= FOUR_PLANES_BYTES else channel


def tap_kernels(window: params.Window) -> set[str]:
    """The routines of armv7em/tte_taps.h that tte_depthwise_conv2d_grad_weight_int8() calls."""
    if _is_portable(window):
        return set()
    found: set[str] = set()
    ending = "_2" if window.stride_w == 2 else ""
    if window.stride_w == 2:
        found = {"tte_taps_split_channel", "tte_taps_split_four_channels"}
    near = _tap_reach(window)
    if near is not None:
        return found | {f"tte_taps_near_{2 * near + 1}{ending}"}
    offsets = [k * window.dilation_w - window.pad_left for k in range(window.kernel_w)]
    while offsets:
        for reach in (1, 2, 3):
            center = (offsets[0] + reach) // (2 * window.stride_w) * (2 * window.stride_w)
            if center + reach >= offsets[-1]:
                break
        found.add(f"tte_taps_{2 * reach + 1}{ending}")
        offsets = [offset for offset in offsets if offset > center + reach]
    return found


def grad_weight_scratch(op: Op, graph: Graph) -> int:
    """The planes of a channel or four."""
    x, grad = op.inputs[:2]
    return tap_planes_scratch_bytes(op.attrs.window.params(graph[x].type, graph[grad].type))


def _samples() -> tuple[Sample, ...]:
    def case(title: str, size: tuple[int, int], channels: int, window: WindowAttrs) -> Sample:
        attrs = Conv2dAttrs(window)
        weights = ((channels, *window.kernel, 1), (channels,))
        return Sample(title, "depthwise_conv2d", attrs, ((1, *size, channels),), weights)

    return (
        case("3x3", (6, 7), 5, WindowAttrs((3, 3), pads=(1, 1, 1, 1), groups=5)),
        case("3x3 stride 2", (8, 8), 4, WindowAttrs((3, 3), (2, 2), pads=(1, 1, 1, 1), groups=4)),
        case("7x7 stride 2", (8, 9), 3, WindowAttrs((7, 7), (2, 2), pads=(3, 3, 3, 3), groups=3)),
        case("5x5", (4, 4), 9, WindowAttrs((5, 5), pads=(2, 2, 2, 2), groups=9)),
        case("no padding, dilated", (9, 8), 2, WindowAttrs((3, 2), dilation=(2, 3), groups=2)),
        case(
            "asymmetric pads", (5, 6), 8, WindowAttrs((4, 3), (2, 1), pads=(0, 2, 1, 1), groups=8)
        ),
    )


FAMILY = Family(
    float_ops=(
        FloatOp(
            "depthwise_conv2d",
            infer,
            float_reference,
            quantize,
            kernels=("depthwise_conv2d_int8",),
            grad_kernels=(
                "depthwise_conv2d_grad_input_int8",
                "depthwise_conv2d_grad_weight_int8",
                "grad_bias_int32",
            ),
        ),
    ),
    integer_ops=(
        IntegerOp(
            "depthwise_conv2d_int8",
            reference,
            kernel_call,
            gradient=gradient,
            output_factors=output_factors,
            scratch_bytes=scratch_bytes,
            in_place=lambda op: (0,),
            macs=macs,
        ),
        IntegerOp(
            "depthwise_conv2d_grad_input_int8",
            grad_input_reference,
            grad_input_call,
            accumulate=grad_input_sums,
            scratch_bytes=grad_input_scratch,
            in_place=lambda op: (0, 2),
            macs=grad_macs,
        ),
        IntegerOp(
            "depthwise_conv2d_grad_weight_int8",
            grad_weight_reference,
            grad_weight_call,
            real_gradient=real_grad_weight,
            scratch_bytes=grad_weight_scratch,
            macs=grad_macs,
        ),
    ),
    samples=_samples(),
)
