# SPDX-License-Identifier: Apache-2.0
"""Convolution in one or two dimensions: any kernel, stride, padding, dilation and groups; NHWC,
weights OHWI.

acc[o, p] = bias[o] + sum w[o, i, j, c] (x[p * stride + (i, j) * dilation - pad, c] - z_x).
grad_input is the transposed convolution of dL/d(acc), grad_weight the correlation of x and
dL/d(acc), applied at once (docs/numerics.md, sections 1 to 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Graph, Op, TensorType
from tte.ops import params
from tte.ops.quantized import (
    NO_CLAMP,
    RequantAttrs,
    add_updates,
    contribute_grad_input,
    exact,
    grad_call,
    grad_epilogue,
    make_requant,
    merged,
    quantize_weights,
    weight_update_call,
    weight_update_reference,
)
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
    RowsArg,
    Sample,
    ScratchArg,
    TableArg,
    TensorArg,
)
from tte.ops.window import (
    WindowAttrs,
    as_map,
    hwc,
    pad_map,
    patches,
    spatial_rank,
    taps,
    unpad,
    window_from_onnx,
)


@dataclass(frozen=True, slots=True)
class Conv2dAttrs:
    """Inputs: x, weight, bias (or ""). `clamp` is a fused relu or relu6, in real numbers."""

    window: WindowAttrs
    clamp: tuple[float, float] = NO_CLAMP


@dataclass(frozen=True, slots=True)
class Conv2dInt8Attrs:
    """Inputs: x, weight, bias, and where only some input channels are trained (`channels`, the
    same in every group) their weights; outputs: y, mask (or "")."""

    window: WindowAttrs
    requant: RequantAttrs
    channels: tuple[int, ...] = ()


# ---- sums, on integers or real numbers ----------------------------------------------------


def convolve(x: Array, weight: Array, window: WindowAttrs) -> Array:
    """sum w x over a zero-padded map: [N, out_h, out_w, O]."""
    view = patches(pad_map(as_map(x), window), window)
    n, out_h, out_w, kernel_h, kernel_w, in_c = view.shape
    groups, out_c = window.groups, weight.shape[0]
    share_in, share_out = in_c // groups, out_c // groups
    out = np.empty((n, out_h, out_w, out_c), np.result_type(x, weight))
    for g in range(groups):
        columns = view[..., g * share_in : (g + 1) * share_in].reshape(n * out_h * out_w, -1)
        rows = weight[g * share_out : (g + 1) * share_out].reshape(share_out, -1)
        result = (columns @ rows.T).reshape(n, out_h, out_w, share_out)
        out[..., g * share_out : (g + 1) * share_out] = result
    return out


def convolve_transposed(
    grad: Array, weight: Array, window: WindowAttrs, in_shape: tuple[int, ...]
) -> Array:
    """The adjoint of convolve() in x: [N, in_h, in_w, in_c] for in_shape [1, in_h, in_w, in_c]."""
    grad = as_map(grad)
    n, out_h, out_w, out_c = grad.shape
    _, in_h, in_w, in_c = in_shape if len(in_shape) == 4 else (1, 1, 1, in_shape[1])
    top, left, bottom, right = window.pads
    groups = window.groups
    share_in, share_out = in_c // groups, out_c // groups
    padded = np.zeros((n, in_h + top + bottom, in_w + left + right, in_c), grad.dtype)
    for i, j, rows, cols in taps(window, out_h, out_w):
        for g in range(groups):
            part = grad[..., g * share_out : (g + 1) * share_out]
            kernel = weight[g * share_out : (g + 1) * share_out, i, j]
            padded[:, rows, cols, g * share_in : (g + 1) * share_in] += part @ kernel
    return unpad(padded, window, in_h, in_w)


def correlate(x: Array, grad: Array, window: WindowAttrs) -> Array:
    """The adjoint of convolve() in the weights: [O, kernel_h, kernel_w, in_c / groups]."""
    view = patches(pad_map(as_map(x), window), window)
    grad = as_map(grad)
    _, _, _, kernel_h, kernel_w, in_c = view.shape
    groups, out_c = window.groups, grad.shape[-1]
    share_in, share_out = in_c // groups, out_c // groups
    flat = grad.reshape(-1, out_c)
    out = np.empty((out_c, kernel_h, kernel_w, share_in), np.result_type(x, grad))
    for g in range(groups):
        columns = view[..., g * share_in : (g + 1) * share_in].reshape(flat.shape[0], -1)
        part = flat[:, g * share_out : (g + 1) * share_out].T @ columns
        out[g * share_out : (g + 1) * share_out] = part.reshape(share_out, kernel_h, kernel_w, -1)
    return out


# ---- float op -----------------------------------------------------------------------------


def infer(attrs: Conv2dAttrs, types: Sequence[TensorType]) -> TensorType:
    """Output type; ValueError where the weights do not fit the input."""
    _, in_h, in_w, in_c = types[0].shape
    out_c, kernel_h, kernel_w, share = types[1].shape
    groups = attrs.window.groups
    if groups < 1 or in_c != share * groups or out_c % groups:
        raise ValueError(f"weights {types[1]} with {groups} groups do not fit input {types[0]}")
    if (kernel_h, kernel_w) != attrs.window.kernel:
        raise ValueError(f"weights {types[1]} do not fit kernel {attrs.window.kernel}")
    check_bias(types)
    return TensorType((1, *attrs.window.out_size(in_h, in_w), out_c), "float32")


def check_bias(types: Sequence[TensorType]) -> None:
    """ValueError where the bias has not one value per output channel."""
    if len(types) > 2 and types[2].shape != types[1].shape[:1]:
        raise ValueError(f"bias {types[2]} does not fit weights {types[1]}")


def float_reference(op: Op, inputs: Sequence[Array]) -> Array:
    """Real convolution with its clamp."""
    return biased_and_clamped(op, convolve(inputs[0], inputs[1], op.attrs.window), inputs[2:])


def biased_and_clamped(op: Op, sums: Array, bias: Sequence[Array]) -> Array:
    """What follows the sums of any convolution."""
    return np.clip(sums + bias[0] if bias else sums, *op.attrs.clamp)


def quantize(op: Op, quantizer: Quantizer, kind: str = "conv2d_int8") -> None:
    """One op of the kind."""
    weight, bias, weight_quant = quantize_weights(quantizer, op)
    requant = make_requant(
        quantizer.quant(op.inputs[0]),
        quantizer.quant(op.outputs[0]),
        weight_quant.scale,
        op.attrs.clamp,
    )
    quantizer.builder.op(
        kind,
        op.name,
        [op.inputs[0], weight, bias],
        [op.outputs[0], ""],
        Conv2dInt8Attrs(op.attrs.window, requant),
    )


def from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Conv in one or two dimensions: depthwise where every channel is its own group."""
    weight = constant_weight(node, importer)
    window = window_from_onnx(node, importer, weight.shape[2:])
    in_c = importer.type_of(node.inputs[0]).shape[3]
    depthwise = window.groups == in_c == weight.shape[0] and in_c > 1
    inputs = [node.inputs[0], importer.weight(node.inputs[1], channel_last, 0)]
    inputs += constant_bias(node, importer)
    importer.emit("depthwise_conv2d" if depthwise else "conv2d", inputs, Conv2dAttrs(window))


