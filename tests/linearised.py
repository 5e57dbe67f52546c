# SPDX-License-Identifier: Apache-2.0
"""The integer forward pass without its rounding, for central differences.

Every op runs on real numbers; where the integer run was clamped, the value stays clamped, as the
straight-through gradient assumes. Written from the formulas, not from the ops' own code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tte.ir import Graph, Op

Array = NDArray[Any]


def linearised_logits(
    graph: Graph, integer: dict[str, Array], changed: dict[str, Array], count: int
) -> Array:
    """Real logits, in accumulator steps, with some parameters replaced."""
    x = integer[graph.inputs[0]].astype(float)
    base: dict[str, Array] = {graph.inputs[0]: x}
    moved: dict[str, Array] = {graph.inputs[0]: x}
    for op in graph.ops[:count]:
        before = _run(graph, op, base, {}, integer)
        after = _run(graph, op, moved, changed, integer)
        out = op.outputs[0]
        exact = integer[out].astype(float)
        delta = after - before
        if len(op.outputs) > 1 and op.outputs[1] and graph[op.outputs[1]].type.dtype == "bit":
            delta = delta * integer[op.outputs[1]].reshape(delta.shape)
        base[out] = exact
        moved[out] = exact + delta.reshape(exact.shape)
    return moved[graph.outputs[0]]


def _run(
    graph: Graph,
    op: Op,
    values: dict[str, Array],
    changed: dict[str, Array],
    integer: dict[str, Array],
) -> Array:
    inputs = [
        values[n] if n in values else changed.get(n, np.asarray(graph[n].data, float))
        for n in op.inputs
    ]
    attrs = op.attrs
    if op.kind in ("conv2d_int8", "depthwise_conv2d_int8"):
        acc = _window_sums(op, inputs) + inputs[2]
        return acc * np.asarray(attrs.requant.factor)
    if op.kind == "linear_int32":
        return (inputs[0] - attrs.input_zero_point) @ inputs[1].T + inputs[2]
    if op.kind in ("add_int8", "add_broadcast_int8"):
        a, b = (
            (data - zero) * factor
            for data, zero, factor in zip(inputs, attrs.zero_points, attrs.factors, strict=True)
        )
        return a + b
    if op.kind == "mul_int8":
        a = inputs[0] - attrs.requant.input_zero_point
        return a * (inputs[1] - attrs.b_zero_point) * attrs.requant.factor[0]
    if op.kind == "clip_int8":
        return inputs[0]
    if op.kind == "softmax_int8":
        x, y = graph[op.inputs[0]].quant, graph[op.outputs[0]].quant
        assert x is not None and y is not None
        e = np.exp(inputs[0] * x.per_tensor_scale)
        return e / e.sum(axis=-1, keepdims=True) / y.per_tensor_scale
    if op.kind == "table_int8":
        x, y = graph[op.inputs[0]].quant, graph[op.outputs[0]].quant
        assert x is not None and y is not None
        real = (inputs[0] - x.zero_point) * x.per_tensor_scale
        return np.asarray(attrs.expression(real) / y.per_tensor_scale)
    if op.kind == "reshape":
        return inputs[0].reshape(graph[op.outputs[0]].type.shape)
    if op.kind == "strided_copy_int8":
        index = np.indices(attrs.sizes).reshape(len(attrs.sizes), -1).T @ np.asarray(attrs.strides)
        return inputs[0].reshape(-1)[attrs.offset + index].reshape(attrs.shape)
    if op.kind == "max_pool2d_int8":
        return _maximum(op, inputs[0], integer[op.inputs[0]])
    if op.kind == "resize_nearest2d_int8":
        return inputs[0].repeat(attrs.factors[0], axis=1).repeat(attrs.factors[1], axis=2)
    if op.kind == "concat_int8":
        parts = [
            (data - zero) * factor
            for data, zero, factor in zip(inputs, attrs.zero_points, attrs.factors, strict=True)
        ]
        return np.concatenate(parts, axis=attrs.axis)
    if op.kind == "pad_int8":
        widths = [(0, 0), *zip(attrs.before, attrs.after, strict=True)]
        widths = widths if inputs[0].ndim == 4 else [widths[0], widths[3]]
        return np.pad(inputs[0] * attrs.requant.factor[0], widths)
    if op.kind == "conv_transpose2d_int8":
        return (_transposed_sums(op, inputs) + inputs[2]) * np.asarray(attrs.requant.factor)
    if op.kind == "avg_pool2d_int8":
        return _average(op, inputs[0])
    raise NotImplementedError(op.kind)


def _positions(attrs: Any, in_h: int, in_w: int) -> Any:
    """(out_y, out_x, i, j, y, x) of every tap that lies inside the map."""
    window = attrs.window
    out_h, out_w = window.out_size(in_h, in_w)
    for oy in range(out_h):
        for ox in range(out_w):
            for i in range(window.kernel[0]):
                for j in range(window.kernel[1]):
                    y = oy * window.stride[0] + i * window.dilation[0] - window.pads[0]
                    x = ox * window.stride[1] + j * window.dilation[1] - window.pads[1]
                    if 0 <= y < in_h and 0 <= x < in_w:
                        yield oy, ox, i, j, y, x


def _window_sums(op: Op, inputs: list[Array]) -> Array:
    x, weight = inputs[:2]
    x = x.reshape(1, 1, 1, -1) if x.ndim == 2 else x
    x = x - op.attrs.requant.input_zero_point
    window, out_c = op.attrs.window, weight.shape[0]
    out = np.zeros((1, *window.out_size(x.shape[1], x.shape[2]), out_c))
    groups = x.shape[3] if "depthwise" in op.kind else window.groups
    share_in, share_out = x.shape[3] // groups, out_c // groups
    for oy, ox, i, j, y, col in _positions(op.attrs, x.shape[1], x.shape[2]):
        pixel = x[0, y, col].reshape(groups, share_in)
        kernel = weight[:, i, j].reshape(groups, share_out, share_in)
        out[0, oy, ox] += np.einsum("gi,goi->go", pixel, kernel).reshape(-1)
    return out


def _average(op: Op, x: Array) -> Array:
    x = x - op.attrs.requant.input_zero_point
    window = op.attrs.window
    shape = (1, *window.out_size(x.shape[1], x.shape[2]), x.shape[3])
    out, count = np.zeros(shape), np.zeros(shape[1:3])
    for oy, ox, _, _, y, col in _positions(op.attrs, x.shape[1], x.shape[2]):
        out[0, oy, ox] += x[0, y, col]
        count[oy, ox] += 1
    if op.attrs.count_include_pad:
        return out * op.attrs.requant.factor[0]
    return out / count[..., None] * op.attrs.requant.factor[0]


def _maximum(op: Op, x: Array, integer: Array) -> Array:
    """x where the integers have their first maximum."""
    window = op.attrs.window
    shape = (1, *window.out_size(x.shape[1], x.shape[2]), x.shape[3])
    best, out = np.full(shape, -1000.0), np.zeros(shape)
    for oy, ox, _, _, y, col in _positions(op.attrs, x.shape[1], x.shape[2]):
        larger = integer[0, y, col] > best[0, oy, ox]
        best[0, oy, ox] = np.where(larger, integer[0, y, col], best[0, oy, ox])
        out[0, oy, ox] = np.where(larger, x[0, y, col], out[0, oy, ox])
    return out


def _transposed_sums(op: Op, inputs: list[Array]) -> Array:
    """Every input pixel, spread over the output."""
    x, weight = inputs[0] - op.attrs.requant.input_zero_point, inputs[1]
    groups = op.attrs.window.groups
    height, width = op.attrs.size
    out = np.zeros((1, height, width, len(weight)))
    for oy, ox, i, j, y, col in _positions(op.attrs, height, width):
        if oy < x.shape[1] and ox < x.shape[2]:
            pixel = x[0, oy, ox].reshape(groups, -1)
            kernel = weight[:, i, j].reshape(groups, len(weight) // groups, -1)
            out[0, y, col] += np.einsum("gi,goi->go", pixel, kernel).reshape(-1)
    return out
