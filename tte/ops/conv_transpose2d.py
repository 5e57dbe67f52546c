# SPDX-License-Identifier: Apache-2.0
"""Transposed convolution in one or two dimensions: the way back of a convolution from the output's
map to the input's; NHWC, weights [O, kernel_h, kernel_w, I], O being the channels of the output.

acc[o, p] = bias[o] + sum w[o, k, i] (x[q, i] - z_x) over q * stride = p + pad - k * dilation. Its
grad_input is that convolution, its grad_weight the correlation of dL/d(acc) and x.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Graph, Op, TensorType
from tte.ops import params
from tte.ops.conv2d import (
    check_bias,
    constant_bias,
    constant_weight,
    output_factors,
    product_scratch_bytes,
)
from tte.ops.quantized import (
    NO_CLAMP,
    GradInputAttrs,
    RequantAttrs,
    add_updates,
    contribute_grad_input,
    exact,
    grad_call,
    grad_epilogue,
    make_requant,
    quantize_weights,
    weight_update_call,
    weight_update_reference,
)
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
    ScratchArg,
    TableArg,
    TensorArg,
)
from tte.ops.window import WindowAttrs, hwc, pad_map, spatial, spatial_rank, taps, unpad

MAX_SIZE = 0xFFFF


@dataclass(frozen=True, slots=True)
class ConvTranspose2dAttrs:
    """Inputs: x, weight, bias (or ""). `window` slides over the output, whose height and width
    are `size`; `clamp` is a fused relu or relu6."""

    window: WindowAttrs
    size: tuple[int, int]
    clamp: tuple[float, float] = NO_CLAMP


@dataclass(frozen=True, slots=True)
class ConvTranspose2dInt8Attrs:
    """Inputs: x, weight, bias; outputs: y, mask (or "")."""

    window: WindowAttrs
    size: tuple[int, int]
    requant: RequantAttrs


# ---- sums, on integers or real numbers ----------------------------------------------------


def _groups(window: WindowAttrs, in_c: int, out_c: int) -> list[tuple[slice, slice]]:
    """(channels of x, channels of y) of each group."""
    share_in, share_out = in_c // window.groups, out_c // window.groups
    return [
        (slice(g * share_in, (g + 1) * share_in), slice(g * share_out, (g + 1) * share_out))
        for g in range(window.groups)
    ]


def spread(x: Array, weight: Array, window: WindowAttrs, size: tuple[int, int]) -> Array:
    """Every pixel of x, times the weights, over the output: [N, *size, O]."""
    n, in_h, in_w, in_c = x.shape
    top, left, bottom, right = window.pads
    out_c = len(weight)
    padded = np.zeros(
        (n, size[0] + top + bottom, size[1] + left + right, out_c), np.result_type(x, weight)
    )
    for i, j, rows, cols in taps(window, in_h, in_w):
        for own, other in _groups(window, in_c, out_c):
            padded[:, rows, cols, other] += x[..., own] @ weight[other, i, j].T
    return unpad(padded, window, *size)


def collect(grad: Array, weight: Array, window: WindowAttrs, shape: tuple[int, ...]) -> Array:
    """The adjoint of spread() in x: [N, in_h, in_w, in_c] for shape [1, in_h, in_w, in_c]."""
    _, in_h, in_w, in_c = shape
    padded = pad_map(grad, window)
    out = np.zeros((len(grad), in_h, in_w, in_c), np.result_type(grad, weight))
    for i, j, rows, cols in taps(window, in_h, in_w):
        for own, other in _groups(window, in_c, len(weight)):
            out[..., own] += padded[:, rows, cols, other] @ weight[other, i, j]
    return out


def correlate(x: Array, grad: Array, window: WindowAttrs) -> Array:
    """The adjoint of spread() in the weights: [O, kernel_h, kernel_w, in_c / groups]."""
    _, in_h, in_w, in_c = x.shape
    out_c = grad.shape[-1]
    padded = pad_map(grad, window)
    shape = (out_c, *window.kernel, in_c // window.groups)
    out = np.zeros(shape, np.result_type(x, grad))
    for i, j, rows, cols in taps(window, in_h, in_w):
        for own, other in _groups(window, in_c, out_c):
            part = padded[:, rows, cols, other].reshape(-1, len(range(out_c)[other]))
            out[other, i, j] = part.T @ x[..., own].reshape(len(part), -1)
    return out


# ---- float op -----------------------------------------------------------------------------


def infer(attrs: ConvTranspose2dAttrs, types: Sequence[TensorType]) -> TensorType:
    """Output type; ValueError where the weights do not fit the input."""
    _, in_h, in_w, in_c = types[0].shape
    out_c, kernel_h, kernel_w, share = types[1].shape
    window = attrs.window
    if window.groups < 1 or in_c != share * window.groups or out_c % window.groups:
        raise ValueError(
            f"weights {types[1]} with {window.groups} groups do not fit input {types[0]}"
        )
    if (kernel_h, kernel_w) != window.kernel or window.out_size(*attrs.size) != (in_h, in_w):
        raise ValueError(f"weights {types[1]} and size {attrs.size} do not fit input {types[0]}")
    check_bias(types)
    return TensorType((1, *attrs.size, out_c), "float32")


def float_reference(op: Op, inputs: Sequence[Array]) -> Array:
    """Real transposed convolution with its clamp."""
    y = spread(inputs[0], inputs[1], op.attrs.window, op.attrs.size)
    if len(inputs) > 2:
        y = y + inputs[2]
    return np.clip(y, *op.attrs.clamp)


def quantize(op: Op, quantizer: Quantizer) -> None:
    """One conv_transpose2d_int8."""
    weight, bias, weight_quant = quantize_weights(quantizer, op)
    x, y = quantizer.quant(op.inputs[0]), quantizer.quant(op.outputs[0])
    requant = make_requant(x, y, weight_quant.scale, op.attrs.clamp)
    quantizer.builder.op(
        "conv_transpose2d_int8",
        op.name,
        [op.inputs[0], weight, bias],
        [op.outputs[0], ""],
        ConvTranspose2dInt8Attrs(op.attrs.window, op.attrs.size, requant),
    )


def from_onnx(node: OnnxNode, importer: Importer) -> None:
    """ConvTranspose in one or two dimensions. Its weights are [I, O / groups, ...] in the file."""
    weight = constant_weight(node, importer)
    rank = spatial_rank(node, importer)
    attrs = node.attrs
    x = importer.type_of(node.inputs[0])
    groups = int(attrs.get("group", 1))
    if groups < 1 or weight.shape[0] != x.shape[3] or weight.shape[0] % groups:
        raise importer.fail(f"weights {weight.shape} with {groups} groups do not fit input {x}")
    kernel = (1,) * (2 - rank) + weight.shape[2:]
    stride = spatial(node, importer, "strides", rank, 1)
    dilation = spatial(node, importer, "dilations", rank, 1)
    extra = spatial(node, importer, "output_padding", rank, 0)
    extra = (0, extra[1]) if rank == 1 else extra
    if min(*stride, *dilation, *kernel) < 1 or min(extra) < 0:
        raise importer.fail("strides, dilations and kernel must not be negative or zero")
    if max(*stride, *dilation, *kernel, *extra) > MAX_SIZE:
        raise importer.fail("strides, dilations, kernel and output_padding go up to 65535")
    whole = [
        (size - 1) * s + d * (k - 1) + 1 + e
        for size, s, d, k, e in zip(x.shape[1:3], stride, dilation, kernel, extra, strict=True)
    ]
    pads = _pads(node, importer, rank, x.shape[1:3], stride, whole)
    size = (whole[0] - pads[0] - pads[2], whole[1] - pads[1] - pads[3])
    if min(size) < 1 or max(size) > MAX_SIZE or min(pads[:2]) < 0:
        raise importer.fail(f"its output has the size {size[0]}x{size[1]}")
    # What output_padding adds lies behind the last window: padding that it reaches into less.
    pads = (*pads[:2], pads[2] - extra[0], pads[3] - extra[1])
    pads = (pads[0], pads[1], max(0, pads[2]), max(0, pads[3]))
    window = WindowAttrs((kernel[0], kernel[1]), stride, dilation, pads, groups)

    def layout(w: Array) -> Array:
        share = w.shape[0] // groups
        w = w.reshape(groups, share, w.shape[1], *kernel).transpose(0, 2, 3, 4, 1)
        return w.reshape(-1, *kernel, share)

    inputs = [node.inputs[0], importer.weight(node.inputs[1], layout, 0)]
    inputs += constant_bias(node, importer)
    importer.emit("conv_transpose2d", inputs, ConvTranspose2dAttrs(window, size))


def _pads(
    node: OnnxNode,
    importer: Importer,
    rank: int,
    sizes: Sequence[int],
    stride: tuple[int, int],
    whole: Sequence[int],
) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) that are cut off the whole output; below 0 at the end, added."""
    auto_pad = node.attrs.get("auto_pad", "NOTSET")
    if auto_pad not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise importer.fail(f"auto_pad {auto_pad!r} is unknown")
    wanted = None
    if "output_shape" in node.attrs:
        wanted = list(spatial(node, importer, "output_shape", rank, 1))
    elif auto_pad.startswith("SAME"):
        wanted = [size * s for size, s in zip(sizes, stride, strict=True)]
    if wanted is not None:
        total = [w - size for w, size in zip(whole, wanted, strict=True)]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        first, last = (small, large) if auto_pad == "SAME_UPPER" else (large, small)
        # What is missing is added at the end.
        first = [one if t > 0 else 0 for one, t in zip(first, total, strict=True)]
        last = [one if t > 0 else t for one, t in zip(last, total, strict=True)]
        return first[0], first[1], last[0], last[1]
    pads = tuple(node.attrs.get("pads", (0,) * (2 * rank))) if auto_pad == "NOTSET" else (0,) * 4
    if (auto_pad == "NOTSET" and len(pads) != 2 * rank) or min(pads) < 0:
        raise importer.fail(f"its pads {list(pads)} do not fit {rank} spatial dimensions")
    if len(pads) == 2:
        return 0, pads[0], 0, pads[1]
    return pads[0], pads[1], pads[2], pads[3]