def channel_last(weight: Array) -> Array:
    """[O, I, H, W] or [O, I, W] as [O, H, W, I]."""
    return (weight if weight.ndim == 4 else weight[:, :, None]).transpose(0, 2, 3, 1)


def constant_weight(node: OnnxNode, importer: Importer) -> Array:
    """The weights of a convolution; an error where the network computes them."""
    weight = importer.constant(node.inputs[1])
    if weight is None:
        raise importer.fail("its weights are computed by the network; only constants are supported")
    rank = spatial_rank(node, importer)
    if weight.ndim != rank + 2:
        raise importer.fail(
            f"its weights have {weight.ndim} dimensions; with this input they need {rank + 2}"
        )
    declared = tuple(node.attrs.get("kernel_shape", weight.shape[2:]))
    if declared != weight.shape[2:]:
        raise importer.fail(f"kernel_shape {declared} differs from the weights' {weight.shape[2:]}")
    return weight


def constant_bias(node: OnnxNode, importer: Importer) -> list[str]:
    """The bias as an input, if there is one."""
    if len(node.inputs) < 3 or not node.inputs[2]:
        return []
    if importer.constant(node.inputs[2]) is None:
        raise importer.fail("its bias is computed by the network; only constants are supported")
    return [importer.weight(node.inputs[2], lambda b: b, 0)]


