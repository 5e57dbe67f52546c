# SPDX-License-Identifier: Apache-2.0
"""Nearest-neighbour resizing: every pixel becomes a block, or vanishes, in the codes of the input.
Its gradient is the sum over the block, 0 where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Graph, Op, TensorType
from tte.ops import params
from tte.ops.layout import axes_of, channels_last
from tte.ops.quantized import GradInputAttrs, grad_call, grad_epilogue
from tte.ops.slice import emit_slice
from tte.ops.spec import (
    Arg,
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
from tte.ops.window import WindowAttrs, hwc

MAX_SIZE = 0xFFFF
Copies = int | tuple[int, ...]  # of every row or column, or of each of them


@dataclass(frozen=True, slots=True)
class ResizeAttrs:
    """Input: x. `factors`: rows and columns of a pixel's block."""

    factors: tuple[Copies, Copies]


@dataclass(frozen=True, slots=True)
class ResizeGradAttrs(GradInputAttrs):
    """Inputs: grad_output, addend or "", mask or ""."""

    factors: tuple[Copies, Copies] = (1, 1)


def infer(attrs: ResizeAttrs, types: Sequence[TensorType]) -> TensorType:
    """Output type."""
    _, height, width, channels = types[0].shape
    rows, cols = (
        size * copies if isinstance(copies, int) else sum(copies)
        for size, copies in zip((height, width), attrs.factors, strict=True)
    )
    return TensorType((1, rows, cols, channels), "float32")


def sources(size: int, copies: Copies) -> Array:
    """The row or column of the input of each one of the output."""
    return np.arange(size).repeat(copies)


def upsampled(op: Op, inputs: Sequence[Array]) -> Array:
    """Real numbers or codes."""
    rows, cols = op.attrs.factors
    return inputs[0].repeat(rows, axis=1).repeat(cols, axis=2)


def quantize(op: Op, quantizer: Quantizer) -> None:
    """One resize_nearest2d_int8."""
    quantizer.builder.op("resize_nearest2d_int8", op.name, op.inputs, op.outputs, op.attrs)


# ---- nodes --------------------------------------------------------------------------------


def resize_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Resize and Upsample: nearest, by any factors or to any sizes. A copy of every k-th element
    of an axis is a slice.

    A factor that keeps an axis' size may still move elements (3 by 1.25: elements 0, 0, 1 where
    rounded down), as ONNX's formula says; onnxruntime copies a map that keeps its size. Positions
    are float32 as there: one within a rounding of a tie may go to the other side."""
    mode = node.attrs.get("mode", "nearest")
    if mode != "nearest":
        raise importer.fail(
            f"its mode is {mode!r}", "use nearest, or a ConvTranspose with fixed weights"
        )
    shape = importer.layout(node.inputs[0]).shape
    sizes = _sizes(node, importer, shape)
    factors: dict[int, Copies] = {}
    cuts = []
    for axis, (before, (after, scale)) in enumerate(zip(shape, sizes, strict=True)):
        index = _sources(node, importer, before, after, scale)
        if index == list(range(before)):
            continue
        copies = np.bincount(index, minlength=before).tolist()
        factors[axis] = copies[0] if len({*copies}) == 1 else tuple(copies)
        step = index[1] - index[0] if len(index) > 1 else 1
        if step and index == [index[0] + step * i for i in range(after)]:
            cuts.append((axis, index[0], step, after))
    x = node.inputs[0]
    if cuts and len(cuts) == len(factors):
        emit_slice(importer, x, cuts)
        return
    layout = importer.layout(x)
    order = layout.memory
    if any(layout.axis(axis) == 3 for axis in factors) or len(layout.map_shape) == 2:
        order = channels_last(len(shape))
    stored = layout.ordered(order)
    places = {stored.axis(axis): factor for axis, factor in factors.items()}
    if not factors:
        importer.alias(x)
    elif not set(places) <= {1, 2} or len(stored.map_shape) != 4:
        raise importer.fail(f"an activation of shape {list(shape)} cannot be resized so")
    else:
        attrs = ResizeAttrs((places.get(1, 1), places.get(2, 1)))
        importer.emit("resize_nearest2d", [x], attrs, order)


def tile_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Tile, axis by axis: what lies behind an axis, one run of memory, comes several times. With
    a new axis of one element before it, this is how Keras writes upsampling."""
    repeats = importer.constant(node.inputs[1])
    shape = list(importer.layout(node.inputs[0]).shape)
    if repeats is None or repeats.size != len(shape) or repeats.min(initial=1) < 1:
        raise importer.fail("its repeats must be one positive constant per axis")
    x = node.inputs[0]
    importer.alias(x)
    for axis, count in enumerate(int(number) for number in repeats.reshape(-1)):
        if count == 1:
            continue
        before, behind = math.prod(shape[:axis]), math.prod(shape[axis:])
        shape[axis] *= count
        if max(before, behind, count) > MAX_SIZE:
            raise importer.fail(f"its axis {axis} becomes {shape[axis]} elements")
        importer.reshape(x, (1, before, 1, behind))
        x = node.outputs[0]
        importer.emit("resize_nearest2d", [x], ResizeAttrs((1, count)), (0, 1, 2, 3))
        importer.reshape(x, shape)


