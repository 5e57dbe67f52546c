# SPDX-License-Identifier: Apache-2.0
"""How a file's activation lies in memory: Reshape and Transpose without moving a byte.

A file counts its axes as it likes ([N, C, H, W], [N, H, W, C], [N, C, L], ...); here the elements
are stored once, and only the order of the file's axes in memory is tracked. A node that needs
another order gets a transpose op first; pairs of transposes vanish.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MAX_AXES = 4  # of a map here: N, height, width, channels


def channels_last(rank: int) -> tuple[int, ...]:
    """The order of memory that convolutions take: axis 1 of the file is the fastest."""
    return tuple(range(rank)) if rank < 3 else (0, *range(2, rank), 1)


@dataclass(frozen=True, slots=True)
class Layout:
    """`shape`: in the file; `memory`: the file's axes from the slowest to the fastest."""

    shape: tuple[int, ...]
    memory: tuple[int, ...]

    @property
    def moving(self) -> tuple[int, ...]:
        """The axes in memory order, less those of size 1: what tells two orders apart."""
        return tuple(axis for axis in self.memory if self.shape[axis] != 1)

    @property
    def axes(self) -> tuple[int, ...]:
        """The file's axis of each axis of `map_shape`, -1 where there is none."""
        axes = list(self.memory)
        while len(axes) > MAX_AXES or (len(axes) == MAX_AXES and self.shape[axes[0]] != 1):
            unit = next((axis for axis in axes if self.shape[axis] == 1), None)
            if unit is None:
                raise ValueError(f"{len(self.moving)} dimensions of more than one element")
            axes.remove(unit)
        vector = len(axes) < 2 or (len(axes) == 2 and self.shape[axes[0]] == 1)
        return (-1,) * ((2 if vector else MAX_AXES) - len(axes)) + tuple(axes)

    @property
    def map_shape(self) -> tuple[int, ...]:
        """The shape here: [1, C], or NHWC where C is whatever is the fastest in memory.
        ValueError for more axes."""
        return tuple(1 if axis < 0 else self.shape[axis] for axis in self.axes)

    def axis(self, file_axis: int) -> int:
        """Where the file's axis is in `map_shape`; 0 for one of size 1 that is not there."""
        return self.axes.index(file_axis) if file_axis in self.axes else 0

    @property
    def settled(self) -> Layout:
        """The same elements in the same places: channels last where that is so, else as they
        are. Axes of one element may stand anywhere."""
        usual = self.ordered(channels_last(len(self.shape)))
        return usual if usual.moving == self.moving else self

    def ordered(self, memory: Sequence[int]) -> Layout:
        """The same shape, stored in another order."""
        return Layout(self.shape, tuple(memory))

    def with_last(self, file_axis: int) -> tuple[int, ...]:
        """An order whose fastest axis is `file_axis`: as now where it is, else as the file has
        the others."""
        if not self.moving or self.moving[-1] == file_axis or self.shape[file_axis] == 1:
            return (*(axis for axis in self.memory if axis != file_axis), file_axis)
        return (*(axis for axis in range(len(self.shape)) if axis != file_axis), file_axis)

    def resized(self, map_shape: Sequence[int]) -> Layout:
        """The same axes with the sizes of a result of `map_shape`."""
        sizes = dict(zip(self.axes[::-1], tuple(map_shape)[::-1], strict=False))
        return Layout(tuple(sizes.get(axis, 1) for axis in range(len(self.shape))), self.memory)

    def transposed(self, perm: Sequence[int]) -> Layout:
        """The file's Transpose: output axis i is input axis perm[i]."""
        return Layout(
            tuple(self.shape[axis] for axis in perm),
            tuple(perm.index(axis) for axis in self.memory),
        )

    def reshaped(self, target: Sequence[int]) -> tuple[Layout, Layout]:
        """The file's Reshape to `target`, of as many elements: (the order that the elements must
        have first, what they are then). The first is this layout where no element moves."""
        target = tuple(target)
        groups = _groups(self.shape, target)
        place = {axis: position for position, axis in enumerate(self.moving)}
        free = all(
            place[after] == place[before] + 1
            for source, _ in groups
            for before, after in itertools.pairwise(source)
        )
        if free:
            groups.sort(key=lambda group: place[group[0][0]])
            return self, _stored(target, [axis for _, axes in groups for axis in axes])
        # Channel last where the channels are an axis of their own.
        groups.sort(key=lambda group: group[1] == [1] and len(target) > 2)
        first = _stored(self.shape, [axis for axes, _ in groups for axis in axes])
        return first, _stored(target, [axis for _, axes in groups for axis in axes])


