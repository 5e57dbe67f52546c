# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on constants, as exporters write it around shapes and weights: done at import.

Each entry takes a node's attributes and its inputs (None for one that is left out) and returns
the node's value. Files are hostile: check_cost() bounds a result before it is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tte.ops.layout import axes_of, reshaped, slices

Array = NDArray[Any]

MAX_ELEMS = 1 << 20  # of a result that may be larger than its inputs
LAYOUTS = frozenset({"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
SHAPED = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}  # op -> the input that is a shape


def check_cost(op_type: str, inputs: Sequence[Array | None]) -> None:
    """ValueError where a result would be too large."""
    if op_type in LAYOUTS:
        return
    arrays = [x for x in inputs if x is not None]
    elems = sum(x.size for x in arrays)
    if op_type in SHAPED:
        sizes = [int(size) for size in arrays[SHAPED[op_type]].reshape(-1)]
        if any(size < 0 for size in sizes):
            raise ValueError("a size is negative")
        whole = math.prod(sizes)
        elems = max(elems, whole, arrays[0].size * whole if op_type != "ConstantOfShape" else 0)
    elif op_type == "Range":
        elems = math.ceil(abs((float(arrays[1]) - float(arrays[0])) / float(arrays[2])))
    elif op_type == "Gather":
        elems += arrays[0].size * arrays[1].size
    elif op_type in ELEMENTWISE:
        shape: tuple[int, ...] = ()
        for x in arrays:
            shape = np.broadcast_shapes(shape, x.shape)
        elems = max(elems // 16, math.prod(shape))
    if elems > MAX_ELEMS:
        raise ValueError("they are too large; run a simplifier on the model first")


# ---- the operators ------------------------------------------------------------------------


def _cast(attrs: Mapping[str, Any], x: Array) -> Array:
    types = {
        1: "float32", 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64", 9: "bool",
        10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
    }  # fmt: skip
    return x.astype(types[attrs["to"]])


def _reshape(attrs: Mapping[str, Any], x: Array, target: Array | None = None) -> Array:
    sizes = attrs["shape"] if target is None else target.reshape(-1).tolist()
    return x.reshape(reshaped(x.shape, sizes, bool(attrs.get("allowzero", 0))))


def _flatten(attrs: Mapping[str, Any], x: Array) -> Array:
    axis = attrs.get("axis", 1)
    return x.reshape(math.prod(x.shape[: axis % x.ndim if axis < 0 else axis]), -1)


def _unsqueeze(attrs: Mapping[str, Any], x: Array, axes: Array | None = None) -> Array:
    count = len(attrs.get("axes", ())) if axes is None else axes.size
    return np.expand_dims(x, axes_of(attrs, axes, x.ndim + count))


def _squeeze(attrs: Mapping[str, Any], x: Array, axes: Array | None = None) -> Array:
    everything = axes is None and "axes" not in attrs
    return x.squeeze() if everything else x.squeeze(axes_of(attrs, axes, x.ndim))


def _slice(attrs: Mapping[str, Any], x: Array, *inputs: Array | None) -> Array:
    for axis, first, step, count in slices(attrs, x.shape, *inputs):
        x = np.take(x, [first + step * i for i in range(count)], axis=axis)
    return x


def _div(attrs: Mapping[str, Any], a: Array, b: Array) -> Array:
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        if (b == 0).any():
            raise ValueError("a division by 0")
        return (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)
    return a / b


def _constant_of_shape(attrs: Mapping[str, Any], shape: Array) -> Array:
    value = np.asarray(attrs.get("value", np.zeros(1, np.float32)))
    return np.full(shape.reshape(-1).astype(np.int64), value.reshape(-1)[0])


def _expand(attrs: Mapping[str, Any], x: Array, shape: Array) -> Array:
    return x * np.ones(shape.reshape(-1).astype(np.int64), x.dtype)


def _range(attrs: Mapping[str, Any], start: Array, limit: Array, delta: Array) -> Array:
    first, end, step = (value.reshape(()).item() for value in (start, limit, delta))
    return np.arange(first, end, step, dtype=start.dtype)


def _reduced(function: Callable[..., Array]) -> Callable[..., Array]:
    def reduce(attrs: Mapping[str, Any], x: Array, axes: Array | None = None) -> Array:
        listed = None if axes is None and "axes" not in attrs else axes_of(attrs, axes, x.ndim)
        return function(x, axis=listed, keepdims=bool(attrs.get("keepdims", 1)))

    return reduce


ELEMENTWISE: dict[str, Callable[..., Array]] = {
    "Add": lambda attrs, a, b: a + b,
    "Sub": lambda attrs, a, b: a - b,
    "Mul": lambda attrs, a, b: a * b,
    "Div": _div,
    "Pow": lambda attrs, a, b: np.power(a, b.astype(a.dtype)),
    "Equal": lambda attrs, a, b: np.equal(a, b),
    "Less": lambda attrs, a, b: np.less(a, b),
    "Greater": lambda attrs, a, b: np.greater(a, b),
    "And": lambda attrs, a, b: np.logical_and(a, b),
    "Or": lambda attrs, a, b: np.logical_or(a, b),
    "Not": lambda attrs, x: np.logical_not(x),
    "Where": lambda attrs, condition, *parts: np.where(condition, *parts),
    "Min": lambda attrs, *parts: np.minimum.reduce(np.broadcast_arrays(*parts)),
    "Max": lambda attrs, *parts: np.maximum.reduce(np.broadcast_arrays(*parts)),
    "Neg": lambda attrs, x: -x,
    "Abs": lambda attrs, x: np.abs(x),
    "Sqrt": lambda attrs, x: np.sqrt(x),
    "Exp": lambda attrs, x: np.exp(x),
    "Floor": lambda attrs, x: np.floor(x),
    "Ceil": lambda attrs, x: np.ceil(x),
    "Reciprocal": lambda attrs, x: 1 / x,
    "Cast": _cast,
}

FOLDED: dict[str, Callable[..., Array]] = {
    **ELEMENTWISE,
    "Concat": lambda attrs, *parts: np.concatenate(parts, attrs["axis"]),
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": lambda attrs, x, index: np.take(x, index, axis=attrs.get("axis", 0)),
    "Range": _range,
    "ReduceMax": _reduced(np.max),
    "ReduceMin": _reduced(np.min),
    "ReduceProd": _reduced(np.prod),
    "ReduceSum": _reduced(np.sum),
    "Reshape": _reshape,
    "Size": lambda attrs, x: np.asarray(x.size, np.int64),
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Tile": lambda attrs, x, repeats: np.tile(x, repeats.reshape(-1).astype(np.int64)),
    "Transpose": lambda attrs, x: x.transpose(attrs.get("perm")),
    "Unsqueeze": _unsqueeze,
}
