# SPDX-License-Identifier: Apache-2.0
"""Decides which runs of layers become chains (tte/ops/chain.py): where it lowers the peak.

Greedy: while the memory peak lies in a run of layers that can be chained, the chain that lowers
it most is taken; then every chain gets the widest bands that raise the peak by no more than
BAND_SLACK, since wide bands copy fewer rows twice. The cost model counts those copies and calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tte.ir import Graph, Op, StreamDecision
from tte.ops.chain import STAGES, build, inner_graph, is_spatial, reach, row_elems
from tte.ops.depthwise_conv2d import has_four_planes
from tte.ops.window import hwc

MAX_STAGES = 5
BAND_SLACK = 1.05  # two rows a band for three in the ring: a sixth fewer instructions there
CALL_INSTRUCTIONS = 150  # of a kernel's entry and exit
# Per element that a fast depthwise kernel copies to its planes: one channel at a time, four.
COPY_INSTRUCTIONS = {False: 3.75, True: 1.75}

# Bytes alive while each op runs; the pass asks, the pipeline answers.
LiveBytes = Callable[[Graph], Sequence[int]]


def stream(graph: Graph, live_bytes: LiveBytes) -> tuple[Graph, tuple[StreamDecision, ...]]:
    """A scheduled training graph with chains in it, and what was decided."""
    whole = max(live_bytes(graph))
    while True:
        live = live_bytes(graph)
        peak = max(live)
        found = [
            ((max(after), max(after[start : start + 1]), len(stages)), chained)
            for start, stages in _candidates(graph, live.index(peak))
            for chained in [_chained(graph, start, stages, 1)]
            for after in [live_bytes(chained)]
            if max(after) < peak or after.count(peak) < live.count(peak)
        ]
        if not found:
            break
        graph = min(found, key=lambda candidate: candidate[0])[1]
    limit = min(int(max(live_bytes(graph)) * BAND_SLACK), whole - 1)
    for index, op in enumerate(graph.ops):
        if op.kind == "chain":
            graph = _widened(graph, index, limit, live_bytes)
    graph = _without_idle_chains(graph, live_bytes)
    peak = max(live_bytes(graph))
    return graph, tuple(
        _decision(graph, index, peak, live_bytes)
        for index, op in enumerate(graph.ops)
        if op.kind == "chain"
    )


def _candidates(graph: Graph, at: int) -> Iterator[tuple[int, list[Op]]]:
    """(index of the first stage, stages) of all chains that contain the op at index `at`."""
    for start in range(max(0, at - MAX_STAGES + 1), at + 1):
        for count in range(2, MAX_STAGES + 1):
            stages = list(graph.ops[start : start + count])
            if start + count > at and len(stages) == count and _is_chain(graph, stages):
                yield start, stages


def _is_chain(graph: Graph, stages: Sequence[Op]) -> bool:
    """Whether each stage alone feeds the next, only the second looks at other rows than its own,
    and every row of a mask begins at a byte."""
    for position, op in enumerate(stages):
        if op.kind not in STAGES or op.kind == "linear_int32":
            return False
        if len(graph[op.outputs[0]].type.shape) != 4:
            return False
        if position == 0:
            if op.kind == "add_int8":
                return False
        else:
            before = stages[position - 1].outputs[0]
            alone = len(graph.consumers.get(before, ())) == 1 and before not in graph.outputs
            if before not in op.inputs or not alone:
                return False
            if is_spatial(op) and (position > 1 or reach(op) < 1):
                return False
        if len(op.writes) > 1 and row_elems(graph[op.outputs[0]].type) % 8:
            return False
    return True


def _chained(graph: Graph, start: int, stages: Sequence[Op], band_rows: int) -> Graph:
    chain = build(graph, stages, band_rows)
    return graph.with_changes(ops=[*graph.ops[:start], chain, *graph.ops[start + len(stages) :]])


def _split(graph: Graph, index: int) -> Graph:
    """The graph without the chain at `index`."""
    chain = graph.ops[index]
    return graph.with_changes(
        tensors=chain.attrs.inner,
        ops=[*graph.ops[:index], *chain.attrs.stages, *graph.ops[index + 1 :]],
    )


def _widened(graph: Graph, index: int, limit: int, live_bytes: LiveBytes) -> Graph:
    """The widest bands of the chain at `index` that keep the peak within the limit."""
    stages = graph.ops[index].attrs.stages
    rows = hwc(graph[graph.ops[index].outputs[0]].type)[0]
    split = _split(graph, index)
    for band_rows in sorted((r for r in range(2, rows + 1) if rows % r == 0), reverse=True):
        wider = _chained(split, index, stages, band_rows)
        if max(live_bytes(wider)) <= limit:
            return wider
    return graph


def _without_idle_chains(graph: Graph, live_bytes: LiveBytes) -> Graph:
    """The graph without chains that no longer lower the peak."""
    peak = max(live_bytes(graph))
    for index in reversed([i for i, op in enumerate(graph.ops) if op.kind == "chain"]):
        whole = _split(graph, index)
        if max(live_bytes(whole)) <= peak:
            graph = whole
    return graph


def _decision(graph: Graph, index: int, peak: int, live_bytes: LiveBytes) -> StreamDecision:
    op = graph.ops[index]
    return StreamDecision(
        op.name,
        len(op.attrs.stages),
        op.attrs.band_rows,
        peak,
        max(live_bytes(_split(graph, index))),
        _extra_instructions(graph, op),
    )


def _extra_instructions(graph: Graph, op: Op) -> int:
    """Predicted for the kernels with the DSP extension: calls beyond one a stage, and what the
    depthwise layer copies. Rows are copied once more for each band, but a band has room for four
    channels at a time where a whole map has not, so that many chains save instructions."""
    second, inner = op.attrs.stages[1], op.attrs.inner[0].type
    bands = hwc(graph[op.outputs[0]].type)[0] // op.attrs.band_rows
    extra = (bands - 1) * len(op.attrs.stages) * CALL_INSTRUCTIONS
    if second.kind != "depthwise_conv2d_int8":
        return extra
    inside = inner_graph(op, graph)
    once = hwc(inner)[0]
    rows = max(once, bands * op.attrs.rings[0])
    band, whole = (
        COPY_INSTRUCTIONS[has_four_planes(second, inside, out_rows)]
        for out_rows in (op.attrs.band_rows, hwc(inside[second.outputs[0]].type)[0])
    )
    return extra + round((rows * band - once * whole) * row_elems(inner))
