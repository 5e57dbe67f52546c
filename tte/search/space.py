# SPDX-License-Identifier: Apache-2.0
"""What a search chooses from, and what each choice costs.

A candidate is the number of last layers whose biases are trained and, for every layer before the
head, the share of its weights that is; the head is always trained. `Space.measure` compiles a
candidate as `tte compile` would: its arena is the planner's, its instructions are predicted for
the very ops. `Space.estimate` judges thousands at once from a table: for each deepest trained
layer the bytes alive at every op under a plan of biases alone, to which the weights of a layer add
what they keep alive from its forward op to its update.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tte.board import Board
from tte.errors import TteError
from tte.ir import Graph, Op, Role, TrainPlan, Update
from tte.ops import INTEGER_OPS
from tte.ops.quantized import UpdateAttrs
from tte.passes.differentiate import differentiate
from tte.passes.memory import live_bytes, plan_memory
from tte.passes.optimizer import add_optimizer
from tte.passes.prune import prune
from tte.passes.schedule import schedule
from tte.passes.update import LAYER_KINDS, channel_count, pick_channels
from tte.pipeline import Prepared, arrange
from tte.search.costs import CostModel
from tte.training import PLAIN_SGD, Optimizer

RATIOS = (0.0, 0.125, 0.25, 0.5, 1.0)

Table = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Candidate:
    """`depth`: layers before the head, counted from it, whose biases train. `ratios[i]`: index
    into RATIOS for the i-th layer in forward order."""

    depth: int
    ratios: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes of SRAM (arena, trained tensors, stack reserve), and instructions of a step."""

    sram_bytes: int
    instructions: int


