# SPDX-License-Identifier: Apache-2.0
"""Memory plans of real networks with all their published updates."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.passes.test_memory import check_plan
from tte.frontend.onnx import load_model
from tte.ir import Graph, Role
from tte.ir.verify import verify
from tte.passes.calibrate import calibrate
from tte.passes.differentiate import differentiate
from tte.passes.fold import fold
from tte.passes.head import replace_head
from tte.passes.memory import live_bytes
from tte.passes.prune import prune
from tte.passes.quantize import quantize
from tte.passes.schedule import schedule
from tte.passes.stream import stream
from tte.passes.update import plan_update

UPDATES = [
    ("mcunet-5fps", ("49kb", "74kb", "99kb", "124kb", "148kb")),
    ("mbv2-w0.35", ("49kb", "73kb", "99kb", "123kb", "138kb")),
    ("proxyless-w0.3", ("49kb", "74kb", "98kb", "120kb", "148kb")),
]
CASES = [(net, scheme) for net, schemes in UPDATES for scheme in schemes]


@cache
def forward_graph(path: Path) -> Graph:
    graph = replace_head(fold(load_model(path)), 10, 0)
    return quantize(calibrate(graph, np.zeros((1, 128, 128, 3), np.float32)))


def training_graph(models: Path, net: str, scheme: str) -> Graph:
    """The scheduled training graph of a network under a published update, ten classes."""
    forward = forward_graph(models / f"{net}-int8-qdq.onnx")
    plan = plan_update(forward, str(models / "updates" / f"{net}-{scheme}.json"))
    graph, _ = schedule(prune(differentiate(forward), plan))
    return verify(graph, scheduled=True)


def chained(graph: Graph) -> Graph:
    """The same with chains."""
    return stream(graph, lambda g: live_bytes(*schedule(g)))[0]


@pytest.mark.parametrize(("net", "scheme"), CASES)
@pytest.mark.parametrize("streamed", [False, True])
def test_the_arena_is_the_lower_bound(
    net: str, scheme: str, streamed: bool, shared_models: Path
) -> None:
    graph = training_graph(shared_models, net, scheme)
    whole = max(live_bytes(*schedule(graph)))
    if streamed:
        graph = chained(graph)
    memory = check_plan(graph, limit=1.0)
    if streamed:
        assert memory.lower_bound_bytes < 0.8 * whole
    else:
        assert memory.lower_bound_bytes == whole
    if streamed and scheme == "49kb":
        assert memory.arena_bytes < 64 * 1024


def test_the_99kb_scheme_fits_192_kib(shared_models: Path) -> None:
    """With half a KiB of other data and the stack of 1.5 KiB that a run measures."""
    graph = chained(training_graph(shared_models, "mcunet-5fps", "99kb"))
    trained = sum(
        tensor.type.size_bytes
        for tensor in graph.tensors.values()
        if tensor.role is Role.PARAMETER and tensor.stored_in is None
    )
    assert check_plan(graph, limit=1.0).arena_bytes + trained + 2048 < 192 * 1024