# ---- integer ops --------------------------------------------------------------------------


def _window(op: Op, graph: Graph, x: str, y: str) -> params.Window:
    """The convolution from y's map to x's."""
    window: params.Window = op.attrs.window.params(graph[y].type, graph[x].type)
    return window


def reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int8 output and mask."""
    x, weight, bias = inputs
    real_weight, _ = exact(weight)
    centred = x.astype(real_weight.dtype) - op.attrs.requant.input_zero_point
    sums = spread(centred, real_weight, op.attrs.window, op.attrs.size)
    return op.attrs.requant.apply(np.rint(sums).astype(np.int64) + bias)


def kernel_call(op: Op, graph: Graph) -> KernelCall:
    """tte_conv_transpose2d_int8."""
    x, weight, bias = op.inputs
    y, mask = op.outputs
    return KernelCall(
        f"tte_{op.kind}",
        params.Conv2dParams(_window(op, graph, x, y), op.attrs.requant.params()),
        (
            TensorArg(x),
            TensorArg(weight),
            TensorArg(bias),
            TableArg("multipliers", "int32_t", op.attrs.requant.multipliers),
            TensorArg(y),
            TensorArg(mask),
            ScratchArg("int32_t"),
        ),
    )


def taps_of_one(kernel: int, stride: int, dilation: int) -> set[int]:
    """How many taps of a window one output has along an axis; outputs without any aside."""
    step = stride // math.gcd(stride, dilation)
    return {kernel // step, -(-kernel // step)} - {0}


def scratch_bytes(op: Op, graph: Graph) -> int:
    """The product of the weights and the inputs of outputs a stride apart, and two rows of weights
    with their taps side by side; or int32 per output channel."""
    x, y = graph[op.inputs[0]].type, graph[op.outputs[0]].type
    window: WindowAttrs = op.attrs.window
    pixels = math.prod(-(-size // s) for size, s in zip(op.attrs.size, window.stride, strict=True))
    rows, cols = (
        taps_of_one(window.kernel[axis], window.stride[axis], window.dilation[axis])
        for axis in (0, 1)
    )
    sums = {row * col * hwc(x)[2] // window.groups for row in rows for col in cols}
    product = max(product_scratch_bytes(k, pixels) + 2 * (-(-k // 4) * 4) for k in sums)
    return max(4 * hwc(y)[2], product)


def row_scratch(op: Op, graph: Graph) -> int:
    """int32 per channel of what is written."""
    return 4 * hwc(graph[op.outputs[0]].type)[2]


def macs(op: Op, graph: Graph) -> int:
    """One per input element and weight of its channel."""
    x, weight = graph[op.inputs[0]].type, graph[op.inputs[1]].type
    return x.elems * weight.elems // hwc(x)[2]


def gradient(op: Op, grad: str, backward: Backward) -> None:
    """grad_input, and the updates of weight and bias."""
    x_shape = backward.graph[op.inputs[0]].type.shape
    window = op.attrs.window
    contribute_grad_input(op, "conv_transpose2d_grad_input_int8", grad, x_shape, window, backward)
    channels = backward.graph[op.inputs[1]].type.shape[0]
    add_updates(op, grad, backward, "conv_transpose2d_grad_weight_int8", window, channels)


def grad_input_sums(op: Op, inputs: Sequence[Array]) -> Array:
    """sum over taps and o of w D."""
    grad, weight = inputs[:2]
    attrs: GradInputAttrs = op.attrs
    return collect(grad, weight.astype(grad.dtype), attrs.window, attrs.shape)


def grad_input_reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int8 grad_input and its saturations."""
    grad, weight, addend, mask = inputs
    return grad_epilogue(op, grad_input_sums(op, [grad.astype(np.float64), weight]), addend, mask)