class Space:
    """All candidates of a network for a board. `importance` of each layer's channels decides which
    of them a ratio stands for; without it `channel_choice` does."""

    def __init__(
        self,
        prepared: Prepared,
        board: Board,
        channel_choice: str = "magnitude",
        importance: Mapping[str, NDArray[np.float64]] | None = None,
        streamed: bool = True,
        optimizer: Optimizer = PLAIN_SGD,
    ) -> None:
        ops = [op for op in prepared.forward.ops if op.kind in LAYER_KINDS]
        if len(ops) < 2:
            raise TteError(
                "there is nothing to choose from",
                where=prepared.forward.name,
                why="the model has no trainable layer before its last one",
            )
        self.head, self.layers = ops[-1].name, [op.name for op in ops[:-1]]
        self.board = board
        self._ops = {op.name: op for op in ops}
        self._forward = prepared.forward
        self._full = differentiate(prepared.forward, prepared.loss)
        self._choice, self._importance, self._streamed = channel_choice, importance or {}, streamed
        self._optimizer = optimizer
        self._costs = CostModel.of(board)
        self._measured: dict[Candidate, Cost] = {}
        self._judged: dict[Candidate, Cost] = {}
        self._bases: dict[int, _Base] = {}

    # ---- plans ----------------------------------------------------------------------------

    def plan(self, candidate: Candidate) -> TrainPlan:
        """What a candidate trains."""
        return TrainPlan("search", (*self._updates(candidate), Update(self.head, True, None)))

    def _updates(self, candidate: Candidate) -> list[Update]:
        first_bias = len(self.layers) - candidate.depth
        return [
            Update(name, i >= first_bias, self.channels(name, RATIOS[r]))
            for i, (name, r) in enumerate(zip(self.layers, candidate.ratios, strict=True))
            if i >= first_bias or r
        ]

    def channels(self, layer: str, ratio: float) -> tuple[int, ...] | None:
        importance = self._importance.get(layer)
        return pick_channels(self._forward, self._ops[layer], ratio, self._choice, importance)

    def is_projection(self, layer: str) -> bool:
        """Whether a layer's output goes without an activation into a sum or another layer."""
        (output, *_) = self._ops[layer].outputs
        quant = self._forward[output].quant
        readers = self._forward.consumers.get(output, ())
        linear = quant is not None and quant.zero_point > -128  # ReLU's zero is the least code
        return linear and any(op.kind in LAYER_KINDS or "add" in op.kind for op in readers)

    @property
    def depthwise(self) -> NDArray[np.bool_]:
        """Of each layer: whether it is a depthwise convolution."""
        return np.array(["depthwise" in self._ops[layer].kind for layer in self.layers], bool)

    def reach(self, candidate: Candidate) -> int:
        """The first layer down to which the backward pass runs; how many there are: the head
        alone is trained."""
        weights = next((i for i, r in enumerate(candidate.ratios) if r), len(self.layers))
        return min(weights, len(self.layers) - candidate.depth)

    def update_file(self, candidate: Candidate) -> dict[str, Any]:
        """The candidate as `tte-update/1`."""
        layers: dict[str, Any] = {}
        for update, ratio in zip(
            self._updates(candidate),
            [r for i, r in enumerate(candidate.ratios)
             if r or i >= len(self.layers) - candidate.depth],
            strict=True,
        ):  # fmt: skip
            entry: dict[str, Any] = {"bias": update.bias}
            if update.channels and self._choice == "gradient":
                entry["channels"] = list(update.channels)
            else:
                entry["weight"] = RATIOS[ratio]
            layers[update.layer] = entry
        layers[self.head] = {"bias": True, "weight": 1.0}
        choice = "magnitude" if self._choice == "gradient" else self._choice
        return {"schema": "tte-update/1", "channel_choice": choice, "layers": layers}

    # ---- exact ----------------------------------------------------------------------------

    def measure(self, candidate: Candidate) -> Cost:
        """What the compiler makes of a candidate."""
        if candidate not in self._measured:
            self._measured[candidate] = self.cost(self.plan(candidate))
        return self._measured[candidate]

    def judge(self, candidate: Candidate) -> Cost:
        """The same from a quicker plan of the memory: never fewer bytes than measure() says."""
        if candidate not in self._judged:
            self._judged[candidate] = self.cost(self.plan(candidate), thorough=False)
        return self._judged[candidate]

    def cost(self, plan: TrainPlan, thorough: bool = True) -> Cost:
        """What the compiler makes of any plan."""
        trained = add_optimizer(prune(self._full, plan), self._optimizer)
        graph, order, _ = arrange(trained, self._streamed)
        arena = plan_memory(graph, order, thorough).arena_bytes
        sram = arena + _trained_bytes(graph) + self.board.stack_reserve_bytes
        return Cost(sram, self._costs.step(graph))

    # ---- estimated ------------------------------------------------------------------------

    def estimate(self, candidates: Sequence[Candidate]) -> NDArray[np.float64]:
        """[N, 2]: SRAM bytes and instructions of many candidates, close to what measure() says."""
        found = np.empty((len(candidates), 2))
        groups: dict[int, list[int]] = {}
        for index, candidate in enumerate(candidates):
            groups.setdefault(self.reach(candidate), []).append(index)
        for reach, members in groups.items():
            base = self.base(reach)
            ratios = np.array([candidates[i].ratios for i in members], np.int64)[:, reach:]
            depths = np.array([candidates[i].depth for i in members], np.int64)
            layers = np.arange(reach, len(self.layers))
            live = base.live + base.kept[layers - reach, ratios].sum(axis=1)
            trained = self.bias_bytes[depths] + self.weight_bytes[layers, ratios].sum(axis=1)
            fixed = self.head_bytes + self.board.stack_reserve_bytes
            found[members, 0] = live.max(axis=1) + trained + fixed
            spent = self.bias_cost[depths] + self.weight_cost[layers, ratios].sum(axis=1)
            found[members, 1] = base.instructions + spent
        return found

    def base(self, reach: int) -> _Base:
        """The plan that trains all biases from layer `reach` on, and what weights add to it."""
        if reach not in self._bases:
            candidate = Candidate(len(self.layers) - reach, (0,) * len(self.layers))
            pruned = prune(self._full, self.plan(candidate))
            graph, order, _ = arrange(pruned, self._streamed)
            live: list[int] = []
            where: dict[str, int] = {}
            for op, alive in zip(graph.ops, live_bytes(graph, order), strict=True):
                for stage in getattr(op.attrs, "stages", (op,)):
                    where[stage.name] = len(live)
                    live.append(alive)
            kept = np.zeros((len(self.layers) - reach, len(RATIOS), len(live)))
            for row in range(len(kept)):
                self._keep(self.layers[reach + row], where, kept[row], schedule(pruned)[0])
            instructions = self._costs.step(graph) - self.bias_cost[candidate.depth]
            self._bases[reach] = _Base(np.array(live, float), kept, instructions)
        return self._bases[reach]

    def _keep(self, layer: str, where: Mapping[str, int], kept: Table, graph: Graph) -> None:
        """Fills [ratio, op]: bytes alive because of a layer's weights."""
        op = self._ops[layer]
        source = graph[op.inputs[0]]
        end = max(where.get(f"{layer}.{part}", 0) for part in ("grad_bias", "grad_input"))
        start = where[layer]
        update = self._updates_of(layer)["weight"]
        scratch = INTEGER_OPS[update.kind].scratch_bytes(update, self._full)
        root = graph.storage(source.name)
        last = max(
            where.get(reader.name, 0)
            for reader in graph.ops
            if any(graph.storage(name) == root for name in reader.reads)
        )
        size = source.type.size_bytes
        for index, ratio in enumerate(RATIOS):
            if ratio == 0.0:
                continue
            if ratio == 1.0:
                kept[index, last + 1 : end + 1] += _align(size)
            else:
                channels = self.channels(layer, ratio) or ()
                share = len(channels) / channel_count(self._forward, op)
                kept[index, start : end + 1] += _align(int(size * share))
                if op.kind != "conv2d_int8":  # put together while the layer runs
                    whole = self._full[op.inputs[1]].type.size_bytes
                    kept[index, start] += whole
                    kept[index, end] += whole
            kept[index, end] += scratch

    # ---- tables ---------------------------------------------------------------------------

    def _updates_of(self, layer: str) -> dict[str, Op]:
        return self._update_ops[layer]

    @cached_property
    def _update_ops(self) -> dict[str, dict[str, Op]]:
        """The full graph's update ops, by layer and parameter."""
        found: dict[str, dict[str, Op]] = {}
        for op in self._full.ops:
            if isinstance(op.attrs, UpdateAttrs):
                found.setdefault(op.attrs.layer, {})[op.attrs.param] = op
        return found

    def _bytes(self, layer: str, param: str) -> int:
        """Of a parameter and what is kept beside it: a residual, and a velocity with its own."""
        update = self._updates_of(layer)[param]
        once = sum(self._full[name].type.size_bytes for name in update.outputs if name)
        return once * (2 if self._optimizer.has_velocity else 1)

    @cached_property
    def head_bytes(self) -> int:
        return self._bytes(self.head, "weight") + self._bytes(self.head, "bias")

    @cached_property
    def bias_bytes(self) -> Table:
        """[depth]: trained bytes of the biases of the last layers before the head."""
        sizes = [self._bytes(layer, "bias") for layer in reversed(self.layers)]
        return np.concatenate([[0], np.cumsum(sizes)])

    @cached_property
    def bias_cost(self) -> Table:
        """[depth]: instructions of their updates."""
        full = {one.name: one for one in self._full.ops}
        spent = [
            self._costs.op(full[f"{layer}.grad_bias"], self._full)
            for layer in reversed(self.layers)
        ]
        return np.concatenate([[0], np.cumsum(spent)])

    @cached_property
    def weight_bytes(self) -> Table:
        """[layer, ratio]: trained bytes of weights."""
        table = np.zeros((len(self.layers), len(RATIOS)))
        for i, layer in enumerate(self.layers):
            whole, count = (
                self._bytes(layer, "weight"),
                channel_count(self._forward, self._ops[layer]),
            )
            for r, ratio in enumerate(RATIOS):
                channels = self.channels(layer, ratio)
                table[i, r] = whole * (1 if channels is None else len(channels) / count)
        return table

    @cached_property
    def weight_cost(self) -> Table:
        """[layer, ratio]: what training weights adds to the instructions of a step."""
        table = np.zeros((len(self.layers), len(RATIOS)))
        for i in range(len(self.layers)):
            depth = len(self.layers) - i
            spent = []
            for r in range(len(RATIOS)):
                ratios = tuple(r if j == i else 0 for j in range(len(self.layers)))
                spent.append(
                    self._costs.step(prune(self._full, self.plan(Candidate(depth, ratios))))
                )
            table[i] = np.array(spent) - spent[0]
        return table


@dataclass(frozen=True, slots=True)
class _Base:
    """`live[op]`: bytes alive under a plan of biases; `kept[layer, ratio, op]`: more because of
    weights; `instructions` of a step without the updates of biases."""

    live: Table
    kept: Table
    instructions: float


def _align(size: int) -> int:
    return -(-size // 4) * 4


def _trained_bytes(graph: Graph) -> int:
    return sum(
        tensor.type.size_bytes
        for tensor in graph.tensors.values()
        if tensor.role is Role.PARAMETER and tensor.stored_in is None
    )


def write_update(path: Path, document: Mapping[str, Any]) -> None:
    """Writes an update file; TteError where that is not possible."""
    try:
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise TteError(
            "the update file cannot be written", where=str(path), why=error.strerror or str(error)
        ) from error
