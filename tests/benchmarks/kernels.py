# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.benchmarks.kernels [--portable]`: instructions per multiplication of single
kernels on emulated Cortex-M4 and M7, all-in: widening, bias, requantisation, stores and driver.

Random data; shapes of MCUNet-5fps. Counts are exact and repeatable.
"""

from __future__ import annotations

import argparse
import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from tests.kernel_machine import KernelMachine, kernel_machine
from tte.ops import params
from tte.ops.conv2d import (
    grad_input_product_bytes,
    product_scratch_bytes,
    update_scratch_bytes,
)
from tte.ops.depthwise_conv2d import (
    grad_input_scratch_bytes,
    planes_scratch_bytes,
    tap_planes_scratch_bytes,
)

Array = NDArray[Any]
BOARDS = ("mps2-an386", "mps2-an500")


@dataclass(frozen=True)
class Layer:
    """A square convolution with "same" padding; `depthwise`: as many outputs as inputs."""

    size: int
    in_c: int
    out_c: int
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False

    @property
    def name(self) -> str:
        if self.kernel == 1:
            return f"{self.in_c}->{self.out_c} @{self.size}"
        kind = "depthwise " if self.depthwise else f"{self.in_c}->{self.out_c} "
        shape = f"{self.kernel}x{self.kernel} s{self.stride} @{self.size}"
        return kind + shape + (f"x{self.in_c}" if self.depthwise else "")

    @property
    def window(self) -> params.Window:
        pad, size = self.kernel // 2, self.size
        out = (size + 2 * pad - self.kernel) // self.stride + 1
        return params.Window(
            size, size, self.in_c, out, out, self.out_c, self.kernel, self.kernel,
            self.stride, self.stride, 1, 1, pad, pad, self.in_c if self.depthwise else 1,
        )  # fmt: skip

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.out_c, self.kernel, self.kernel, 1 if self.depthwise else self.in_c)

    @property
    def macs(self) -> int:
        return self.window.out_h * self.window.out_w * int(np.prod(self.weight_shape))


def pointwise(in_c: int, out_c: int, size: int) -> Layer:
    return Layer(size, in_c, out_c)


def depthwise(kernel: int, stride: int, size: int, channels: int) -> Layer:
    return Layer(size, channels, channels, kernel, stride, True)


STEM = Layer(128, 3, 16, 3, 2)
FORWARD = (
    STEM, pointwise(8, 32, 64), pointwise(16, 8, 64), pointwise(16, 48, 32),
    pointwise(48, 16, 32), pointwise(24, 120, 16), pointwise(120, 24, 16),
    pointwise(48, 192, 8), pointwise(160, 48, 8), pointwise(576, 160, 4), pointwise(96, 384, 4),
    depthwise(3, 1, 64, 16), depthwise(3, 2, 64, 32), depthwise(5, 1, 8, 160),
    depthwise(7, 1, 8, 160), depthwise(7, 2, 32, 48), depthwise(3, 1, 8, 192),
    depthwise(3, 1, 4, 576),
)  # fmt: skip
BACKWARD = (
    pointwise(576, 160, 4), pointwise(96, 576, 4), pointwise(384, 96, 4), pointwise(96, 384, 4),
    pointwise(192, 48, 8), pointwise(48, 192, 8), depthwise(3, 1, 4, 576),
    depthwise(3, 1, 8, 192), depthwise(5, 1, 4, 384), depthwise(7, 1, 8, 160),
    depthwise(7, 2, 8, 240), depthwise(3, 1, 64, 16), depthwise(5, 1, 32, 16),
    depthwise(7, 1, 32, 16), depthwise(3, 2, 64, 16), Layer(8, 16, 16, 3), Layer(8, 64, 64, 3),
    Layer(16, 32, 64, 3, 2),
)  # fmt: skip
UPDATES = (
    pointwise(16, 192, 8), pointwise(48, 240, 8), pointwise(12, 144, 8), pointwise(96, 384, 4),
    pointwise(24, 576, 4), pointwise(160, 10, 1), Layer(8, 16, 16, 3), Layer(8, 64, 64, 3),
    Layer(16, 8, 16, 3, 2), Layer(32, 16, 16, 3), Layer(32, 3, 16, 3), Layer(28, 1, 6, 5),
    depthwise(3, 1, 4, 336), depthwise(3, 1, 8, 192), depthwise(5, 1, 4, 384),
    depthwise(5, 1, 8, 160),
    depthwise(7, 1, 8, 160), depthwise(7, 2, 8, 240), depthwise(3, 1, 16, 48),
    depthwise(7, 1, 16, 48), depthwise(3, 2, 16, 48), depthwise(7, 2, 16, 48),
)  # fmt: skip
# What backward kernels are held against: the same product as a 1x1 input gradient, else the same
# layer.
TWINS = tuple(
    layer if layer.kernel > 1 else pointwise(layer.out_c, layer.in_c, layer.size)
    for layer in BACKWARD
) + tuple(layer for layer in UPDATES if layer.size > 1)

Run = Callable[[KernelMachine, Layer, np.random.Generator], int]


def bytes_of(rng: np.random.Generator, *shape: int) -> Array:
    return rng.integers(-127, 128, shape).astype(np.int8)


def forward(
    machine: KernelMachine, layer: Layer, rng: np.random.Generator, masked: bool = False
) -> int:
    """Relu-like."""
    window = layer.window
    elems = window.out_h * window.out_w * layer.out_c
    taps = layer.kernel**2 * layer.weight_shape[-1]
    scratch = product_scratch_bytes(taps, window.out_h * window.out_w)
    if layer.depthwise:
        whole_w = -(-window.out_w // 4) * 4
        reach = layer.kernel - layer.stride
        scratch = planes_scratch_bytes(
            window.out_h * layer.stride + reach,
            whole_w * layer.stride + reach,
            layer.kernel,
            window.out_w,
            window.out_h if masked else 0,
        )
    return machine.instructions(
        "tte_depthwise_conv2d_int8" if layer.depthwise else "tte_conv2d_int8",
        params.Conv2dParams(window, params.Requant(-128, -128, -128, 127, 0)),
        (
            bytes_of(rng, layer.size, layer.size, layer.in_c),
            bytes_of(rng, *layer.weight_shape),
            *(() if layer.depthwise else (None, None)),
            rng.integers(-2000, 2000, layer.out_c).astype(np.int32),
            np.full(layer.out_c, 2**32 // (100 * int(taps**0.5)), np.int32),
            *(ctypes.c_uint16(0), ctypes.c_uint16(window.out_h)),
            np.zeros(elems, np.int8),
            np.zeros(elems // 8, np.uint8) if masked else None,
            np.zeros(scratch, np.uint8),
        ),
    )


def masked_forward(machine: KernelMachine, layer: Layer, rng: np.random.Generator) -> int:
    """With a mask, as in a training step."""
    return forward(machine, layer, rng, masked=True)


def grad_input(machine: KernelMachine, layer: Layer, rng: np.random.Generator) -> int:
    """With a mask, without an addend; the gradients fill a third of int8."""
    window, size = layer.window, layer.size
    sums = layer.kernel**2 * (1 if layer.depthwise else layer.out_c)
    scratch = max(4 * layer.in_c, grad_input_product_bytes(window))
    if layer.depthwise:
        scratch = grad_input_scratch_bytes(size, size, layer.kernel, layer.kernel)
    return machine.instructions(
        f"tte_{'depthwise_' if layer.depthwise else ''}conv2d_grad_input_int8",
        params.Conv2dGradInputParams(window, 0),
        (
            bytes_of(rng, window.out_h, window.out_w, layer.out_c),
            bytes_of(rng, *layer.weight_shape),
            *(() if layer.depthwise else (None, None)),
            np.full(layer.in_c, 2**32 // (130 * int(sums**0.5)), np.int32),
            *(None, None),
            rng.integers(0, 256, size * size * layer.in_c // 8).astype(np.uint8),
            bytes_of(rng, size, size, layer.in_c),
            np.zeros(1, np.uint32),
            np.zeros(scratch, np.uint8),
        ),
    )


def grad_weight(machine: KernelMachine, layer: Layer, rng: np.random.Generator) -> int:
    """The gradient and the update."""
    window = layer.window
    row = layer.kernel**2 * layer.in_c
    scratch = max(4 * row, update_scratch_bytes(window, row))
    if layer.depthwise:
        scratch = tap_planes_scratch_bytes(window)
    return machine.instructions(
        f"tte_{'depthwise_' if layer.depthwise else ''}conv2d_grad_weight_int8",
        params.Conv2dGradWeightParams(window, -128),
        (
            bytes_of(rng, layer.size, layer.size, layer.in_c),
            bytes_of(rng, window.out_h, window.out_w, layer.out_c),
            np.asarray([2**30, 31], np.int32),
            np.tile(np.asarray([2**30, 40], np.int32), (layer.out_c, 1)),
            bytes_of(rng, *layer.weight_shape),
            bytes_of(rng, *layer.weight_shape),
            np.zeros(scratch, np.uint8),
        ),
    )


def linear(machine: KernelMachine, layer: Layer, rng: np.random.Generator) -> int:
    """The head."""
    return machine.instructions(
        "tte_linear_int32",
        params.LinearParams(layer.in_c, layer.out_c, -128),
        (
            bytes_of(rng, layer.in_c),
            bytes_of(rng, *layer.weight_shape),
            np.zeros(layer.out_c, np.int32),
            np.zeros(layer.out_c, np.int32),
        ),
    )


PARTS: tuple[tuple[str, Run, tuple[Layer, ...]], ...] = (
    ("forward", forward, FORWARD),
    ("linear", linear, (pointwise(160, 10, 1),)),
    ("forward, mask", masked_forward, tuple(dict.fromkeys(TWINS))),
    ("grad_input", grad_input, BACKWARD),
    ("grad_weight", grad_weight, UPDATES),
)


def measure(portable: bool) -> Iterator[tuple[str, Layer, list[int]]]:
    """(part, layer, instructions on each board)."""
    for part, run, layers in PARTS:
        for layer in layers:
            counts = [
                run(kernel_machine(board, portable=portable), layer, np.random.default_rng(0))
                for board in BOARDS
            ]
            yield part, layer, counts


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--portable", action="store_true", help="the portable kernels instead")
    portable = parser.parse_args().portable
    table = Table(title=f"instructions per MAC, {'portable' if portable else 'fast'} kernels, gcc")
    table.add_column("kernel")
    table.add_column("layer")
    for column in ("MACs", "M4", "M7", "M4 / MAC", "M7 / MAC"):
        table.add_column(column, justify="right")
    for part, layer, counts in measure(portable):
        ratios = (f"{count / layer.macs:.2f}" for count in counts)
        table.add_row(part, layer.name, *map(str, (layer.macs, *counts)), *ratios)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
