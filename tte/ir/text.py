# SPDX-License-Identifier: Apache-2.0
"""Graphs and plans as text, for --dump and for tests."""

from __future__ import annotations

from collections.abc import Mapping

from tte.ir.graph import Graph
from tte.ir.plan import MemoryPlan, Schedule, TrainPlan


def graph_text(graph: Graph) -> str:
    """One line an op: outputs = kind(inputs), with types; then the tensors that are stored."""
    lines = [f"graph {graph.name}"]
    for name in graph.inputs:
        lines.append(f"  input  {name}: {graph[name].type}{_quant(graph, name)}")
    for index, op in enumerate(graph.ops):
        outputs = ", ".join(f"{n}: {graph[n].type}{_quant(graph, n)}" for n in op.writes)
        inputs = ", ".join(name or "-" for name in op.inputs)
        lines.append(f"  {index:4} {outputs} = {op.kind}({inputs})  # {op.name}")
    for name in graph.outputs:
        lines.append(f"  output {name}: {graph[name].type}")
    for name, tensor in sorted(graph.tensors.items()):
        if tensor.data is not None:
            lines.append(f"  {tensor.role.value:9} {name}: {tensor.type}{_quant(graph, name)}")
    return "\n".join(lines) + "\n"


def _quant(graph: Graph, name: str) -> str:
    quant = graph[name].quant
    if quant is None:
        return ""
    scale = f"{quant.scale[0]:.6g}" if len(quant.scale) == 1 else f"{len(quant.scale)} scales"
    return f" ({scale}, zero {quant.zero_point})"


def plan_text(plan: TrainPlan) -> str:
    """One line a trained layer."""
    lines = [f"update {plan.spec}"]
    for update in plan.updates:
        what = "all" if update.channels is None else str(len(update.channels))
        lines.append(f"  {update.layer}: bias {'yes' if update.bias else 'no'}, channels {what}")
    return "\n".join(lines) + "\n"


def schedule_text(graph: Graph, schedule: Schedule) -> str:
    """One line an op, with what dies there."""
    dying: dict[int, list[str]] = {}
    for name, span in schedule.lifetimes.items():
        dying.setdefault(span.last, []).append(name)
    lines = []
    for index, op in enumerate(graph.ops):
        phase = "backward" if index >= schedule.backward_start else "forward"
        phase += " (training only)" if index in schedule.training_only else ""
        lines.append(f"{index:4} {phase:24} {op.name}  frees {', '.join(dying.get(index, []))}")
    return "\n".join(lines) + "\n"


def memory_text(memory: MemoryPlan) -> str:
    """One line a tensor: offset, size, lifetime."""
    lines = [
        f"arena {memory.arena_bytes} bytes, lower bound {memory.lower_bound_bytes} bytes, "
        f"peak at op {memory.peak_op}"
    ]
    placements: Mapping[str, object] = memory.placements
    for name in sorted(placements, key=lambda n: memory.placements[n].offset_bytes):
        place, span = memory.placements[name], memory.lifetimes[name]
        lines.append(
            f"  {place.offset_bytes:8} +{place.size_bytes:<8} "
            f"ops {span.first:4}..{span.last:<4} {name}"
        )
    return "\n".join(lines) + "\n"