def _stored(shape: tuple[int, ...], moving: Sequence[int]) -> Layout:
    return Layout(shape, (*(a for a in range(len(shape)) if a not in moving), *moving))


def _groups(source: Sequence[int], target: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The smallest runs of axes (less those of size 1) that hold the same elements."""
    left = [axis for axis, size in enumerate(source) if size != 1]
    right = [axis for axis, size in enumerate(target) if size != 1]
    groups = []
    while left:
        a, b = [left.pop(0)], [right.pop(0)]
        while (size := math.prod(source[i] for i in a)) != (
            other := math.prod(target[i] for i in b)
        ):
            (a if size < other else b).append((left if size < other else right).pop(0))
        groups.append((a, b))
    return groups


def moves(before: Layout, after: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(dims, perm) of the transpose that stores `before` in the order `after`: memory of shape
    dims, transposed by perm. Axes that stay together are one."""
    old, new = list(before.moving), [a for a in after if before.shape[a] != 1]
    runs: list[list[int]] = []
    for axis in old:
        at = new.index(axis)
        if runs and at > 0 and new[at - 1] == runs[-1][-1]:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    dims = tuple(math.prod(before.shape[axis] for axis in run) for run in runs)
    perm = tuple(sorted(range(len(runs)), key=lambda i: new.index(runs[i][0])))
    return dims, perm


# ---- what nodes say about axes ------------------------------------------------------------


def axes_of(attrs: Mapping[str, Any], axes: Array | None, ndim: int) -> tuple[int, ...]:
    """Axes from an attribute or an input, not negative; ValueError for none or wrong ones."""
    listed = attrs.get("axes") if axes is None else axes.reshape(-1).tolist()
    if listed is None:
        raise ValueError("no axes")
    found = tuple(int(axis) + ndim if axis < 0 else int(axis) for axis in listed)
    if any(not 0 <= axis < ndim for axis in found) or len(set(found)) != len(found):
        raise ValueError(f"axes {tuple(listed)} of {ndim} dimensions")
    return found


def reshaped(shape: Sequence[int], target: Sequence[int], allowzero: bool) -> tuple[int, ...]:
    """ONNX's Reshape: 0 keeps a dimension (unless allowzero), one -1 is what is left."""
    sizes = [
        shape[i] if size == 0 and not allowzero and i < len(shape) else int(size)
        for i, size in enumerate(target)
    ]
    if sizes.count(-1) > 1 or any(size < -1 for size in sizes):
        raise ValueError(f"the target shape {list(target)}")
    known = math.prod(size for size in sizes if size != -1)
    elems = math.prod(shape)
    if -1 in sizes:
        if known == 0 or elems % known:
            raise ValueError(f"{list(shape)} as {list(target)}")
        sizes[sizes.index(-1)] = elems // known
    if math.prod(sizes) != elems:
        raise ValueError(f"{list(shape)} as {list(target)}")
    return tuple(sizes)


def slices(
    attrs: Mapping[str, Any], shape: Sequence[int], *inputs: Array | None
) -> tuple[tuple[int, int, int, int], ...]:
    """ONNX's Slice: (axis, first, step, count) per axis that is cut; attributes before opset 10,
    inputs since."""

    def listed(position: int, name: str) -> list[int] | None:
        if position < len(inputs) and inputs[position] is not None:
            return [int(value) for value in np.asarray(inputs[position]).reshape(-1)]
        return list(attrs[name]) if name in attrs else None

    starts, ends = listed(0, "starts"), listed(1, "ends")
    if starts is None or ends is None:
        raise ValueError("no starts and ends")
    axes = listed(2, "axes")
    axes = list(range(len(starts))) if axes is None else axes
    steps = listed(3, "steps") or [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise ValueError("starts, ends, axes and steps differ in length")
    cuts = []
    for axis, start, end, step in zip(
        axes_of({"axes": axes}, None, len(shape)), starts, ends, steps, strict=True
    ):
        if step == 0:
            raise ValueError("a step of 0")
        picked = range(shape[axis])[slice(start, end, step)]
        cuts.append((axis, picked.start, step, len(picked)))
    return tuple(cuts)