def grad_input_call(op: Op, graph: Graph) -> KernelCall:
    """tte_conv_transpose2d_grad_input_int8 with its scratch."""
    grad, weight = op.inputs[:2]
    kernel_params = params.Conv2dGradInputParams(
        _window(op, graph, op.outputs[0], grad), op.attrs.scale.pre_shift
    )
    call = grad_call(op, kernel_params, [grad, weight])
    return KernelCall(call.symbol, call.params, (*call.args, ScratchArg("int32_t")))


def grad_input_macs(op: Op, graph: Graph) -> int:
    """The same as the forward layer's."""
    x, weight = graph[op.outputs[0]].type, graph[op.inputs[1]].type
    return x.elems * weight.elems // hwc(x)[2]


def real_grad_weight(op: Op, inputs: Sequence[Array]) -> Array:
    """dL/dw_q for real dL/d(acc)."""
    x, grad = inputs[:2]
    return correlate(x.astype(grad.dtype) - op.attrs.input_zero_point, grad, op.attrs.window)


def grad_weight_reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """Updated weight and residual."""
    x, grad, *state = inputs
    total = np.rint(real_grad_weight(op, [x, grad.astype(np.float64)])).astype(np.int64)
    return weight_update_reference(op.attrs, total, state)


def grad_weight_call(op: Op, graph: Graph) -> KernelCall:
    """tte_conv_transpose2d_grad_weight_int8 with its scratch."""
    return weight_update_call(op, _window(op, graph, *op.inputs[:2]), "int32_t")


