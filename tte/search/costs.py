# SPDX-License-Identifier: Apache-2.0
"""Predicted instructions of a training step: per kernel, linear in what a call works through.

The coefficients (cost_table.py) are fitted to an emulator's exact counts of real networks by
`python -m tests.benchmarks costs`; tests hold them to counts of other plans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tte.board import Board
from tte.ir import Graph, Op, Role
from tte.ops import INTEGER_OPS
from tte.ops.chain import inner_graph
from tte.ops.window import hwc
from tte.search.cost_table import COSTS

Coefficients = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Work:
    """What one op asks of its kernel: calls, multiplications, elements that it reads (its largest
    input that is no constant) and writes. `narrow`: of one channel, which tiles do not suit."""

    kernel: str
    calls: int
    macs: int
    reads: int
    writes: int
    narrow: bool = False

    @property
    def key(self) -> str:
        """What its coefficients are called."""
        return f"{self.kernel}, narrow" if self.narrow else self.kernel

    @property
    def features(self) -> Coefficients:
        return (float(self.calls), float(self.macs), float(self.reads), float(self.writes))


def work(graph: Graph) -> list[Work]:
    """The work of every kernel call of a scheduled graph, in the order of program.json's ops."""
    found = []
    for op in graph.ops:
        if op.kind == "chain":
            bands = hwc(graph[op.outputs[0]].type)[0] // op.attrs.band_rows
            inside = inner_graph(op, graph)
            found += [_work(stage, inside, bands) for stage in op.attrs.stages]
        elif INTEGER_OPS[op.kind].kernel_call is not None:
            found.append(_work(op, graph, 1))
    return found


def _work(op: Op, graph: Graph, calls: int) -> Work:
    moving = (Role.ACTIVATION, Role.GRADIENT, Role.INPUT)
    types = [graph[name].type for name in op.reads if graph[name].role in moving]
    narrow = op.kind.startswith("conv2d") and any(one.shape[-1] == 1 for one in types)
    reads = max((one.elems for one in types), default=0)
    written = graph[op.writes[0]].type.elems
    return Work(op.kind, calls, INTEGER_OPS[op.kind].macs(op, graph), reads, written, narrow)


@dataclass(frozen=True, slots=True)
class CostModel:
    """Instructions by kernel: a constant a call, per multiplication, per element read, written.
    A kernel that was never counted costs as its kind of work does on average."""

    kernels: Mapping[str, Coefficients]

    @staticmethod
    def of(board: Board) -> CostModel:
        return CostModel(COSTS[family(board)])

    def step(self, graph: Graph) -> int:
        """Of one training step."""
        return round(sum(self.predict(one) for one in work(graph)))

    def op(self, op: Op, graph: Graph) -> float:
        """Of one op that is no chain."""
        return self.predict(_work(op, graph, 1))

    def predict(self, one: Work) -> float:
        weights = self.kernels.get(one.key) or self.kernels["any"]
        return sum(w * f for w, f in zip(weights, one.features, strict=True))


def family(board: Board) -> str:
    """The coefficients for a board's core: they differ by instruction set, not by board."""
    if board.has_dsp:
        return "dsp"
    return "thumb" if board.core.startswith(("cortex-m0", "cortex-m23")) else "thumb-2"
