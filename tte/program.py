# SPDX-License-Identifier: Apache-2.0
"""The compiled program: all that code generation may know."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from tte.board import Board
from tte.ir import Graph, MemoryPlan, Op, Role, Schedule, StreamDecision, TrainPlan
from tte.training import DEFAULT_LOSS, PLAIN_SGD, Loss, Optimizer

DEFAULT_LEARNING_RATE = 2e-3


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How samples enter: real = (pixel - mean) / std for uint8, real = scale * (q - zero_point).
    `shape` is (height, width, channels); mean and std have one value, or one per channel."""

    shape: tuple[int, int, int]
    scale: float
    zero_point: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """A scheduled, placed training graph for a board."""

    name: str
    model_sha256: str
    board: Board
    sram_limit_bytes: int
    flash_limit_bytes: int
    input: InputSpec
    class_names: tuple[str, ...]
    learning_rate: float
    seed: int
    plan: TrainPlan
    graph: Graph
    schedule: Schedule
    memory: MemoryPlan
    streams: tuple[StreamDecision, ...] = ()
    loss: Loss = DEFAULT_LOSS
    forward: Graph | None = None  # before anything was added to train it
    ending: str = ""  # "softmax" or "sigmoid": what the loss took over
    optimizer: Optimizer = PLAIN_SGD

    @property
    def trained(self) -> tuple[str, ...]:
        """Trained tensors and their residuals, in the order in which the layers run; then what the
        optimiser remembers: velocities in the same order, and its count."""
        graph = self.graph
        forward = [s for op in graph.ops for s in getattr(op.attrs, "stages", (op,))]
        positions = {op.name: i for i, op in enumerate(forward)}

        def rank(op: Op) -> tuple[bool, int, str]:
            gathers = getattr(op.attrs, "gathers", False)
            return gathers, positions[op.attrs.layer], op.attrs.param

        updates = sorted((op for op in graph.ops if hasattr(op.attrs, "layer")), key=rank)
        order = [graph.storage(name) for op in updates for name in op.inputs[-2:]]
        stored = (graph.storage(n) for n in graph.outputs if graph[n].role is Role.PARAMETER)
        return tuple(dict.fromkeys((*order, *stored)))

    @property
    def state_id(self) -> str:
        """Names what trained state belongs to, 32 hexadecimal digits: model, input, classes and the
        trained tensors with their first values. Programs with one id, on whatever board, may
        exchange their state; all else (order, placement, chains, kernels) does not change it."""
        digest = hashlib.sha256()
        logits = self.graph[self.graph.outputs[0]].type
        for part in (self.model_sha256, repr(self.input), repr(logits), repr(self.plan.updates)):
            digest.update(part.encode() + b"\0")
        for name in self.trained:
            tensor = self.graph[name]
            assert tensor.data is not None
            digest.update(f"{name}\0{tensor.type}\0{tensor.quant}\0".encode())
            digest.update(tensor.data.tobytes())
        for op in self.graph.ops:
            if getattr(op.attrs, "velocity_shift", 0):  # the units of a velocity
                digest.update(f"{op.attrs}\0".encode())
        return digest.hexdigest()[:32]

    @property
    def trainable_bytes(self) -> int:
        """SRAM for trained tensors and residuals."""
        return sum(self.graph[name].type.size_bytes for name in self.trained)

    @property
    def constant_bytes(self) -> int:
        """Flash for frozen weights and biases, without tables."""
        return sum(
            tensor.type.size_bytes
            for tensor in self.graph.tensors.values()
            if tensor.role is Role.CONSTANT
        )
