# SPDX-License-Identifier: Apache-2.0
"""A part of an activation, and one activation as several: Slice, Split and Gather of a run.

A strided copy in the codes of the input; the gradient of what was not taken is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Op, TensorType
from tte.ops.layout import slices
from tte.ops.spec import (
    Array,
    Family,
    FloatOp,
    Importer,
    OnnxNode,
    Quantizer,
    Sample,
)
from tte.ops.transpose import StridedCopyAttrs
from tte.ops.window import as_map, hwc


@dataclass(frozen=True, slots=True)
class SliceAttrs:
    """Input: x. Elements begin, begin + step, ... of height, width and channels, `count` of
    them."""

    begin: tuple[int, int, int]
    step: tuple[int, int, int]
    count: tuple[int, int, int]


def infer(attrs: SliceAttrs, types: Sequence[TensorType]) -> TensorType:
    """Output type; ValueError for what lies outside of the input."""
    for size, begin, step, count in zip(
        hwc(types[0]), attrs.begin, attrs.step, attrs.count, strict=True
    ):
        if count < 1 or not 0 <= begin < size or not 0 <= begin + step * (count - 1) < size:
            raise ValueError(f"elements {begin}, {begin + step}, ... ({count}) of {types[0]}")
    if len(types[0].shape) == 2:
        return TensorType((1, attrs.count[2]), "float32")
    return TensorType((1, *attrs.count), "float32")


def float_reference(op: Op, inputs: Sequence[Array]) -> Array:
    """The elements."""
    attrs: SliceAttrs = op.attrs
    x = as_map(inputs[0])
    picked = [
        begin + step * np.arange(count)
        for begin, step, count in zip(attrs.begin, attrs.step, attrs.count, strict=True)
    ]
    y = x[np.ix_(np.arange(len(x)), *picked)]
    return y if inputs[0].ndim == 4 else y.reshape(len(y), -1)


def quantize(op: Op, quantizer: Quantizer) -> None:
    """One strided_copy_int8."""
    attrs: SliceAttrs = op.attrs
    x, y = (quantizer.graph[name].type for name in (op.inputs[0], op.outputs[0]))
    _, width, channels = hwc(x)
    strides = (width * channels, channels, 1)
    copy = StridedCopyAttrs(
        y.shape,
        attrs.count,
        tuple(step * stride for step, stride in zip(attrs.step, strides, strict=True)),
        sum(begin * stride for begin, stride in zip(attrs.begin, strides, strict=True)),
        attrs.begin,
        attrs.step,
    )
    quantizer.builder.op("strided_copy_int8", op.name, op.inputs, op.outputs, copy)


# ---- nodes --------------------------------------------------------------------------------


def emit_slice(
    importer: Importer, x: str, cuts: Sequence[tuple[int, int, int, int]], output: str = ""
) -> None:
    """Adds a slice of (axis of the file, first, step, count) each; the order stays as it is."""
    layout = importer.layout(x)
    sizes = (1,) * (4 - len(layout.map_shape)) + layout.map_shape
    begin, step, count = [0] * 4, [1] * 4, list(sizes)
    for axis, first, stride, number in cuts:
        if number < 1:
            raise importer.fail(f"nothing is left of axis {axis} of shape {list(layout.shape)}")
        place = layout.axis(axis) + 4 - len(layout.map_shape)
        if layout.shape[axis] > 1:
            begin[place], step[place], count[place] = first, stride, number
    attrs = SliceAttrs(_three(begin), _three(step), _three(count))
    importer.emit("slice", [x], attrs, layout.memory, output)


def _three(values: Sequence[int]) -> tuple[int, int, int]:
    return (values[1], values[2], values[3])


def slice_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Slice with constant bounds."""
    inputs = [importer.constant(name) if name else None for name in node.inputs[1:]]
    if any(name and value is None for name, value in zip(node.inputs[1:], inputs, strict=True)):
        raise importer.fail("its starts, ends, axes and steps must be constant")
    try:
        cuts = slices(node.attrs, importer.layout(node.inputs[0]).shape, *inputs)
    except (ValueError, KeyError) as error:
        raise importer.fail(str(error)) from error
    emit_slice(importer, node.inputs[0], cuts)


def split_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Split: one slice an output."""
    shape = importer.layout(node.inputs[0]).shape
    axis = int(node.attrs.get("axis", 0))
    if not -len(shape) <= axis < len(shape):
        raise importer.fail(f"its axis {axis} is none of {len(shape)} dimensions")
    axis %= len(shape)
    sizes = node.attrs.get("split")
    if len(node.inputs) > 1 and node.inputs[1]:
        sizes = importer.constant(node.inputs[1])
        if sizes is None:
            raise importer.fail("its sizes must be constant")
    parts = len(node.outputs)
    share = -(-shape[axis] // parts)
    even = [share] * (parts - 1) + [shape[axis] - share * (parts - 1)]
    listed = even if sizes is None else [int(size) for size in np.asarray(sizes).reshape(-1)]
    if len(listed) != parts or sum(listed) != shape[axis] or min(listed) < 1:
        raise importer.fail(f"sizes {listed} do not divide {shape[axis]} among {parts} outputs")
    begin = 0
    for output, size in zip(node.outputs, listed, strict=True):
        if output:
            emit_slice(importer, node.inputs[0], [(axis, begin, 1, size)], output)
        begin += size


def gather_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Gather of one element, or of a run with one step, along an axis."""
    shape = importer.layout(node.inputs[0]).shape
    axis = int(node.attrs.get("axis", 0))
    index = importer.constant(node.inputs[1])
    if index is None or not -len(shape) <= axis < len(shape):
        raise importer.fail("its index must be constant, its axis one of the input's")
    axis %= len(shape)
    picked = [int(i) + shape[axis] if i < 0 else int(i) for i in index.reshape(-1)]
    step = picked[1] - picked[0] if len(picked) > 1 else 1
    run = all(i == picked[0] + step * k for k, i in enumerate(picked))
    if not picked or not run or step == 0 or index.ndim > 1:
        raise importer.fail("only one element, or elements with one step between, are supported")
    if not all(0 <= i < shape[axis] for i in picked):
        raise importer.fail(f"index {picked} is beyond axis {axis} of shape {list(shape)}")
    emit_slice(importer, node.inputs[0], [(axis, picked[0], step, len(picked))])
    if index.ndim == 0:
        rest = [size for position, size in enumerate(shape) if position != axis]
        importer.reshape(node.outputs[0], rest)


FAMILY = Family(
    float_ops=(
        FloatOp(
            "slice",
            infer,
            float_reference,
            quantize,
            {"Slice": slice_from_onnx, "Split": split_from_onnx, "Gather": gather_from_onnx},
            keeps_quant=True,
            kernels=("strided_copy_int8",),
            grad_kernels=("grad_place_int8",),
        ),
    ),
    samples=(
        Sample("channels", "slice", SliceAttrs((0, 0, 2), (1, 1, 1), (3, 5, 4)), ((1, 3, 5, 7),)),
        Sample(
            "every second row, backwards",
            "slice",
            SliceAttrs((1, 4, 0), (2, -2, 3), (3, 3, 2)),
            ((1, 6, 5, 4),),
        ),
        Sample("vector", "slice", SliceAttrs((0, 0, 5), (1, 1, 1), (1, 1, 6)), ((1, 13),)),
    ),
)