def _sizes(node: OnnxNode, importer: Importer, shape: Sequence[int]) -> list[tuple[int, float]]:
    """(size, scale) of each axis of the output."""
    position = {"Upsample": 1, "Resize": 1 if node.opset < 11 else 2}[node.op_type]

    def constant(at: int) -> list[float]:
        if len(node.inputs) <= at or not node.inputs[at]:
            return []
        value = importer.constant(node.inputs[at])
        if value is None:
            raise importer.fail("its scales or sizes must be constant")
        return [float(one) for one in value.reshape(-1)]

    scales = [float(one) for one in node.attrs.get("scales", ())] or constant(position)
    wanted = [] if scales else constant(3)
    axes = node.attrs.get("axes")
    try:
        axes = (
            tuple(range(len(shape))) if axes is None else axes_of({"axes": axes}, None, len(shape))
        )
    except ValueError as error:
        raise importer.fail(str(error)) from error
    if node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise importer.fail("keep_aspect_ratio_policy is not supported", "give all sizes")
    given = scales or wanted
    if len(given) != len(axes) or not all(0 < one <= MAX_SIZE for one in given):
        raise importer.fail(f"its scales or sizes {given} do not fit {list(shape)}")
    result = [(size, 1.0) for size in shape]
    for axis, value in zip(axes, given, strict=True):
        after = int(np.floor(shape[axis] * value)) if scales else int(value)
        if not 1 <= after <= MAX_SIZE:
            raise importer.fail(f"axis {axis} gets the size {after}")
        result[axis] = (after, value if scales else after / shape[axis])
    return result


def _sources(
    node: OnnxNode, importer: Importer, before: int, after: int, scale: float
) -> list[int]:
    """The input element of each output element along an axis: ONNX's Resize."""
    if before == after and scale == 1.0:
        return list(range(before))
    old = node.op_type == "Upsample" or node.opset < 11
    way = "asymmetric" if old else node.attrs.get("coordinate_transformation_mode", "half_pixel")
    rounding = "floor" if old else node.attrs.get("nearest_mode", "round_prefer_floor")
    i = np.arange(after, dtype=np.float32)  # as runtimes compute
    ratio = np.float32(scale)
    if way == "asymmetric":
        x = i / ratio
    elif way == "half_pixel" or (way == "pytorch_half_pixel" and after > 1):
        x = (i + 0.5) / ratio - 0.5
    elif way == "half_pixel_symmetric":
        x = before / 2 * (1 - after / (ratio * before)) + (i + 0.5) / ratio - 0.5
    elif way == "pytorch_half_pixel":
        x = i * 0
    elif way == "align_corners":
        x = i * (before - 1) / max(1, after - 1)
    else:
        raise importer.fail(f"coordinate_transformation_mode {way!r} is not supported")
    rounded = {
        "floor": np.floor(x),
        "ceil": np.ceil(x),
        "round_prefer_floor": np.ceil(x - 0.5),
        "round_prefer_ceil": np.floor(x + 0.5),
    }.get(rounding)
    if rounded is None:
        raise importer.fail(f"nearest_mode {rounding!r} is unknown")
    return [int(one) for one in rounded.clip(0, before - 1)]


# ---- integer ops --------------------------------------------------------------------------


