# SPDX-License-Identifier: Apache-2.0
"""What is supported: one row an operator, from where it is imported, and the kernels that it and
its gradient run as on each kind of processor."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from tte.frontend.tflite import BECOMES
from tte.ops import FLOAT_OPS
from tte.ops.spec import FloatOp
from tte.resources import runtime_dir

FAST = ("armv7em",)  # folders of runtime_c/src; every kernel is there in portable C
COLUMNS = ("operator", "ONNX", "TensorFlow Lite", "forward", "gradient")
WIDTHS = (16, 27, 25)  # of the first three in Markdown, so that rows stay below 100 characters
# Ops that an importer's rule for another operator gives.
ALSO = {"depthwise_conv2d": ("Conv", "DEPTHWISE_CONV_2D"), "transpose": ("Transpose", "TRANSPOSE")}


@dataclass(frozen=True, slots=True)
class Support:
    """`onnx`, `tflite`: operators of a file that become this one. `is_folded`: nothing is left to
    run. Without kernels it is another view of the same bytes."""

    operator: str
    onnx: tuple[str, ...]
    tflite: tuple[str, ...]
    is_folded: bool
    kernels: tuple[str, ...]
    grad_kernels: tuple[str, ...]

    def runs_as(self, kernels: Sequence[str]) -> str:
        """What there is for these kernels, as the table says it."""
        if self.is_folded:
            return "folded"
        if not kernels:
            return "no kernel"
        found = ["C"]
        for folder in FAST:
            there = [kernel for kernel in kernels if has(folder, kernel)]
            if there:
                found.append(folder if len(there) == len(kernels) else f"some {folder}")
        return ", ".join(found)

    def row(self) -> tuple[str, ...]:
        """A cell for each of COLUMNS."""
        names = (self.operator, ", ".join(self.onnx), ", ".join(self.tflite))
        return (*names, self.runs_as(self.kernels), self.runs_as(self.grad_kernels))


def has(folder: str, kernel: str) -> bool:
    """Whether a kernel has a faster version in a folder."""
    return (runtime_dir() / "src" / folder / f"tte_{kernel}.c").is_file()


def supported() -> list[Support]:
    """All operators that are imported."""
    return [_support(op) for op in FLOAT_OPS.values()]


def _support(op: FloatOp) -> Support:
    onnx, tflite = {*op.onnx}, {name for name, becomes in BECOMES.items() if becomes in op.onnx}
    for kind, (onnx_name, tflite_name) in ALSO.items():
        if kind == op.kind:
            onnx, tflite = {onnx_name}, {tflite_name}
        else:
            tflite.discard(tflite_name)
    return Support(
        op.kind,
        tuple(sorted(onnx)),
        tuple(sorted(tflite)),
        op.quantize is None,
        op.kernels,
        op.grad_kernels,
    )


def markdown() -> str:
    """The table; a row with too many names goes on in the next one."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for support in supported():
        *names, forward, gradient = support.row()
        wrapped = [textwrap.wrap(cell, width) for cell, width in zip(names, WIDTHS, strict=True)]
        for number in range(max(map(len, wrapped))):
            cells = [part[number] if number < len(part) else "" for part in wrapped]
            cells += [forward, gradient] if number == 0 else ["", ""]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
