# SPDX-License-Identifier: Apache-2.0
"""The backward kernels of runtime_c/src/armv7em on the shapes of real networks and on odd ones.

Each call is made twice with the same data, in an emulated processor and with the portable kernels
on this machine: every array must come back the same. test_armv7em.py has the formulas; here are
the shapes that they would take too long for, and how many instructions they may take.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("unicorn")

from tests.benchmarks import kernels as bench
from tests.kernel_library import ARMV7EM_SOURCES, PORTABLE_SOURCES, kernel_library
from tests.kernel_machine import KernelMachine, kernel_machine
from tests.ops.test_kernels import (
    Random,
    TrainedChannels,
    bits,
    grad_input_scratch,
    grad_planes,
    random,
    rubbish,
    update_product,
)
from tte.errors import TteError
from tte.ops import params
from tte.ops.conv2d import grad_input_product_bytes, update_scratch_bytes
from tte.ops.depthwise_conv2d import tap_kernels, tap_planes_scratch_bytes
from tte.ops.params import Window

Array = NDArray[Any]
CONV = "tte_conv2d_grad_input_int8"
DEPTHWISE = "tte_depthwise_conv2d_grad_input_int8"
WEIGHT = "tte_conv2d_grad_weight_int8"
DEPTHWISE_WEIGHT = "tte_depthwise_conv2d_grad_weight_int8"


@dataclass(frozen=True)
class Call:
    symbol: str
    params: params.Params
    args: list[Array | None]
    scratch: Array
    macs: int

    def copies(self) -> list[Array | None]:
        """The arguments, what is shared still shared."""
        copies = {id(arg): arg.copy() for arg in self.args if arg is not None}
        return [None if arg is None else copies[id(arg)] for arg in self.args]


def machine(board: str = "mps2-an386", compiler: str = "gcc") -> KernelMachine:
    try:
        return kernel_machine(board, compiler=compiler)
    except TteError as error:
        pytest.skip(error.what)


def check(call: Call, on: KernelMachine, limit: float | None = None) -> None:
    """The same bits; with a limit, of instructions per forward multiplication."""
    expected, found = call.copies(), call.copies()
    kernel_library(PORTABLE_SOURCES).call(
        call.symbol, call.params, [*expected, call.scratch.copy()]
    )
    count = on.instructions(call.symbol, call.params, [*found, call.scratch.copy()])
    for position, (one, other) in enumerate(zip(expected, found, strict=True)):
        assert one is None or other is None or np.array_equal(one, other), f"argument {position}"
    assert limit is None or count <= limit * call.macs, count / call.macs


def check_here(call: Call) -> None:
    """The same bits under sanitizers, the DSP instructions in C."""
    expected, found = call.copies(), call.copies()
    for sources, args in ((PORTABLE_SOURCES, expected), (ARMV7EM_SOURCES, found)):
        kernel_library(sources).call(call.symbol, call.params, [*args, call.scratch.copy()])
    for one, other in zip(expected, found, strict=True):
        assert one is None or other is None or np.array_equal(one, other)


# ---- the input gradient of 1x1 convolutions ------------------------------------------------


def pointwise_grad_input(
    height: int, width: int, in_c: int, out_c: int, data: Random, **options: Any
) -> Call:
    window = Window(height, width, in_c, height, width, out_c, 1, 1, 1, 1, 1, 1, 0, 0, 1)
    return conv_grad_input(window, data, **options)


def conv_grad_input(
    window: Window,
    data: Random,
    *,
    masked: bool,
    added: bool,
    trained: bool,
    pre_shift: int = 0,
    in_place: bool = False,
) -> Call:
    in_c, out_c = window.in_c, window.out_c
    shape = (window.in_h, window.in_w, in_c)
    grad, weight = data.grad(window.out_h, window.out_w, out_c), data.weight(window)
    weights = TrainedChannels(weight, weight, 0, (None, None))
    while trained and weights.count == 0:
        weights = TrainedChannels.draw(data, weight)
    addend = data.grad(*shape) if added else None
    products = out_c * window.kernel_h * window.kernel_w / (window.stride_h * window.stride_w)
    args: list[Any] = [
        grad,
        weights.frozen,
        *weights.args,
        # Some gradients saturate, few as in training.
        data.multipliers(in_c, 12000.0 * products**0.5, pre_shift),
        addend,
        data.multipliers(in_c, 300.0, pre_shift) if added else None,
        bits(data.rng.random(shape) < 0.6) if masked else None,
        addend if in_place and added else data.int8(*shape),
        np.asarray([7], np.uint32),
    ]
    call_params = params.Conv2dGradInputParams(window, pre_shift, weights.count)
    scratch = rubbish(grad_input_scratch(window, weights.count), np.int32)
    macs = window.out_h * window.out_w * weight.size
    return Call(CONV, call_params, args, scratch, macs)


@pytest.mark.parametrize(
    ("size", "in_c", "out_c", "limit"),
    [
        (8, 192, 48, 0.95),
        (8, 48, 192, 0.83),
        (4, 384, 96, 0.91),
        (4, 96, 384, 0.82),
        (4, 576, 160, 0.86),
        (4, 96, 576, 0.85),
    ],
)
def test_network_pointwise(size: int, in_c: int, out_c: int, limit: float) -> None:
    call = pointwise_grad_input(
        size, size, in_c, out_c, random(1), masked=True, added=False, trained=False
    )
    check(call, machine(), limit)


@pytest.mark.parametrize("shape", [(4, 4, 96, 576), (2, 8, 40, 580), (4, 3, 24, 1000)])
def test_products_in_parts(shape: tuple[int, int, int, int]) -> None:
    """All pixels at once, with sums that are kept from one part of the products to the next; not
    with an addend, a shift or channels that do not go four at a time."""
    for seed, (masked, added, trained) in enumerate(itertools.product((True, False), repeat=3)):
        for pre_shift in (0, 2):
            call = pointwise_grad_input(
                *shape,
                random(seed),
                masked=masked,
                added=added,
                trained=trained,
                pre_shift=pre_shift,
            )
            check(call, machine())
            check_here(call)


# ---- the input gradient of larger kernels --------------------------------------------------


def conv(
    size: tuple[int, int],
    in_c: int,
    out_c: int,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    pads: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> Window:
    """The same padding at both ends."""
    out = [
        (size[i] + 2 * pads[i] - (kernel[i] - 1) * dilation[i] - 1) // stride[i] + 1
        for i in range(2)
    ]
    return Window(*size, in_c, *out, out_c, *kernel, *stride, *dilation, *pads, 1)


@pytest.mark.parametrize(
    ("window", "limit"),
    [
        (conv((8, 8), 16, 16, (3, 3), pads=(1, 1)), 1.03),
        (conv((32, 32), 16, 16, (3, 3), pads=(1, 1)), 0.95),
        (conv((8, 8), 64, 64, (3, 3), pads=(1, 1)), 0.93),
        (conv((8, 8), 12, 24, (3, 3), pads=(1, 1)), 1.06),
        (conv((16, 16), 8, 16, (3, 3), (2, 2), (1, 1)), 1.5),
        (conv((16, 16), 32, 64, (3, 3), (2, 2), (1, 1)), 0.9),
        (conv((12, 12), 6, 16, (5, 5)), 2.7),
        (conv((16, 16), 16, 32, (1, 1), (2, 2)), 1.8),
        (conv((64, 1), 16, 16, (9, 1), (2, 1), (4, 0)), 1.05),
        (conv((49, 10), 16, 16, (10, 4), (2, 2), (5, 1)), 1.8),
    ],
    ids=str,
)
def test_network_conv(window: Window, limit: float) -> None:
    call = conv_grad_input(window, random(1), masked=True, added=False, trained=False)
    check(call, machine(), limit)


def odd_convs() -> list[Window]:
    """Few and odd channels, maps that are no multiple of four, no tap at all for some inputs, more
    products than tiles have room for."""
    kernels = ((3, 3), (5, 5), (1, 3), (3, 1), (10, 4), (2, 2), (1, 1), (4, 3))
    found = [
        conv(size, *channels, kernel, stride, pads, dilation)
        for number, (kernel, stride) in enumerate(
            itertools.product(kernels, ((1, 1), (2, 2), (2, 1), (1, 2), (3, 2)))
        )
        for turn, (size, dilation, pads) in enumerate(
            [
                ((12, 12), (1, 1), (0, 0)),
                ((13, 8), (1, 1), (kernel[0] // 2, kernel[1] // 2)),
                ((21, 11), (2, 2), (2, 1)),
                ((20, 7), (1, 3), (kernel[0] - 1, 3)),
            ]
        )
        for channels in (
            [(5, 7), (8, 8), (3, 16), (6, 16), (16, 4), (1, 3), (12, 2)][(number + turn) % 7],
        )
    ]
    found += [conv((n, 1), 8, 12, (5, 1), (2, 1), (2, 0)) for n in (1, 2, 31, 40)]
    found += [conv((5, 4), 8, out_c, (3, 3), pads=(1, 1)) for out_c in (168, 176)]
    return found


def test_the_compiler_knows_the_scratch() -> None:
    for window in odd_convs():
        found = max(4 * window.in_c, grad_input_product_bytes(window))
        assert found == grad_input_scratch(window, 0), window


@pytest.mark.parametrize("board", ["mps2-an386", "mps2-an500"])
def test_odd_convs(board: str) -> None:
    """With and without mask, addend, also in place, shift and trained channels; in exactly the
    scratch that they have, here under sanitizers too."""
    for seed, window in enumerate(odd_convs()):
        data = random(seed + int(board[-3:]))
        call = conv_grad_input(
            window,
            data,
            masked=data.flip(),
            added=data.flip(),
            trained=data.flip(),
            pre_shift=int(data.rng.choice([0, 0, 1, 3])),
            in_place=data.flip(),
        )
        check(call, machine(board))
        check_here(call)


# ---- the input gradient of depthwise convolutions ------------------------------------------


def depthwise(size: int, channels: int, kernel: int, stride: int, pad: int | None = None) -> Window:
    pad = kernel // 2 if pad is None else pad
    out = (size + 2 * pad - kernel) // stride + 1
    return Window(
        size, size, channels, out, out, channels, kernel, kernel, stride, stride, 1, 1, pad, pad,
        channels,
    )  # fmt: skip


def grad_input(
    window: Window, data: Random, *, masked: bool, added: bool, in_place: bool, pre_shift: int = 0
) -> Call:
    shape = (window.in_h, window.in_w, window.in_c)
    grad = data.grad(window.out_h, window.out_w, window.out_c)
    macs = grad.size * window.kernel_h * window.kernel_w
    to, addend = data.int8(*shape), data.grad(*shape) if added else None
    if in_place and grad.size <= to.size:
        to.reshape(-1)[: grad.size] = grad.reshape(-1)
        grad = to
    elif in_place and addend is not None:
        to = addend
    # Some gradients saturate, few as in training.
    typical = 12000.0 * window.kernel_h / window.stride_h
    args: list[Array | None] = [
        grad,
        data.weight(window),
        data.multipliers(window.in_c, typical, pre_shift),
        addend,
        data.multipliers(window.in_c, 300.0, pre_shift) if added else None,
        bits(data.rng.random(shape) < 0.6) if masked else None,
        to,
        np.asarray([7], np.uint32),
    ]
    scratch = grad_planes(window.in_h, window.in_w, window.kernel_h, window.kernel_w)
    call_params = params.Conv2dGradInputParams(window, pre_shift)
    return Call(DEPTHWISE, call_params, args, rubbish(scratch, np.int32), macs)


@pytest.mark.parametrize(
    ("size", "channels", "kernel", "stride", "limit"),
    [
        (8, 160, 5, 1, 1.45),
        (8, 192, 3, 1, 2.5),
        (8, 240, 7, 2, 2.0),
        (4, 384, 5, 1, 1.65),
        (4, 576, 3, 1, 2.9),
        (8, 96, 7, 1, None),
        (16, 24, 5, 2, 3.1),
        (16, 24, 3, 2, 7.6),
    ],
)
def test_network_depthwise(
    size: int, channels: int, kernel: int, stride: int, limit: float | None
) -> None:
    window = depthwise(size, channels, kernel, stride)
    call = grad_input(window, random(1), masked=True, added=False, in_place=True)
    check(call, machine(), limit)


def odd_windows() -> list[Window]:
    """Maps that are no multiple of four, every parity of padding, few and odd channels; for a
    stride of 2 also multiples of eight and almost."""
    return [
        depthwise(size, channels, kernel, stride, pad)
        for kernel in (2, 3, 4, 5, 6, 7, 8)
        for stride in (1, 2, 3)
        for pad in sorted({0, 1, kernel // 2, kernel - 1})
        for size, channels in (
            (kernel, 1),
            (9, 8),
            (13, 5),
            *([(8, 8), (16, 12), (15, 16)] * (stride == 2)),
        )
        if size + 2 * pad >= kernel
    ]


@pytest.mark.parametrize("board", ["mps2-an386", "mps2-an500"])
def test_odd_depthwise(board: str) -> None:
    """With and without mask, addend, shift, in place over either."""
    for i, window in enumerate(odd_windows()):
        data = random(i)
        masked, added, in_place = data.flip(), data.flip(), data.flip()
        pre_shift = int(data.rng.choice([0, 0, 1, 3, 8, 9]))
        check(
            grad_input(
                window, data, masked=masked, added=added, in_place=in_place, pre_shift=pre_shift
            ),
            machine(board),
        )


def test_a_map_of_many_rows() -> None:
    """More sums than are kept at once; rows longer than that."""
    for size, stride in ((21, 1), (70, 1), (33, 2)):
        window = depthwise(size, 8, 3, stride)
        call = grad_input(window, random(size), masked=True, added=False, in_place=False)
        check(call, machine())


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("factor", [4.0, 100.0, 2.0**40])
def test_gradients_that_do_not_fit(stride: int, factor: float) -> None:
    """Many or all are clamped, each is counted once; at last they are no int16."""
    for size in (8, 13):
        call = grad_input(
            depthwise(size, 16, 3, stride), random(8), masked=True, added=False, in_place=False
        )
        multipliers = call.args[2]
        assert multipliers is not None
        call.args[2] = np.minimum(multipliers * factor, 2.0**31 - 1).astype(np.int32)
        check(call, machine())


def rectangle(height: int, width: int, channels: int, kernel: int) -> Window:
    pad = kernel // 2
    return Window(
        height, width, channels, height, width, channels, kernel, kernel, 1, 1, 1, 1, pad, pad,
        channels,
    )  # fmt: skip


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize(
    "window",
    [
        *(depthwise(size, 8, kernel, 1) for size, kernel in ((24, 3), (63, 3), (45, 5), (30, 7))),
        *(depthwise(size, 8, kernel, 2) for size, kernel in ((62, 3), (47, 3), (40, 5), (48, 7))),
        *(depthwise(40, 7, 5, stride, pad) for stride in (1, 2) for pad in (0, 1, 4)),
        *(rectangle(*size, 8, 3) for size in ((300, 4), (400, 2), (3, 200), (2, 400), (1, 1500))),
        rectangle(260, 3, 5, 7),
    ],
    ids=lambda window: f"{window.kernel_h} {window.stride_h} {window.pad_top} {window.in_h}",
)
def test_bands(window: Window, in_place: bool) -> None:
    """Maps that have no room for four planes, in bands and, where they are too wide or gradients
    would be overwritten, row by row; in the scratch that they have, here under sanitizers too."""
    masked = window.in_c == 8
    call = grad_input(window, random(9), masked=masked, added=False, in_place=in_place)
    check(call, machine())
    check_here(call)


def test_large_maps_take_few_instructions() -> None:
    shapes = [(64, 3, 1, 2.25), (32, 5, 1, 1.35), (32, 7, 1, 1.1), (64, 3, 2, 7.0)]
    for size, kernel, stride, limit in shapes:
        window = depthwise(size, 16, kernel, stride)
        call = grad_input(window, random(9), masked=True, added=False, in_place=stride == 1)
        check(call, machine(), limit)


# ---- weight gradients ----------------------------------------------------------------------


def grad_weight(size: int, in_c: int, out_c: int, data: Random, log2_moves: Sequence[int]) -> Call:
    """The step moves a typical weight by 2^log2_moves of its 256ths."""
    window = Window(size, size, in_c, size, size, out_c, 1, 1, 1, 1, 1, 1, 0, 0, 1)
    return dense_grad_weight(window, data, log2_moves)


def dense_grad_weight(window: Window, data: Random, log2_moves: Sequence[int]) -> Call:
    row = window.kernel_h * window.kernel_w * window.in_c
    scratch = max(4 * row, update_product(window))
    assert scratch == max(4 * row, update_scratch_bytes(window, row))
    return grad_weight_call(WEIGHT, window, scratch, data, log2_moves)


def depthwise_grad_weight(window: Window, data: Random, log2_moves: Sequence[int]) -> Call:
    scratch = tap_planes_scratch_bytes(window)
    return grad_weight_call(DEPTHWISE_WEIGHT, window, scratch, data, log2_moves)


def grad_weight_call(
    symbol: str, window: Window, scratch: int, data: Random, log2_moves: Sequence[int]
) -> Call:
    size, out_c = math.sqrt(window.out_h * window.out_w), window.out_c
    weight = data.weight(window)
    residual = data.int8(*weight.shape)
    weight[(weight == -127) & (residual < 0)] = -126  # below the range
    exponent = int(np.log2(size * 5000.0)) + 30
    rates = np.stack(
        [data.rng.integers(2**30, 2**31, out_c), exponent - data.rng.choice(log2_moves, out_c)],
        axis=1,
    )
    rates[data.rng.random(out_c) < 0.05] = 0
    args: list[Array | None] = [
        data.int8(window.in_h, window.in_w, window.in_c),
        data.grad(window.out_h, window.out_w, out_c),
        np.asarray([data.rng.integers(2**30, 2**31), 31], np.int32),
        rates.astype(np.int32),
        weight,
        residual,
    ]
    call_params = params.Conv2dGradWeightParams(window, int(data.int8()))
    macs = window.out_h * window.out_w * weight.size
    return Call(symbol, call_params, args, rubbish(scratch, np.int32), macs)


@pytest.mark.parametrize(
    ("size", "in_c", "out_c", "limit"),
    [(8, 48, 240, 0.95), (8, 12, 144, 1.19), (4, 24, 576, 1.85), (1, 160, 10, 12.5)],
)
def test_network_grad_weight(size: int, in_c: int, out_c: int, limit: float) -> None:
    check(grad_weight(size, in_c, out_c, random(2), [-2, 0, 2, 4]), machine(), limit)


def dense(
    size: tuple[int, int],
    channels: tuple[int, int],
    kernel: tuple[int, int],
    stride: int = 1,
    pad: bool = True,
    dilation: int = 1,
) -> Window:
    """With half a kernel around the map, or nothing."""
    reach = [(k - 1) * dilation for k in kernel]
    pads = [r // 2 if pad else 0 for r in reach]
    out = [(size[i] + 2 * pads[i] - reach[i] - 1) // stride + 1 for i in range(2)]
    return Window(
        *size, channels[0], *out, channels[1], *kernel, stride, stride, dilation, dilation, *pads, 1
    )


@pytest.mark.parametrize(
    ("window", "limit"),
    [
        (dense((8, 8), (16, 16), (3, 3)), 1.15),
        (dense((8, 8), (64, 64), (3, 3)), 0.96),
        (dense((16, 16), (8, 16), (3, 3), 2), 1.15),
        (dense((8, 8), (6, 16), (5, 5)), 1.25),
        (dense((16, 16), (1, 8), (3, 3)), 1.8),
        (dense((12, 12), (3, 16), (3, 3)), 1.35),
        (dense((1, 64), (8, 16), (1, 3)), 1.2),
        (dense((49, 10), (1, 64), (10, 4), 2), 1.0),
        (dense((16, 16), (16, 32), (1, 1), 2), 1.2),
        (dense((10, 10), (5, 7), (3, 3), dilation=2), 1.85),
        (dense((9, 7), (5, 7), (3, 3), pad=False), 2.7),
        (dense((4, 4), (24, 10), (4, 4), pad=False), 11),
        (dense((2, 2), (5, 7), (3, 3), 2), None),
        (dense((3, 3), (4, 4), (7, 7)), None),
        # In parts; rows that are one; rows that are too long.
        (dense((32, 32), (16, 16), (3, 3)), 1.0),
        (dense((28, 28), (1, 6), (5, 5)), 1.7),
        (dense((96, 96), (3, 16), (3, 3), 2), 1.3),
        (dense((31, 37), (5, 7), (3, 3)), 1.8),
        (dense((41, 40), (20, 5), (1, 1)), 1.6),
        (dense((2, 129), (3, 4), (2, 3)), None),
        (dense((4, 401), (3, 4), (1, 3)), 2.8),
        (dense((1, 600), (3, 4), (1, 3)), 2.8),
        (dense((2, 1600), (3, 4), (1, 3)), None),
    ],
    ids=lambda case: (
        f"{case.in_c}->{case.out_c} {case.kernel_h}x{case.kernel_w} @{case.in_h}x{case.in_w}"
        if isinstance(case, Window)
        else None
    ),
)
def test_dense_grad_weight(window: Window, limit: float | None) -> None:
    """Kernels larger than 1x1, strides; here under sanitizers too."""
    call = dense_grad_weight(window, random(2), [-2, 0, 2, 4])
    check(call, machine(), limit)
    check_here(call)


@pytest.mark.parametrize(
    ("size", "channels", "kernel", "stride", "limit"),
    [
        (4, 336, 3, 1, 2.85),
        (8, 192, 3, 1, 1.85),
        (8, 160, 5, 1, 1.18),
        (8, 160, 7, 1, 1.03),
        (8, 240, 7, 2, 1.63),
        (4, 384, 5, 1, 1.7),
        (16, 48, 3, 2, 2.65),
        (16, 48, 7, 2, 1.28),
        (16, 48, 7, 1, 0.99),
    ],
)
def test_depthwise_grad_weight(
    size: int, channels: int, kernel: int, stride: int, limit: float
) -> None:
    window = depthwise(size, channels, kernel, stride)
    check(depthwise_grad_weight(window, random(2), [-2, 0, 2, 4]), machine(), limit)


@pytest.mark.parametrize("in_c", [1, 4, 7, 8, 63, 300, 1283])
def test_one_pixel(in_c: int) -> None:
    """In exactly the scratch that it has."""
    call = grad_weight(1, in_c, 3, random(in_c), [-2, 4, 9])
    check(call, machine())
    check_here(call)


def test_no_more_than_forward() -> None:
    """Weight gradients per multiplication, beside the forward kernel of the same layer."""
    for layer in bench.UPDATES:
        if layer.depthwise and layer.stride == 1:
            backward = bench.grad_weight(machine(), layer, np.random.default_rng(0))
            forward = bench.masked_forward(machine(), layer, np.random.default_rng(0))
            assert backward <= forward, layer.name


Pair = tuple[int, int]


def window_of(
    size: Pair, kernel: Pair, stride: Pair, dilation: Pair, begin: Pair, end: Pair, channels: int
) -> Window | None:
    """With pads above and to the left, below and to the right; None where nothing comes out."""
    rows, cols = (
        (n + before + behind - (k - 1) * apart - 1) // step + 1
        for n, k, step, apart, before, behind in zip(
            size, kernel, stride, dilation, begin, end, strict=True
        )
    )
    if min(rows, cols) < 1:
        return None
    return Window(
        *size, channels, rows, cols, channels, *kernel, *stride, *dilation, *begin, channels
    )


def odd_taps(seed: int) -> list[Window]:
    """All kernels and strides on maps of 1x1 to 21x21, with pads of up to a kernel."""
    rng = random(seed).rng

    def pair(high: Pair) -> Pair:
        return int(rng.integers(0, high[0] + 1)), int(rng.integers(0, high[1] + 1))

    found = []
    for kernel in itertools.product(range(1, 8), range(1, 8)):
        for stride in itertools.product((1, 2), (1, 2)):
            high = int(rng.choice([3, 7, 20]))
            size = pair((high, high))
            dilation = int(rng.choice([1, 1, 1, 2, 3])), int(rng.choice([1, 1, 1, 2, 3]))
            reach = (kernel[0] - 1) * dilation[0], (kernel[1] - 1) * dilation[1]
            begin, end = pair(reach), pair(reach)
            if rng.random() < 0.5:
                begin = reach[0] // 2, reach[1] // 2
                end = reach[0] - begin[0], reach[1] - begin[1]
            channels = int(rng.choice([1, 4, 5, 8]))
            size = size[0] + 1, size[1] + 1
            found.append(window_of(size, kernel, stride, dilation, begin, end, channels))
    return [window for window in found if window is not None]


def test_taps_of_large_maps() -> None:
    """One channel at a time, many blocks."""
    for size, channels, kernel, stride in ((40, 6, 3, 1), (41, 3, 5, 2), (90, 2, 7, 2)):
        window = depthwise(size, channels, kernel, stride)
        call = depthwise_grad_weight(window, random(size), [-2, 3])
        check(call, machine())
        check_here(call)


@pytest.mark.parametrize("board", ["mps2-an386", "mps2-an500"])
def test_odd_taps(board: str) -> None:
    """In exactly the scratch that they have, by the routines that the compiler knows of; here under
    sanitizers too."""
    on = machine(board)
    for seed, window in enumerate(odd_taps(int(board[-3:]))):
        call = depthwise_grad_weight(window, random(seed), [-2, 3, 6, 9])
        check(call, on)
        check_here(call)
        rates, known = call.args[3], tap_kernels(window)
        assert rates is not None
        if rates.any():
            reached = {name for name in on.reached if re.match("tte_taps_(near|[357])", name)}
            assert reached == {name for name in known if "split" not in name}, window
        assert {name for name in on.reached if "_split_" in name} <= known, window


@pytest.mark.parametrize("board", ["mps2-an386", "mps2-an500"])
def test_any_step(board: str) -> None:
    """Steps from nothing to far beyond the range, on both sides of what an int16 holds."""
    for seed, log2_move in enumerate(
        [-60, -33, -32, -13, -12, -11, -10, -9, 5, 6, 7, 8, 9, 10, 12, 15, 16, 17, 45]
    ):
        for size, in_c, out_c in ((4, 24, 7), (3, 9, 4), (1, 5, 3)):
            check(grad_weight(size, in_c, out_c, random(seed), [log2_move]), machine(board))
        for size, channels, kernel in ((4, 8, 3), (7, 5, 5), (3, 4, 2)):
            call = depthwise_grad_weight(
                depthwise(size, channels, kernel, 1), random(seed), [log2_move]
            )
            check(call, machine(board))
            check_here(call)


@pytest.mark.parametrize("compiler", ["gcc", "zig", "clang"])
def test_every_compiler(compiler: str) -> None:
    on = machine(compiler=compiler)
    for stride in ((1, 1), (2, 2)):
        window = conv((8, 9), 8, 12, (3, 3), stride, (1, 1))
        check(conv_grad_input(window, random(2), masked=True, added=False, trained=True), on)
    window = depthwise(9, 16, 5, 2)
    check(grad_input(window, random(3), masked=True, added=False, in_place=True), on)
    check(grad_input(window, random(4), masked=True, added=True, in_place=False), on)
    check(grad_weight(5, 14, 9, random(5), [0, 7, 15]), on)
    for size, kernel, stride in ((4, 3, 1), (9, 3, 1), (9, 5, 1), (9, 7, 1), (8, 7, 2), (4, 7, 1)):
        window = depthwise(size, 8, kernel, stride)
        check(depthwise_grad_weight(window, random(6), [0, 7, 15]), on)