def grad_weight_scratch(op: Op, graph: Graph) -> int:
    """int32 per weight of one output channel."""
    weight = graph[op.inputs[3]].type
    return 4 * weight.elems // weight.shape[0]


def grad_weight_macs(op: Op, graph: Graph) -> int:
    """The same as the forward layer's."""
    x, weight = graph[op.inputs[0]].type, graph[op.inputs[3]].type
    return x.elems * weight.elems // hwc(x)[2]


def _samples() -> tuple[Sample, ...]:
    def case(
        title: str,
        size: tuple[int, int],
        in_c: int,
        out_c: int,
        out_size: tuple[int, int],
        window: WindowAttrs,
    ) -> Sample:
        weights = ((out_c, *window.kernel, in_c // window.groups), (out_c,))
        attrs = ConvTranspose2dAttrs(window, out_size)
        return Sample(title, "conv_transpose2d", attrs, ((1, *size, in_c),), weights)

    return (
        case("2x2 stride 2", (3, 4), 6, 4, (6, 8), WindowAttrs((2, 2), (2, 2))),
        case("4x4 stride 2", (3, 3), 3, 5, (6, 6), WindowAttrs((4, 4), (2, 2), pads=(1, 1, 1, 1))),
        case("3x3", (4, 5), 4, 2, (4, 5), WindowAttrs((3, 3), pads=(1, 1, 1, 1))),
        case(
            "output padding", (3, 4), 2, 3, (6, 8), WindowAttrs((3, 3), (2, 2), pads=(1, 1, 0, 0))
        ),
        case("gaps", (3, 3), 2, 3, (8, 8), WindowAttrs((2, 2), (3, 3))),
        case(
            "series, dilated, groups",
            (1, 6),
            4,
            6,
            (1, 14),
            WindowAttrs((1, 3), (1, 2), (1, 2), (0, 1, 0, 0), 2),
        ),
    )


FAMILY = Family(
    float_ops=(
        FloatOp(
            "conv_transpose2d",
            infer,
            float_reference,
            quantize,
            {"ConvTranspose": from_onnx},
            kernels=("conv_transpose2d_int8",),
            grad_kernels=(
                "conv_transpose2d_grad_input_int8",
                "conv_transpose2d_grad_weight_int8",
                "grad_bias_int32",
            ),
        ),
    ),
    integer_ops=(
        IntegerOp(
            "conv_transpose2d_int8",
            reference,
            kernel_call,
            gradient=gradient,
            output_factors=output_factors,
            scratch_bytes=scratch_bytes,
            macs=macs,
        ),
        IntegerOp(
            "conv_transpose2d_grad_input_int8",
            grad_input_reference,
            grad_input_call,
            accumulate=grad_input_sums,
            scratch_bytes=row_scratch,
            in_place=lambda op: (2,),
            macs=grad_input_macs,
        ),
        IntegerOp(
            "conv_transpose2d_grad_weight_int8",
            grad_weight_reference,
            grad_weight_call,
            real_gradient=real_grad_weight,
            scratch_bytes=grad_weight_scratch,
            macs=grad_weight_macs,
        ),
    ),
    samples=_samples(),
)