# ---- integer ops --------------------------------------------------------------------------


def reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int8 output and mask."""
    x, weight, bias, *trained = inputs
    real_weight, _ = exact(merged(weight, op.attrs.channels, trained))
    centred = x.astype(real_weight.dtype) - op.attrs.requant.input_zero_point
    acc = np.rint(convolve(centred, real_weight, op.attrs.window)).astype(np.int64) + bias
    outputs = op.attrs.requant.apply(acc)
    return [out.reshape(-1, out.shape[-1]) for out in outputs] if x.ndim == 2 else outputs


def kernel_call(op: Op, graph: Graph) -> KernelCall:
    """tte_conv2d_int8 over all rows."""
    x, weight, bias, *trained = op.inputs
    y, mask = op.outputs
    window = op.attrs.window.params(graph[x].type, graph[y].type)
    return KernelCall(
        f"tte_{op.kind}",
        params.Conv2dParams(
            window=window, requant=op.attrs.requant.params(), trained_c=len(op.attrs.channels)
        ),
        (
            TensorArg(x),
            TensorArg(weight),
            *trained_args(op.attrs.channels, trained),
            TensorArg(bias),
            TableArg("multipliers", "int32_t", op.attrs.requant.multipliers),
            RowsArg(window.out_h),
            TensorArg(y),
            TensorArg(mask),
            ScratchArg("int16_t"),
        ),
    )


def trained_args(channels: Sequence[int], trained: Sequence[str]) -> tuple[Arg, Arg]:
    """The trained weights and their input channels, or two times NULL."""
    if not channels:
        return TensorArg(""), TensorArg("")
    return TensorArg(trained[0]), TableArg("channels", "uint16_t", tuple(channels))


def product_scratch_bytes(k: int, columns: int) -> int:
    """What a fast kernel needs for sums of k products, `columns` of them in a row of the result:
    tiles of four columns of int16, two rows of weights, sums (armv7em/tte_tile.h)."""
    return _tiles(k, columns) * (8 * _padded(k) + 32) + 4 * _padded(k) + 44


def grad_product_scratch_bytes(k: int, columns: int) -> int:
    """The same for the gradients of inputs: one more tile for four columns of weights."""
    return (_tiles(k, columns) + 1) * 8 * _padded(k)


def _padded(k: int) -> int:
    return -(-k // 4) * 4


def _tiles(k: int, columns: int) -> int:
    """At most, in a block."""
    small = 4096 // (8 * _padded(k) + 32)
    return min(max(16, small), max(1, 1536 // _padded(k)), -(-columns // 4))


def scratch_bytes(op: Op, graph: Graph) -> int:
    """The product of the weights and the columns under the windows."""
    out_h, out_w, out_c = hwc(graph[op.outputs[0]].type)
    return product_scratch_bytes(graph[op.inputs[1]].type.elems // out_c, out_h * out_w)


def macs(op: Op, graph: Graph) -> int:
    """Multiplications of a forward convolution, padding included."""
    return graph[op.outputs[0]].type.elems * (
        graph[op.inputs[1]].type.elems // graph[op.inputs[1]].type.shape[0]
    )


def output_factors(op: Op) -> tuple[float, ...]:
    """M per output channel."""
    return op.attrs.requant.factor


def gradient(op: Op, grad: str, backward: Backward) -> None:
    """grad_input, and the updates of weight and bias."""
    x_shape = backward.graph[op.inputs[0]].type.shape
    window = op.attrs.window
    contribute_grad_input(op, "conv2d_grad_input_int8", grad, x_shape, window, backward)
    channels = backward.graph[op.inputs[1]].type.shape[0]
    add_updates(op, grad, backward, "conv2d_grad_weight_int8", window, channels)


def grad_input_sums(op: Op, inputs: Sequence[Array]) -> Array:
    """sum_o w D."""
    grad, weight, *trained = inputs
    weight = merged(weight, op.attrs.channels, trained)
    kernel = weight.astype(grad.dtype).reshape(weight.shape[0], *op.attrs.window.kernel, -1)
    sums = convolve_transposed(grad, kernel, op.attrs.window, op.attrs.shape)
    return sums.reshape(-1, sums.shape[-1]) if len(op.attrs.shape) == 2 else sums


def grad_input_reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int8 grad_input and its saturations."""
    grad, *weights, addend, mask = inputs
    acc = grad_input_sums(op, [grad.astype(np.float64), *weights])
    return grad_epilogue(op, acc, addend, mask)


