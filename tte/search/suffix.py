# SPDX-License-Identifier: Apache-2.0
"""The trained end of a network as a program of its own, fed with what the frozen part computes.

Nothing below the first trained layer changes, so its int8 features are computed once per sample
and training starts from them. The same compiler makes the program, so it ends in the same bits
as the whole network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tte.ir import Graph, Role
from tte.pipeline import Prepared
from tte.program import InputSpec
from tte.reference import run_op

BATCH = 16


@dataclass(frozen=True, slots=True)
class Suffix:
    """`frozen`: the ops before the cut, its output the tensor that crosses it; `prepared`: the
    rest, with that tensor as its input."""

    frozen: Graph
    prepared: Prepared


def cut_points(graph: Graph) -> list[int]:
    """Positions before which a forward graph can be cut: one tensor alone crosses there."""
    last_use: dict[str, int] = {}
    for index, op in enumerate(graph.ops):
        last_use.update(dict.fromkeys((n for n in op.reads if graph[n].data is None), index))
    last_use[graph.outputs[0]] = len(graph.ops)
    alive, points = set(graph.inputs), []
    for index, op in enumerate(graph.ops):
        if len(alive) == 1:
            points.append(index)
        alive.update(op.writes)
        alive = {name for name in alive if last_use.get(name, -1) > index}
    return points


def cut(prepared: Prepared, layer: str) -> Suffix:
    """The network cut at the last place before `layer`."""
    graph = prepared.forward
    at = next(i for i, op in enumerate(graph.ops) if op.name == layer)
    at = max(point for point in cut_points(graph) if point <= at)
    head, tail = graph.ops[:at], graph.ops[at:]
    written = {name for op in head for name in op.writes} | set(graph.inputs)
    crossing = next(n for op in tail for n in op.reads if n in written)
    frozen = graph.with_changes(ops=head, outputs=[crossing])
    if not head:
        return Suffix(frozen, prepared)
    source = replace(graph[crossing], role=Role.INPUT, stored_in=None)
    forward = graph.with_changes(tensors=[source], ops=tail, inputs=[crossing])
    assert source.quant is not None
    shape = source.type.shape
    height, width, channels = shape[1:] if len(shape) == 4 else (1, 1, shape[-1])
    spec = InputSpec(
        (height, width, channels), source.quant.per_tensor_scale, source.quant.zero_point, (0.0,),
        (1.0,),
    )  # fmt: skip
    codes = features(frozen, prepared.codes)
    return Suffix(frozen, replace(prepared, forward=forward, input=spec, codes=codes))


def features(frozen: Graph, x: NDArray[np.int8]) -> NDArray[np.int8]:
    """What int8 samples [N, ...] become on their way to the cut."""
    parts = [_features(frozen, x[start : start + BATCH]) for start in range(0, len(x), BATCH)]
    return np.concatenate(parts)


def _features(frozen: Graph, x: NDArray[np.int8]) -> NDArray[np.int8]:
    values = {frozen.inputs[0]: x}
    last = {name: ops[-1] for name, ops in frozen.consumers.items()}
    for op in frozen.ops:
        outputs = run_op(frozen, op, values)
        values.update((n, v) for n, v in zip(op.outputs, outputs, strict=False) if n)
        for name in op.reads:
            if last.get(name) is op and name != frozen.outputs[0]:
                values.pop(name, None)
    found: NDArray[np.int8] = values[frozen.outputs[0]]
    return found
