# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.benchmarks.elementwise [--portable]`: instructions per element of the
element-wise kernels on emulated Cortex-M4 and M7, on a map of 16x16x96.

Random data; counts are exact and repeatable.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.kernel_machine import KernelMachine, kernel_machine
from tte.ops import params
from tte.ops.broadcast import merged

BOARDS = ("mps2-an386", "mps2-an500")
SHAPE, GATE = (16, 16, 96), (1, 1, 96)
ELEMS = 16 * 16 * 96
Case = tuple[str, params.Params, tuple[Any, ...]]


def cases(rng: np.random.Generator) -> dict[str, Case]:
    """Kernel, params and arguments by title; a mask where training would have one."""

    def codes(*shape: int) -> Any:
        return rng.integers(-127, 128, shape).astype(np.int8)

    def epilogue(shape: tuple[int, ...], multiplier: int) -> tuple[Any, ...]:
        mask = rng.integers(0, 256, int(np.prod(shape)) // 8).astype(np.uint8)
        multipliers = np.full(shape[-1], multiplier, np.int32)
        return multipliers, None, None, mask, codes(*shape), np.zeros(1, np.uint32)

    plain = params.Requant(-3, 5, -128, 127, 0)
    add = params.AddParams(ELEMS, 2**19, 2**19, 20, -3, 5, 1, -128, 127)
    table, slopes = codes(256), rng.integers(-32767, 32768, 256).astype(np.int16)
    exponentials = np.floor(np.exp(-np.arange(256) / 50) * 2**24).astype(np.int32)
    to_b = params.BroadcastGradInputParams(merged(SHAPE, GATE, SHAPE), 96, 3, 0)
    to_a = params.BroadcastGradInputParams(merged(SHAPE, SHAPE, GATE), 96, 3, 0)

    def mul(b: tuple[int, ...]) -> params.MulParams:
        return params.MulParams(merged(SHAPE, SHAPE, b), plain, 7, 2**25)

    return {
        "mul, two maps": (
            "tte_mul_int8",
            mul(SHAPE),
            (codes(*SHAPE), codes(*SHAPE), codes(*SHAPE), None),
        ),
        "mul, gate": (
            "tte_mul_int8",
            mul(GATE),
            (codes(*SHAPE), codes(*GATE), codes(*SHAPE), None),
        ),
        "mul, gate, with mask": (
            "tte_mul_int8",
            mul(GATE),
            (codes(*SHAPE), codes(*GATE), codes(*SHAPE), np.zeros(ELEMS // 8, np.uint8)),
        ),
        "mul grad_input, to the map": (
            "tte_broadcast_grad_input_int8",
            to_a,
            (codes(*SHAPE), codes(*GATE), *epilogue(SHAPE, 2**25)),
        ),
        "mul grad_input, to the gate": (
            "tte_broadcast_grad_input_int8",
            to_b,
            (codes(*SHAPE), codes(*SHAPE), *epilogue(GATE, 2**19)),
        ),
        "add, a vector": (
            "tte_add_broadcast_int8",
            params.AddBroadcastParams(merged(SHAPE, SHAPE, GATE), add),
            (codes(*SHAPE), codes(*GATE), codes(*SHAPE), None),
        ),
        "table": (
            "tte_table_int8",
            params.TableParams(ELEMS),
            (codes(*SHAPE), table, codes(*SHAPE)),
        ),
        "table grad_input": (
            "tte_table_grad_input_int8",
            params.TableGradInputParams(256, 96, 0),
            (codes(*SHAPE), codes(*SHAPE), slopes, *epilogue(SHAPE, 2**17)),
        ),
        "softmax": (
            "tte_softmax_int8",
            params.SoftmaxParams(256, 96, 24, 0, -128, 2**16),
            (codes(*SHAPE), exponentials, codes(*SHAPE)),
        ),
        "softmax grad_input": (
            "tte_softmax_grad_input_int8",
            params.SoftmaxGradInputParams(256, 96, 24, 0),
            (codes(*SHAPE), codes(*SHAPE), exponentials, *epilogue(SHAPE, 2**8)),
        ),
    }


def instructions(machine: KernelMachine, case: Case) -> int:
    """Of one call."""
    symbol, kernel_params, args = case
    return machine.instructions(symbol, kernel_params, args)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--portable", action="store_true", help="the portable kernels instead")
    portable = parser.parse_args().portable
    title = f"instructions per element, {'portable' if portable else 'fast'} kernels, gcc"
    table = Table("kernel", *(f"{board}" for board in BOARDS), title=title)
    for name, case in cases(np.random.default_rng(0)).items():
        counts = [instructions(kernel_machine(board, portable=portable), case) for board in BOARDS]
        table.add_row(name, *(f"{count / ELEMS:.2f}" for count in counts))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
