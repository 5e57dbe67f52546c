# SPDX-License-Identifier: Apache-2.0
"""Networks of every shape train in the generated C as they do in the oracle: encoder-decoders,
series, parts that are put together again; and their loss falls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.graphs import Network, training_graph
from tests.ops.test_contract import check_kernels
from tests.train.test_steps import firmware_run, oracle, program_of
from tte.codegen.emit import emit_project
from tte.ir import Graph
from tte.ops.arith import to_factor
from tte.ops.concat import ConcatAttrs
from tte.ops.conv_transpose2d import ConvTranspose2dAttrs
from tte.ops.max_pool2d import MaxPool2dAttrs
from tte.ops.pad import PadAttrs
from tte.ops.reshape import ReshapeAttrs
from tte.ops.resize_nearest2d import ResizeAttrs
from tte.ops.slice import SliceAttrs
from tte.ops.transpose import TransposeAttrs
from tte.ops.window import WindowAttrs
from tte.reference import Interpreter

SAME = WindowAttrs((3, 3), pads=(1, 1, 1, 1))
HALF = MaxPool2dAttrs(WindowAttrs((2, 2), (2, 2)))


def encoder_decoder() -> Graph:
    """Like a U-Net: down by max pooling, up by transposed convolution and by resizing, with
    concatenated skips."""
    n = Network((1, 8, 8, 2))
    outer = n.conv("down1", 4, SAME)
    n.add("max_pool2d", "pool1", HALF)
    inner = n.conv("down2", 6, SAME)
    n.add("max_pool2d", "pool2", HALF)
    n.conv("middle", 8, SAME)
    up = ConvTranspose2dAttrs(WindowAttrs((2, 2), (2, 2)), (4, 4))
    n.add("conv_transpose2d", "up1", up, (6, 2, 2, 8), (6,))
    n.add("concat", "skip1", ConcatAttrs(3), x=[inner, n.last])
    n.conv("join1", 4, SAME)
    n.add("resize_nearest2d", "up2", ResizeAttrs((2, (3, 0, 2, 3))))
    n.add("concat", "skip2", ConcatAttrs(3), x=[outer, n.last])
    n.conv("join2", 4, SAME)
    n.add("max_pool2d", "pool3", MaxPool2dAttrs(WindowAttrs((4, 4), (4, 4))))
    return n.head(4)


def series() -> Graph:
    """One dimension: grouped and strided convolutions, overlapping pooling."""
    n = Network((1, 1, 24, 3))
    n.conv("conv1", 8, WindowAttrs((1, 5), pads=(0, 2, 0, 2)))
    n.add("max_pool2d", "pool1", MaxPool2dAttrs(WindowAttrs((1, 3), (1, 2), pads=(0, 1, 0, 1))))
    n.conv("conv2", 8, WindowAttrs((1, 3), (1, 2), pads=(0, 1, 0, 1), groups=2))
    up = ConvTranspose2dAttrs(WindowAttrs((1, 4), (1, 2), pads=(0, 1, 0, 1)), (1, 12))
    n.add("conv_transpose2d", "up", up, (4, 1, 4, 8), (4,))
    n.add("max_pool2d", "pool2", MaxPool2dAttrs(WindowAttrs((1, 12))))
    return n.head(4)


def parts() -> Graph:
    """Channels are split, shuffled, padded and put together; the middle is a vector."""
    n = Network((1, 4, 6, 3))
    whole = n.conv("conv1", 8, SAME)
    halves = [
        n.add("slice", f"half{i}", SliceAttrs((0, 0, 4 * i), (1, 1, 1), (4, 6, 4)), x=whole)
        for i in (0, 1)
    ]
    n.add("pad", "border", PadAttrs((1, 0, 0), (1, 2, 0)), x=halves[0])
    a = n.conv("conv2", 4, WindowAttrs((3, 3)))
    n.add("concat", "join", ConcatAttrs(3), x=[a, halves[1]])
    n.add("transpose", "shuffle", TransposeAttrs((24, 2, 4), (0, 2, 1), (1, 4, 6, 8)))
    n.conv("conv3", 2, WindowAttrs((1, 1)))
    n.add("transpose", "first", TransposeAttrs((24, 2), (1, 0), (1, 2, 4, 6)))
    n.add("reshape", "rows", ReshapeAttrs((1, 2, 24, 1)))
    n.conv("conv4", 3, WindowAttrs((1, 4), (1, 4)))
    return n.head(4)


NETWORKS = {"encoder-decoder": encoder_decoder, "series": series, "parts": parts}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("emulator", ["host", "unicorn"])
def test_steps_equal_the_oracle(name: str, emulator: str, tmp_path: Path) -> None:
    program, codes, labels = program_of(NETWORKS[name](), "full", "mps2-an386")
    emit_project(program, tmp_path)
    expected = oracle(program, codes, labels)
    assert firmware_run(tmp_path, emulator, "gcc", codes, labels) == expected


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_kernels_equal_the_reference(network: Callable[[], Graph]) -> None:
    graph, codes, labels = training_graph(network())
    check_kernels(graph, codes, labels, 2)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_loss_falls(network: Callable[[], Graph]) -> None:
    """Eight samples are learned by heart."""
    graph, codes, labels = training_graph(network())
    interpreter = Interpreter(graph)
    rate = np.asarray(to_factor(0.02), np.int64).astype(np.int32)
    losses = []
    for step in range(160):
        i = step % 8
        feeds = {"input": codes[i : i + 1], "label": labels[i : i + 1], "learning_rate": rate}
        losses.append(int(interpreter.run(feeds)["loss"][0]) / 65536)
    assert sum(losses[-8:]) < 0.7 * sum(losses[:8])


def test_a_narrowed_transposed_convolution(tmp_path: Path) -> None:
    """Of the trained input channels alone, and frozen before it."""
    path = tmp_path / "update.json"
    path.write_text('{"schema": "tte-update/1", "layers": {"up1": {"weight": 0.5}}}')
    graph, codes, labels = training_graph(encoder_decoder(), str(path))
    assert graph["up1.weight.trained"].type.shape == (6, 2, 2, 4)
    check_kernels(graph, codes, labels, 2)
