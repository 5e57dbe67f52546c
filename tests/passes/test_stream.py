# SPDX-License-Identifier: Apache-2.0
"""Chains: the same bits in less memory."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graphs import Network, small_network, training_graph
from tests.ops.test_contract import check_kernels
from tests.passes.test_memory import check_plan
from tte.ir import Graph
from tte.ir.verify import verify
from tte.ops.add import AddAttrs
from tte.ops.chain import build
from tte.ops.window import WindowAttrs
from tte.passes.memory import live_bytes
from tte.passes.schedule import schedule
from tte.passes.stream import stream
from tte.reference import Interpreter

RATE = np.asarray([1374389535, 37], np.int32)  # 0.01


def live(graph: Graph) -> list[int]:
    return live_bytes(*schedule(graph))


def wide_network(kernel: int, stride: int, seed: int = 0) -> Graph:
    """A large map through two expanded blocks, the second with a skip."""
    network = Network((1, 16, 16, 4), seed)
    linear = (-np.inf, np.inf)
    one = WindowAttrs((1, 1))
    network.conv("a.pw1", 16, one)
    network.depthwise("a.dw", kernel, stride)
    network.conv("a.pw2", 4, one, linear)
    trunk = network.last
    network.conv("b.pw1", 24, one)
    network.depthwise("b.dw", 3, 1)
    network.conv("b.pw2", 4, one, linear)
    network.add("add", "b.add", AddAttrs(), x=[trunk, network.last])
    network.conv("c", 8, WindowAttrs((3, 3), (2, 2), pads=(1, 1, 1, 1)))
    return network.head(3)


@pytest.mark.parametrize("update", ["head", "last:2", "bias:7", "full"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (7, 2)])
def test_chains_have_the_same_bits_in_less_memory(update: str, kernel: int, stride: int) -> None:
    plain, codes, labels = training_graph(wide_network(kernel, stride), update)
    chained, decisions = stream(plain, live)
    verify(chained, scheduled=True)
    if update == "head":
        assert decisions
    assert bool(decisions) == any(op.kind == "chain" for op in chained.ops)
    assert max(live(chained)) < max(live(plain)) or not decisions
    for decision in decisions:
        assert decision.peak_bytes == max(live(chained)) < decision.peak_without_bytes
    check_plan(chained, limit=1.10)
    check_kernels(chained, codes, labels, 2)
    one, two = Interpreter(plain), Interpreter(chained)
    for i in range(3):
        feeds = {"input": codes[i : i + 1], "label": labels[i : i + 1], "learning_rate": RATE}
        assert one.run(feeds)["loss"] == two.run(feeds)["loss"]
    assert all(np.array_equal(one.state[name], two.state[name]) for name in one.state)


@pytest.mark.parametrize("band_rows", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("count", [2, 3])
def test_every_band_height(band_rows: int, count: int) -> None:
    graph, codes, labels = training_graph(wide_network(5, 1), "head")
    chain = build(graph, graph.ops[:count], band_rows)
    assert chain.attrs.rings[0] == min(16, band_rows + 4)
    chained = graph.with_changes(ops=[chain, *graph.ops[count:]])
    check_kernels(verify(chained), codes, labels, 1)


def test_an_output_grows_into_its_input_only_where_it_may() -> None:
    graph, _, _ = training_graph(wide_network(3, 1), "head")
    same = build(graph, graph.ops[:3], 1)  # 4 channels in, 4 out, stride 1
    assert same.attrs.in_place == (0,)
    growing = build(graph, graph.ops[:2], 1)  # 4 channels in, 16 out
    assert growing.attrs.in_place == ()
    skip = next(i for i, op in enumerate(graph.ops) if op.name == "b.pw1")
    residual = build(graph, graph.ops[skip : skip + 4], 2)
    assert residual.attrs.in_place == (0,)


def test_a_small_network_needs_no_chain_twice() -> None:
    graph, _, _ = training_graph(small_network(), "last:3")
    once, _ = stream(graph, live)
    twice, decisions = stream(once, live)
    assert [op.name for op in once.ops] == [op.name for op in twice.ops]
    assert max(live(once)) <= max(live(graph))
    assert len(decisions) == sum(op.kind == "chain" for op in once.ops)