def grad_input_call(op: Op, graph: Graph) -> KernelCall:
    """tte_conv2d_grad_input_int8 with its scratch."""
    grad, weight, *trained = op.inputs[:-2]
    channels = op.attrs.channels
    window = op.attrs.window.params(graph[op.outputs[0]].type, graph[grad].type)
    call = grad_call(
        op,
        params.Conv2dGradInputParams(
            window=window, pre_shift=op.attrs.scale.pre_shift, trained_c=len(channels)
        ),
        [grad, weight],
        trained_args(channels, trained),
    )
    return KernelCall(call.symbol, call.params, (*call.args, ScratchArg("int32_t")))


def grad_input_scratch(op: Op, graph: Graph) -> int:
    """int32 per input channel, once more if it is trained; for a product, weights^T and
    gradients."""
    grad, out = graph[op.inputs[0]].type, graph[op.outputs[0]].type
    groups = op.attrs.window.groups
    sums = 4 * (hwc(out)[2] + groups * len(op.attrs.channels))
    return max(sums, grad_input_product_bytes(op.attrs.window.params(out, grad)))


def grad_input_product_bytes(window: params.Window) -> int:
    """What the fast input gradient needs for its products: of inputs a stride apart, which the same
    taps of the kernel reach, at a time; 0 where it has none."""
    rows = _phases(window.in_h, window.kernel_h, window.stride_h, window.dilation_h, window.pad_top)
    cols = _phases(
        window.in_w, window.kernel_w, window.stride_w, window.dilation_w, window.pad_left
    )
    out_c = _padded(window.out_c)
    most = max(taps for _, taps in rows) * max(taps for _, taps in cols) * out_c
    if window.groups > 1 or (window.kernel_h * window.kernel_w > 1 and most > 1536):
        return 0
    return max(
        grad_product_scratch_bytes(
            max(1, row_taps * col_taps * out_c), _columns(window, height, width)
        )
        for height, row_taps in rows
        for width, col_taps in cols
    )


