# SPDX-License-Identifier: Apache-2.0
"""Puts the ops in order and says how long every tensor lives.

Forward ops keep their order. In the backward pass an update runs as soon as it may, since it
ends the life of a saved activation, but after everything that still reads the old value: each
grad_input comes before the in-place update of the same layer.
"""

from __future__ import annotations

import heapq

from tte.ir import Graph, Op, Role, Schedule
from tte.ir.plan import Lifetime
from tte.ops.loss import LossAttrs
from tte.ops.quantized import UpdateAttrs


def schedule(graph: Graph) -> tuple[Graph, Schedule]:
    """The graph in execution order, and its schedule."""
    ordered = graph.with_changes(ops=_order(graph))
    ops = ordered.ops
    loss = next(i for i, op in enumerate(ops) if isinstance(op.attrs, LossAttrs))
    return ordered, Schedule(loss, _training_only(ordered, loss), lifetimes(ordered))


def _order(graph: Graph) -> list[Op]:
    """Stable topological order; an update goes first among the ready ops."""
    ops = graph.ops
    producer = {name: i for i, op in enumerate(ops) for name in op.writes}
    readers: dict[str, list[int]] = {}
    for i, op in enumerate(ops):
        for name in op.reads:
            readers.setdefault(name, []).append(i)
    after: list[list[int]] = [[] for _ in ops]
    missing = [0] * len(ops)
    for i, op in enumerate(ops):
        before = {producer[name] for name in op.reads if name in producer}
        for name in op.writes:
            if graph[name].role is Role.PARAMETER:
                before.update(j for j in readers.get(graph[name].stored_in or "", ()) if j != i)
        missing[i] = len(before)
        for j in before:
            after[j].append(i)
    rank = [(not isinstance(op.attrs, UpdateAttrs), i) for i, op in enumerate(ops)]
    ready = [rank[i] for i in range(len(ops)) if not missing[i]]
    heapq.heapify(ready)
    order: list[Op] = []
    while ready:
        _, first = heapq.heappop(ready)
        order.append(ops[first])
        for i in after[first]:
            missing[i] -= 1
            if not missing[i]:
                heapq.heappush(ready, rank[i])
    if len(order) < len(ops):
        raise ValueError("the graph has a cycle")
    return order


def _training_only(graph: Graph, loss: int) -> frozenset[int]:
    """Forward ops that the logits do not need."""
    needed = {graph.outputs[0]}
    skipped = set()
    for i in range(loss - 1, -1, -1):
        op = graph.ops[i]
        if needed.isdisjoint(op.writes):
            skipped.add(i)
        else:
            needed.update(op.reads)
    return frozenset(skipped)


def lifetimes(graph: Graph) -> dict[str, Lifetime]:
    """First and last op that needs each arena tensor; views count for what they are stored in."""
    end = len(graph.ops) - 1
    spans: dict[str, Lifetime] = {}

    def need(name: str, index: int) -> None:
        root = graph.storage(name)
        if graph[root].role not in (Role.ACTIVATION, Role.GRADIENT, Role.INPUT):
            return
        span = spans.get(root, Lifetime(index, index))
        spans[root] = Lifetime(min(span.first, index), max(span.last, index))

    for name in graph.inputs:
        need(name, 0)
    for index, op in enumerate(graph.ops):
        for name in (*op.reads, *op.writes):
            need(name, index)
    for name in graph.outputs[1:]:
        need(name, end)
    return spans
