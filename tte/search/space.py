# SPDX-License-Identifier: Apache-2.0
"""What a search chooses from, and what each choice costs.

A candidate is the number of last layers whose biases are trained and, for every layer before the
head, the share of its weights that is; the head is always trained. `Space.measure` compiles a
candidate as `tte compile` would: its arena is the planner's, its instructions are predicted for
the very ops. `Space.estimate` knows thousands of candidates at once from a table: for each
deepest trained layer the live bytes of every op under a plan of biases alone, to which each
layer's weights add what they keep alive from its forward op to its update.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tte.board import Board
from tte.ir import Graph, Op, TrainPlan, Update
from tte.passes.differentiate import differentiate
from tte.passes.memory import live_bytes, plan_memory
from tte.passes.prune import prune
from tte.passes.schedule import schedule
from tte.passes.update import LAYER_KINDS, pick_channels
from tte.pipeline import Prepared, arrange
from tte.search.costs import CostModel

RATIOS = (0.0, 0.125, 0.25, 0.5, 1.0)

Table = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Candidate:
    """`depth`: layers before the head, counted from it, whose biases train; `ratios[i]`: index
    into RATIOS for the i-th layer in forward order."""

    depth: int
    ratios: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes of SRAM (arena, trained tensors, stack reserve) and instructions of a step."""

    sram_bytes: int
    instructions: int


class Space:
    """All candidates of a network for a board."""

    def __init__(
        self,
        prepared: Prepared,
        board: Board,
        channel_choice: str = "magnitude",
        importance: Mapping[str, NDArray[np.float64]] | None = None,
        streamed: bool = True,
    ) -> None:
        self._forward, self._board = prepared.forward, board
        self._full = differentiate(prepared.forward, prepared.loss)
        self._choice, self._importance, self._streamed = channel_choice, importance, streamed
        self._costs = CostModel.of(board)
        self._measured: dict[Candidate, Cost] = {}
        ops = [op for op in prepared.forward.ops if op.kind in LAYER_KINDS]
        self.head, self.layers = ops[-1], ops[:-1]

    # ---- plans ----------------------------------------------------------------------------

    def plan(self, candidate: Candidate) -> TrainPlan:
        """What a candidate trains."""
        first_bias = len(self.layers) - candidate.depth
        updates = [
            Update(op.name, i >= first_bias, self.channels(op, RATIOS[r]))
            for i, (op, r) in enumerate(zip(self.layers, candidate.ratios, strict=True))
            if i >= first_bias or r
        ]
        return TrainPlan("search", (*updates, Update(self.head.name, True, None)))

    def channels(self, op: Op, ratio: float) -> tuple[int, ...] | None:
        importance = None if self._importance is None else self._importance.get(op.name)
        return pick_channels(self._forward, op, ratio, self._choice, importance)

    # ---- the real thing -------------------------------------------------------------------

    def measure(self, candidate: Candidate) -> Cost:
        """What the compiler makes of a candidate."""
        if candidate not in self._measured:
            graph, order, _ = arrange(self._pruned(self.plan(candidate)), self._streamed)
            sram = plan_memory(graph, order).arena_bytes + self._board.stack_reserve_bytes
            cost = Cost(sram + _trained_bytes(graph), self._costs.step(graph))
            self._measured[candidate] = cost
        return self._measured[candidate]

    def _pruned(self, plan: TrainPlan) -> Graph:
        return prune(self._full, plan)
