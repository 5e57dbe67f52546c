# SPDX-License-Identifier: Apache-2.0
"""Checks what every stage promises; a ValueError here is a bug of the compiler."""

from __future__ import annotations

from tte.ir.graph import Graph, Role


def verify(graph: Graph, scheduled: bool = False) -> Graph:
    """Single assignment and definition before use; once it is scheduled, every update after all
    other readers of what it overwrites. Returns the graph, to stand between two stages."""
    defined = set(graph.inputs)
    overwritten: dict[str, str] = {}
    for name, tensor in graph.tensors.items():
        if tensor.name != name:
            raise ValueError(f"tensor {tensor.name!r} is filed as {name!r}")
        if tensor.stored_in is not None and tensor.stored_in not in graph.tensors:
            raise ValueError(f"{name!r} is stored in {tensor.stored_in!r}, which does not exist")
        if tensor.data is not None:
            if tuple(tensor.data.shape) != tensor.type.shape:
                raise ValueError(f"{name!r}: data {tensor.data.shape} is not {tensor.type}")
            defined.add(name)
        elif tensor.role is Role.CONSTANT:
            raise ValueError(f"constant {name!r} has no data")
    for op in graph.ops:
        for name in op.reads:
            if name not in defined:
                raise ValueError(f"{op.name!r} reads {name!r} before it is written")
            if scheduled and name in overwritten:
                raise ValueError(f"{op.name!r} reads {name!r} after {overwritten[name]!r} did")
        for name in op.writes:
            if name in defined:
                raise ValueError(f"{op.name!r} writes {name!r} a second time")
            defined.add(name)
            stored_in = graph.tensors[name].stored_in
            if stored_in is not None and graph.tensors[name].role is Role.PARAMETER:
                overwritten[stored_in] = op.name
    for name in graph.outputs:
        if name not in defined:
            raise ValueError(f"output {name!r} is never written")
    return graph
