# SPDX-License-Identifier: Apache-2.0
"""A block as of MobileNetV3, written the way exporters do, from its ONNX file: hard-swish, squeeze
and excitation, a gate of hard-sigmoid, attention by softmax. It computes what onnxruntime computes,
trains in the generated C as in the oracle, and its loss falls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.graphs import quantized, training_graph
from tests.onnx_models import Net, nchw, run_onnx
from tests.ops.test_contract import check_kernels
from tests.train.test_steps import firmware_run, oracle, program_of
from tte.codegen.emit import emit_project
from tte.frontend.onnx import load_model
from tte.ir import Graph
from tte.ops.arith import to_factor
from tte.passes.fold import fold
from tte.reference import Interpreter, run_op

CLASSES = 4


def hard_swish(net: Net, x: str) -> str:
    """In four nodes."""
    gate = net.node("Clip", net.node("Add", x, net.const(3.0)), net.const(0.0), net.const(6.0))
    return net.node("Div", net.node("Mul", x, gate), net.const(6.0))


def block() -> tuple[Net, str]:
    """Stem, expansion, depthwise, squeeze-and-excitation, projection, residual; a weighting of
    positions; a head."""
    net = Net((1, 3, 8, 8), seed=3)
    stem = hard_swish(net, net.batch_norm(net.conv("x", 8, 3, strides=[2, 2], pads=[1] * 4), 8))
    y = hard_swish(net, net.conv(stem, 16, 8, 1))
    y = hard_swish(net, net.conv(y, 16, 1, 3, pads=[1] * 4, group=16))
    gate = net.node("Relu", net.conv(net.node("GlobalAveragePool", y), 4, 16, 1))
    gate = net.node("HardSigmoid", net.conv(gate, 16, 4, 1), alpha=1 / 6, beta=0.5)
    y = net.node("Add", stem, net.conv(net.node("Mul", gate, y), 8, 16, 1))
    y = net.node("Mul", y, net.node("Sigmoid", y))
    weights = net.node("Softmax", net.conv(y, 8, 8, 1), axis=1)
    y = net.node("Sub", net.node("Mul", y, weights), net.node("Tanh", y))
    y = net.node("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = net.node("LeakyRelu", net.node("Flatten", y), alpha=0.1)
    return net, net.gemm(y, CLASSES, 32)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    net, output = block()
    return net.save(tmp_path_factory.mktemp("model"), output)


@pytest.fixture(scope="module")
def network(path: Path) -> Graph:
    return fold(load_model(path))


def test_the_block_becomes_few_ops(network: Graph) -> None:
    kinds = [op.kind for op in network.ops]
    assert kinds.count("function") == 7  # three hard-swish, hard-sigmoid, silu, tanh, leaky relu
    assert kinds.count("mul") == 2 and kinds.count("softmax") == 1
    assert "clip" not in kinds and "batch_norm" not in kinds


def test_integers_are_close_to_onnxruntime(network: Graph, path: Path) -> None:
    forward, codes = quantized(network, samples=64)
    quant, logits = forward[forward.inputs[0]].quant, forward[forward.outputs[0]].quant
    assert quant is not None and logits is not None
    values = {forward.inputs[0]: codes}
    for op in forward.ops:
        values[op.outputs[0]] = run_op(forward, op, values)[0]
    found = values[forward.outputs[0]] * np.asarray(logits.scale)
    expected = run_onnx(path, nchw(quant.dequantize(codes)).astype(np.float32))
    error = found - expected
    assert np.sqrt((error**2).mean()) < 0.1 * expected.std()  # found: 0.068
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.95


@pytest.mark.parametrize("emulator", ["host", "unicorn"])
def test_steps_equal_the_oracle(network: Graph, emulator: str, tmp_path: Path) -> None:
    program, codes, labels = program_of(network, "full", "mps2-an386")
    emit_project(program, tmp_path)
    expected = oracle(program, codes, labels)
    assert firmware_run(tmp_path, emulator, "gcc", codes, labels) == expected


def test_kernels_equal_the_reference(network: Graph) -> None:
    graph, codes, labels = training_graph(network)
    kinds = check_kernels(graph, codes, labels, 2)
    assert {"mul_int8", "broadcast_grad_input_int8", "table_grad_input_int8"} <= kinds


def test_loss_falls(network: Graph) -> None:
    """Eight samples are learned by heart."""
    graph, codes, labels = training_graph(network)
    interpreter = Interpreter(graph)
    rate = np.asarray(to_factor(0.1), np.int64).astype(np.int32)
    losses = []
    for step in range(160):
        i = step % 8
        feeds = {"x": codes[i : i + 1], "label": labels[i : i + 1], "learning_rate": rate}
        losses.append(int(interpreter.run(feeds)["loss"][0]) / 65536)
    assert sum(losses[-8:]) < 0.3 * sum(losses[:8])


def test_what_is_saved_is_what_the_update_needs(network: Graph) -> None:
    """Tables and gates keep their inputs for the layers that are trained, and for no others."""
    saved = {}
    for update in ("head", "bias:1", "full"):
        graph, _, _ = training_graph(network, update)
        loss = next(i for i, op in enumerate(graph.ops) if op.name == "loss")
        made = {name for op in graph.ops[:loss] for name in op.writes}
        read = {name for op in graph.ops[loss:] for name in op.reads}
        saved[update] = sum(graph[name].type.size_bytes for name in made & read)
    assert saved["head"] < saved["bias:1"] < saved["full"]