def _phases(size: int, kernel: int, stride: int, dilation: int, pad: int) -> list[tuple[int, int]]:
    """Of one axis: so many inputs a stride apart, and taps of the kernel that reach them."""
    return [
        (
            -(-(size - first) // stride),
            sum((first + pad - tap * dilation) % stride == 0 for tap in range(kernel)),
        )
        for first in range(min(stride, size))
    ]


def _columns(window: params.Window, height: int, width: int) -> int:
    """Inputs of a phase; four at a time come from one row, unless all are equally far apart."""
    if width == 1 or width * window.stride_w == window.stride_h * window.in_w:
        return height * width
    return height * _padded(width)


def grad_input_macs(op: Op, graph: Graph) -> int:
    """The same as the forward layer's."""
    weight = graph[op.inputs[1]].type
    return graph[op.inputs[0]].type.elems * (weight.elems // weight.shape[0])


def grad_weight_reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """Updated weight and residual."""
    x, grad, *state = inputs
    centred = x.astype(np.float64) - op.attrs.input_zero_point
    total = np.rint(correlate(centred, grad.astype(np.float64), op.attrs.window)).astype(np.int64)
    return weight_update_reference(op.attrs, total.reshape(state[1].shape), state)


def real_grad_weight(op: Op, inputs: Sequence[Array]) -> Array:
    """dL/dw_q for real dL/d(acc); what the update would apply."""
    x, grad = inputs[:2]
    centred = x.astype(grad.dtype) - op.attrs.input_zero_point
    return correlate(centred, grad, op.attrs.window)


def grad_weight_call(op: Op, graph: Graph) -> KernelCall:
    """tte_conv2d_grad_weight_int8 with its scratch."""
    x, grad = (graph[name].type for name in op.inputs[:2])
    return weight_update_call(op, op.attrs.window.params(x, grad), "int32_t")


def grad_weight_scratch(op: Op, graph: Graph) -> int:
    """int32 per weight of one output channel; for a product, gradients^T and inputs."""
    weight = graph[op.inputs[3]].type
    x, grad = (graph[name].type for name in op.inputs[:2])
    row = weight.elems // weight.shape[0]
    return max(4 * row, update_scratch_bytes(op.attrs.window.params(x, grad), row))


def update_scratch_bytes(window: params.Window, row: int) -> int:
    """Of the product of a weight gradient; where a large map goes in parts, sums of all channels
    too (armv7em/tte_conv2d_grad_weight_int8.c)."""
    out_h, out_w = window.out_h, window.out_w
    size, stride = (window.in_h, window.in_w), (window.stride_h, window.stride_w)
    pointwise = window.kernel_h * window.kernel_w == 1 and stride == (1, 1)
    pointwise = pointwise and size == (out_h, out_w) and window.pad_top + window.pad_left == 0
    rows = out_h
    if out_h * out_w > (1536 if pointwise else 256):
        rows = -(-out_h // -(-out_h // max(1, 256 // out_w)))
    if window.groups > 1 or rows * out_w > 1536:
        return 0
    if rows == out_h:
        return product_scratch_bytes(out_h * out_w, row)
    columns = min(row, 16)
    tiles = _tiles(rows * out_w, columns)
    sums = 32 * tiles * -(-window.out_c // 2)
    return product_scratch_bytes(rows * out_w, columns) + sums


def grad_weight_macs(op: Op, graph: Graph) -> int:
    """One per output element and weight of its row."""
    weight = graph[op.inputs[3]].type
    return graph[op.inputs[1]].type.elems * (weight.elems // weight.shape[0])


def _samples() -> tuple[Sample, ...]:
    def case(
        title: str, size: tuple[int, int], in_c: int, out_c: int, window: WindowAttrs
    ) -> Sample:
        weights = ((out_c, *window.kernel, in_c // window.groups), (out_c,))
        return Sample(title, "conv2d", Conv2dAttrs(window), ((1, *size, in_c),), weights)

    return (
        case("1x1", (5, 7), 6, 9, WindowAttrs((1, 1))),
        case("3x3 same", (6, 5), 3, 4, WindowAttrs((3, 3), pads=(1, 1, 1, 1))),
        case("3x3 stride 2", (9, 8), 3, 8, WindowAttrs((3, 3), (2, 2), pads=(1, 1, 1, 1))),
        case("asymmetric pads", (7, 6), 2, 3, WindowAttrs((3, 2), (2, 1), pads=(0, 1, 2, 0))),
        case("dilation", (9, 9), 4, 5, WindowAttrs((3, 3), dilation=(2, 3), pads=(2, 3, 2, 3))),
        case("groups", (5, 5), 6, 4, WindowAttrs((3, 3), pads=(1, 1, 1, 1), groups=2)),
        case("as many groups as taps", (4, 6), 2, 4, WindowAttrs((1, 2), groups=2)),
        case("depthwise, multiplier", (5, 6), 3, 6, WindowAttrs((3, 2), (2, 1), groups=3)),
        case("1x1 groups", (5, 3), 8, 4, WindowAttrs((1, 1), groups=2)),
        case("5x1", (8, 1), 3, 7, WindowAttrs((5, 1), pads=(2, 0, 2, 0))),
        case("1x1 map", (1, 1), 17, 5, WindowAttrs((1, 1))),
        case("stride over the kernel", (9, 7), 3, 2, WindowAttrs((2, 2), (3, 3))),
    )


FAMILY = Family(
    float_ops=(
        FloatOp(
            "conv2d",
            infer,
            float_reference,
            quantize,
            {"Conv": from_onnx},
            kernels=("conv2d_int8",),
            grad_kernels=(
                "conv2d_grad_input_int8",
                "conv2d_grad_weight_int8",
                "grad_bias_int32",
            ),
        ),
    ),
    integer_ops=(
        IntegerOp(
            "conv2d_int8",
            reference,
            kernel_call,
            gradient=gradient,
            output_factors=output_factors,
            scratch_bytes=scratch_bytes,
            macs=macs,
        ),
        IntegerOp(
            "conv2d_grad_input_int8",
            grad_input_reference,
            grad_input_call,
            accumulate=grad_input_sums,
            scratch_bytes=grad_input_scratch,
            in_place=lambda op: (len(op.inputs) - 2,),
            macs=grad_input_macs,
        ),
        IntegerOp(
            "conv2d_grad_weight_int8",
            grad_weight_reference,
            grad_weight_call,
            real_gradient=real_grad_weight,
            scratch_bytes=grad_weight_scratch,
            macs=grad_weight_macs,
        ),
    ),
    samples=_samples(),
)
