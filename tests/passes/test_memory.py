# SPDX-License-Identifier: Apache-2.0
"""The memory plan against an independent check: replay the schedule and watch every byte."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.graphs import Network, small_network, training_graph
from tte.ir import Graph, MemoryPlan, Role
from tte.ops import INTEGER_OPS
from tte.ops.avg_pool2d import AvgPool2dAttrs
from tte.ops.window import WindowAttrs
from tte.passes import memory as planner
from tte.passes.memory import plan_memory
from tte.passes.schedule import schedule

UPDATES = ["full", "last:5", "bias:7", "head"]


def check_no_overlap(graph: Graph, memory: MemoryPlan) -> None:
    """Replays the ops: each byte remembers which tensor was written there last; a read, and every
    output at the end, must find its own."""
    owner: dict[int, str] = {}

    def place(name: str) -> range:
        found = memory.placements[name]
        assert found.offset_bytes >= 0 and found.offset_bytes % 4 == 0
        assert found.offset_bytes + found.size_bytes <= memory.arena_bytes
        return range(found.offset_bytes, found.offset_bytes + graph[name].type.size_bytes)

    def write(name: str) -> None:
        owner.update(dict.fromkeys(place(name), name))

    def check(name: str, reader: str) -> None:
        wrong = {owner.get(byte) for byte in place(name)} - {name}
        assert not wrong, f"{reader} reads {name!r}, overwritten by {wrong}"

    def in_arena(name: str) -> bool:
        role = graph[graph.storage(name)].role
        return role in (Role.ACTIVATION, Role.GRADIENT, Role.INPUT)

    for name in graph.inputs:
        if in_arena(name):
            write(name)
    for op in graph.ops:
        spec = INTEGER_OPS[op.kind]
        if spec.kernel_call is None:
            continue
        reads = {graph.storage(name) for name in op.reads if in_arena(name)}
        for name in reads:
            check(name, op.name)
        # While an op runs, its scratch and its outputs touch nothing that it reads, but what it
        # may do in place.
        hosts = {graph.storage(op.inputs[i]) for i in spec.in_place(op) if op.inputs[i]}
        scratch = memory.placements.get(f"{op.name}.scratch")
        used = (
            set()
            if scratch is None
            else set(
                range(scratch.offset_bytes, scratch.offset_bytes + spec.scratch_bytes(op, graph))
            )
        )
        for position, name in enumerate(n for n in op.writes if in_arena(n)):
            out = set(place(name))
            for other in reads:
                if position == 0 and other in hosts:
                    start = memory.placements[name].offset_bytes
                    if memory.placements[other].offset_bytes == start:
                        continue
                assert out.isdisjoint(place(other)), f"{op.name}: {name!r} on {other!r}"
            assert out.isdisjoint(used), f"{op.name}: two of its buffers overlap"
            used |= out
        for name in reads:
            if scratch is not None:
                area = range(scratch.offset_bytes, scratch.offset_bytes + scratch.size_bytes)
                assert set(area).isdisjoint(place(name)), f"{op.name}: scratch on {name!r}"
        for byte in used:
            owner[byte] = f"scratch of {op.name}"
        for name in op.writes:
            if in_arena(name):
                write(name)


def check_plan(graph: Graph, limit: float = 1.03) -> MemoryPlan:
    """Plans, checks, and returns the plan of a scheduled graph."""
    ordered, order = schedule(graph)
    memory = plan_memory(ordered, order)
    check_no_overlap(ordered, memory)
    assert memory.lower_bound_bytes <= memory.arena_bytes <= limit * memory.lower_bound_bytes
    assert sum(size for _, size in memory.peak) == memory.lower_bound_bytes
    return memory


@pytest.mark.parametrize("update", UPDATES)
def test_plan_of_a_network(update: str) -> None:
    graph, _, _ = training_graph(small_network(), update)
    check_plan(graph)


def test_more_training_needs_more_memory() -> None:
    arenas = []
    for update in ("full", "last:3", "head"):
        graph, _, _ = training_graph(small_network(), update)
        arenas.append(check_plan(graph).lower_bound_bytes)
    assert arenas[0] > arenas[1] >= arenas[2]


def test_the_checker_sees_an_overlap() -> None:
    graph, _, _ = training_graph(small_network(), "last:3")
    ordered, order = schedule(graph)
    memory = plan_memory(ordered, order)
    first, second = ordered.ops[0], ordered.ops[1]
    broken = dict(memory.placements)
    broken[second.outputs[0]] = broken[first.outputs[0]]
    wrong = MemoryPlan(broken, memory.lifetimes, memory.arena_bytes, 0, 0, (), 0, ())
    with pytest.raises(AssertionError):
        check_no_overlap(ordered, wrong)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(["conv", "dw", "dw2", "skip", "pool"]), min_size=1, max_size=6),
    st.sampled_from(["full", "last:2", "head"]),
)
def test_plans_of_random_networks(layers: list[str], update: str) -> None:
    from tte.ops.add import AddAttrs

    network = Network((1, 12, 12, 3), seed=len(layers))
    network.conv("stem", 6, WindowAttrs((3, 3), pads=(1, 1, 1, 1)))
    network.conv("second", 4, WindowAttrs((1, 1)))
    for index, kind in enumerate(layers):
        size = network.builder.tensors[network.last].type.shape[1]
        if kind == "conv":
            network.conv(f"l{index}", 5 + index, WindowAttrs((3, 3), pads=(1, 1, 1, 1)))
        elif kind == "dw":
            network.depthwise(f"l{index}", 3, 1)
        elif kind == "dw2" and size > 2:
            network.depthwise(f"l{index}", 5, 2)
        elif kind == "skip":
            trunk = network.last
            channels = network.builder.tensors[trunk].type.shape[3]
            network.conv(f"l{index}", channels, WindowAttrs((1, 1)))
            network.add("add", f"a{index}", AddAttrs(), x=[trunk, network.last])
        elif kind == "pool" and size > 2:
            attrs = AvgPool2dAttrs(WindowAttrs((2, 2), (2, 2)))
            network.add("avg_pool2d", f"l{index}", attrs)
    graph, _, _ = training_graph(network.head(3), update)
    check_plan(graph, limit=1.10)


# Seven words are alive at most, but no placement needs fewer than eight.
UNREACHABLE = [
    (1, 2, 3), (3, 6, 2), (0, 0, 1), (6, 9, 3), (7, 9, 3), (2, 3, 2), (2, 6, 2), (0, 1, 3),
]  # fmt: skip
# First fit, in any order that is tried, needs a word more than necessary.
MISSED = [
    (0, 2, 3), (0, 3, 1), (4, 7, 3), (1, 4, 1), (0, 0, 2), (3, 7, 2), (7, 9, 3), (2, 3, 3),
]  # fmt: skip


def blocks_of(*spans: tuple[int, int, int]) -> list[planner._Block]:
    """(first step, last step, size in words) each."""
    return [
        planner._Block((planner._Piece(str(i), first, last, 4 * words),))
        for i, (first, last, words) in enumerate(spans)
    ]


def smallest_arena(blocks: list[planner._Block]) -> int:
    """By all orders of first fit, which include an optimal one."""
    conflicts, sizes = planner._conflicts(blocks), [block.size for block in blocks]
    orders = itertools.permutations(range(len(blocks)))
    return min(planner._fit(order, sizes, conflicts)[0] for order in orders)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(1, 6)), min_size=2, max_size=6
    )
)
def test_the_exhaustive_search_finds_the_smallest_arena(
    entries: list[tuple[int, int, int]],
) -> None:
    blocks = blocks_of(*((first, first + more, words) for first, more, words in entries))
    steps = 10
    bound = max(planner._live_bytes(blocks, steps))
    # From a bad start, one on top of the other.
    stacked = [sum(b.size for b in blocks[:i]) for i in range(len(blocks))]
    offsets, proven = planner._improve(blocks, stacked, bound, steps)
    arena = max(o + b.size for o, b in zip(offsets, blocks, strict=True))
    assert arena == proven == smallest_arena(blocks)


def test_a_bound_that_no_placement_reaches_is_proven_so() -> None:
    blocks = blocks_of(*UNREACHABLE)
    bound = max(planner._live_bytes(blocks, 12))
    offsets, proven = planner._improve(blocks, planner._place(blocks, bound), bound, 12)
    arena = max(o + b.size for o, b in zip(offsets, blocks, strict=True))
    assert arena == proven > bound


def test_the_exhaustive_search_corrects_the_heuristic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "EXCHANGES", 0)
    blocks = blocks_of(*MISSED)
    bound = max(planner._live_bytes(blocks, 12))
    first = planner._place(blocks, bound)
    assert max(o + b.size for o, b in zip(first, blocks, strict=True)) > bound
    offsets, proven = planner._improve(blocks, first, bound, 12)
    assert max(o + b.size for o, b in zip(offsets, blocks, strict=True)) == proven == bound


def test_a_search_that_is_given_up_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "SEARCH_NODES", 3)
    blocks = blocks_of(*UNREACHABLE)
    bound = max(planner._live_bytes(blocks, 12))
    offsets, proven = planner._improve(blocks, planner._place(blocks, bound), bound, 12)
    assert proven == bound < max(o + b.size for o, b in zip(offsets, blocks, strict=True))
