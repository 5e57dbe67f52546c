# SPDX-License-Identifier: Apache-2.0
"""Axes in the file and in memory: against numpy, which really moves the elements."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tte.ops.layout import Layout, channels_last, moves, reshaped

cases = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def stored(array: NDArray[np.int64], layout: Layout) -> NDArray[np.int64]:
    """The memory of an array of the file."""
    assert array.shape == layout.shape
    return array.transpose(layout.memory).reshape(-1)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    rank = draw(st.integers(1, 5))
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=rank, max_size=rank)))
    return Layout(shape, tuple(draw(st.permutations(range(rank)))))


@cases
@given(layouts(), st.data())
def test_transpose_moves_nothing(layout: Layout, data: st.DataObject) -> None:
    perm = data.draw(st.permutations(range(len(layout.shape))))
    array = np.arange(math.prod(layout.shape)).reshape(layout.shape)
    after = layout.transposed(perm)
    assert (stored(array.transpose(perm), after) == stored(array, layout)).all()


@cases
@given(layouts(), st.data())
def test_reshape(layout: Layout, data: st.DataObject) -> None:
    """Elements move only in the transpose that reshaped() asks for."""
    sizes = data.draw(st.permutations([p for size in layout.shape for p in _factors(size)]))
    count = data.draw(st.integers(1, 5))
    target = [1] * count
    for size in sizes:
        target[data.draw(st.integers(0, count - 1))] *= size
    array = np.arange(math.prod(layout.shape)).reshape(layout.shape)
    first, after = layout.reshaped(target)
    assert first.shape == layout.shape and after.shape == tuple(target)
    assert (stored(array.reshape(target), after) == stored(array, first)).all()


def _factors(size: int) -> list[int]:
    return [2, size // 2] if size in (4, 6) else [size]


@cases
@given(layouts(), st.data())
def test_moves(layout: Layout, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(layout.shape))))
    array = np.arange(math.prod(layout.shape)).reshape(layout.shape)
    dims, perm = moves(layout, order)
    moved = stored(array, layout).reshape(dims).transpose(perm).reshape(-1)
    assert (moved == stored(array, layout.ordered(order))).all()
    assert all(b != a + 1 for a, b in itertools.pairwise(perm))  # joined already


@cases
@given(layouts())
def test_map_shape(layout: Layout) -> None:
    if len(layout.moving) > 4:
        with pytest.raises(ValueError, match="dimensions"):
            _ = layout.map_shape
        return
    try:
        shape = layout.map_shape
    except ValueError:
        assert len(layout.moving) == 4
        return
    assert math.prod(shape) == math.prod(layout.shape) and shape[0] == 1
    assert len(shape) in (2, 4)
    sizes = [size for size in shape if size > 1]
    assert sizes == [layout.shape[axis] for axis in layout.moving]
    assert layout.resized(shape) == layout
    for axis in layout.moving:
        assert shape[layout.axis(axis)] == layout.shape[axis]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 3, 4, 5), (1, 4, 5, 3)),
        ((1, 3, 5), (1, 1, 5, 3)),
        ((1, 3), (1, 3)),
        ((3,), (1, 3)),
        ((7, 3), (1, 1, 7, 3)),
        ((1, 3, 1, 1), (1, 1, 1, 3)),
    ],
)
def test_channels_last(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert Layout(shape, channels_last(len(shape))).map_shape == expected


def test_channel_shuffle_is_one_transpose() -> None:
    layout = Layout((1, 6, 4, 5), channels_last(4))
    first, split = layout.reshaped((1, 2, 3, 4, 5))
    assert first == layout
    swapped = split.transposed((0, 2, 1, 3, 4))
    first, merged = swapped.reshaped((1, 6, 4, 5))
    assert merged.moving == layout.moving
    assert moves(swapped, first.moving) == ((20, 2, 3), (0, 2, 1))


@pytest.mark.parametrize(
    ("target", "zero", "expected"),
    [
        ((0, -1), False, (2, 12)),
        ((4, -1, 1), False, (4, 6, 1)),
        ((24,), False, (24,)),
        ((0, 3, 4), True, None),
        ((-1, -1), False, None),
        ((5, -1), False, None),
        ((2, 13), False, None),
        ((-2, 12), False, None),
    ],
)
def test_reshape_targets(
    target: tuple[int, ...], zero: bool, expected: tuple[int, ...] | None
) -> None:
    if expected is None:
        with pytest.raises(ValueError, match=r"target|as"):
            reshaped((2, 3, 4), target, zero)
    else:
        assert reshaped((2, 3, 4), target, zero) == expected