def kernel_call(op: Op, graph: Graph) -> KernelCall:
    """tte_resize_nearest2d_int8."""
    x = op.inputs[0]
    kernel_params = params.ResizeNearest2dParams(*hwc(graph[x].type), *_whole(op))
    args = (TensorArg(x), *_copies(op), TensorArg(op.outputs[0]))
    return KernelCall(f"tte_{op.kind}", kernel_params, args)


def _whole(op: Op) -> tuple[int, int]:
    """The factors of both axes, 0 where there is a table."""
    rows, cols = (copies if isinstance(copies, int) else 0 for copies in op.attrs.factors)
    return rows, cols


def _copies(op: Op) -> list[Arg]:
    """The tables of both axes, NULL where there is a factor."""
    return [
        TensorArg("") if isinstance(copies, int) else TableArg(name, "uint16_t", copies)
        for name, copies in zip(("rows", "cols"), op.attrs.factors, strict=True)
    ]


def gradient(op: Op, grad: str, backward: Backward) -> None:
    """The sum over each pixel's block."""
    shape, factors = backward.graph[op.inputs[0]].type.shape, op.attrs.factors

    def emit(scale: GradScale, addend: str, mask: str, output: str) -> None:
        backward.builder.op(
            "resize_nearest2d_grad_input_int8",
            f"{op.name}.grad_input",
            [grad, addend, mask],
            [output],
            ResizeGradAttrs(WindowAttrs((1, 1)), shape, scale, factors=factors),
        )

    backward.contribute(op.inputs[0], Contribution((1.0,), emit=emit))


def grad_input_sums(op: Op, inputs: Sequence[Array]) -> Array:
    """Sums over blocks."""
    _, height, width, channels = op.attrs.shape
    rows, cols = op.attrs.factors
    grad = inputs[0].transpose(1, 2, 0, 3)  # of a batch
    sums = np.zeros((height * width, *grad.shape[2:]), grad.dtype)
    np.add.at(sums, sources(height, rows)[:, None] * width + sources(width, cols), grad)
    return sums.swapaxes(0, 1).reshape(-1, height, width, channels)


def grad_input_reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int8 grad_input and its saturations."""
    grad, addend, mask = inputs
    return grad_epilogue(op, grad_input_sums(op, [grad.astype(np.int64)]), addend, mask)


def grad_input_call(op: Op, graph: Graph) -> KernelCall:
    """tte_resize_nearest2d_grad_input_int8."""
    in_h, in_w, channels = hwc(graph[op.outputs[0]].type)
    kernel_params = params.ResizeNearest2dGradInputParams(
        in_h, in_w, channels, *_whole(op), op.attrs.scale.pre_shift
    )
    return grad_call(op, kernel_params, [op.inputs[0]], tuple(_copies(op)))


FAMILY = Family(
    float_ops=(
        FloatOp(
            "resize_nearest2d",
            infer,
            upsampled,
            quantize,
            {
                "Resize": resize_from_onnx,
                "Tile": tile_from_onnx,
                "Upsample": resize_from_onnx,
            },
            keeps_quant=True,
            kernels=("resize_nearest2d_int8",),
            grad_kernels=("resize_nearest2d_grad_input_int8",),
        ),
    ),
    integer_ops=(
        IntegerOp(
            "resize_nearest2d_int8",
            lambda op, inputs: [upsampled(op, inputs)],
            kernel_call,
            gradient=gradient,
            output_factors=lambda op: (1.0,),
        ),
        IntegerOp(
            "resize_nearest2d_grad_input_int8",
            grad_input_reference,
            grad_input_call,
            accumulate=grad_input_sums,
            in_place=lambda op: (1,),
        ),
    ),
    samples=(
        Sample("2x2", "resize_nearest2d", ResizeAttrs((2, 2)), ((1, 3, 4, 5),)),
        Sample("1x3", "resize_nearest2d", ResizeAttrs((1, 3)), ((1, 1, 5, 2),)),
        Sample(
            "tables",
            "resize_nearest2d",
            ResizeAttrs(((1, 0, 2), (0, 3, 1, 2))),
            ((1, 3, 4, 5),),
        ),
        Sample("2xtable", "resize_nearest2d", ResizeAttrs((2, (1, 2, 0))), ((1, 2, 3, 3),)),
    ),
)
