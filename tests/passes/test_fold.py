# SPDX-License-Identifier: Apache-2.0
"""Folding leaves fewer ops and the same function."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.onnx_models import Net, nhwc, run_onnx
from tte.errors import TteError
from tte.frontend.onnx import load_model
from tte.ir import Graph, QuantParams
from tte.ir.verify import verify
from tte.passes.calibrate import calibrate
from tte.passes.fold import compose, fold
from tte.passes.head import replace_head
from tte.passes.quantize import quantize
from tte.reference import run_float


def folded(net: Net, output: str, folder: Path) -> Graph:
    """The folded graph, checked against onnxruntime; the input graph must not change."""
    path = net.save(folder, output)
    graph = load_model(path)
    before = dict(graph.tensors), graph.ops
    result = fold(graph)
    assert (dict(graph.tensors), graph.ops) == before
    verify(result)
    x = np.random.default_rng(2).normal(0, 1, (3, *net.shape[1:])).astype(np.float32)
    found = run_float(result, nhwc(x))[result.outputs[0]]
    expected = run_onnx(path, x)
    np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=1e-4, atol=1e-4)
    return result


def kinds(graph: Graph) -> list[str]:
    return [op.kind for op in graph.ops]


def pool(net: Net, x: str) -> str:
    return net.node("GlobalAveragePool", x)


@pytest.mark.parametrize("groups", [1, 8])
def test_batch_norm_joins_the_layer_before(groups: int, tmp_path: Path) -> None:
    net = Net((1, 8, 6, 6))
    y = net.conv("x", 8, 8 // groups, pads=[1, 1, 1, 1], group=groups)
    y = net.node("Clip", net.batch_norm(y, 8), net.const(0.0), net.const(6.0))
    y = net.batch_norm(net.gemm(net.node("Flatten", pool(net, y)), 5, 8), 5)
    graph = folded(net, y, tmp_path)
    layer = "conv2d" if groups == 1 else "depthwise_conv2d"
    assert kinds(graph) == [layer, "avg_pool2d", "reshape", "linear"]
    assert graph.ops[0].attrs.clamp == (0.0, 6.0)


def test_two_batch_norms(tmp_path: Path) -> None:
    net = Net((1, 3, 6, 6))
    y = net.batch_norm(net.batch_norm(net.conv("x", 4, 3), 4), 4)
    assert kinds(folded(net, pool(net, y), tmp_path)) == ["conv2d", "avg_pool2d", "reshape"]


def test_batch_norm_without_a_layer_before(tmp_path: Path) -> None:
    """At the input, behind a relu, and where somebody else reads the layer's output."""
    net = Net((1, 4, 6, 6))
    y = net.batch_norm("x", 4)
    y = net.batch_norm(net.node("Relu", y), 4)
    conv = net.conv(y, 4, 4, pads=[1, 1, 1, 1])
    y = net.node("Add", net.batch_norm(conv, 4), conv)
    graph = folded(net, pool(net, y), tmp_path)
    depthwise = "depthwise_conv2d"
    assert kinds(graph)[:5] == [depthwise, depthwise, "conv2d", depthwise, "add"]


def test_batch_norm_before_a_linear_layer(tmp_path: Path) -> None:
    net = Net((1, 6))
    y = net.batch_norm(net.node("Relu", net.gemm("x", 5, 6)), 5)
    assert kinds(folded(net, net.gemm(y, 4, 5), tmp_path)) == ["linear", "linear"]


def test_batch_norm_of_features_alone(tmp_path: Path) -> None:
    net = Net((1, 6))
    y = net.batch_norm(net.node("Relu", net.gemm("x", 5, 6)), 5)
    graph = folded(net, net.node("Relu", y), tmp_path)
    assert kinds(graph) == ["linear", "linear"]


def test_batch_norm_between_flatten_and_linear(tmp_path: Path) -> None:
    net = Net((1, 3, 4, 5))
    flat = net.node("Flatten", net.conv("x", 4, 3))
    graph = folded(net, net.gemm(net.batch_norm(flat, 24), 5, 24), tmp_path)
    assert kinds(graph) == ["conv2d", "reshape", "linear"]


def test_a_quantised_layer_keeps_its_output(tmp_path: Path) -> None:
    """Its saturation may be a relu, so the batch norm behind it stays an op."""
    net = Net((1, 3, 4, 4))
    y = net.quantized(net.conv("x", 4, 3), 0.02, -128)
    path = net.save(tmp_path, pool(net, net.batch_norm(y, 4)))
    assert kinds(fold(load_model(path)))[:2] == ["conv2d", "depthwise_conv2d"]


def test_adding_a_constant_keeps_codes(tmp_path: Path) -> None:
    net = Net((1, 6))
    weight = net.dequantized(net.rng.integers(-127, 128, (6, 4)), 0.01)
    graph = folded(net, net.node("Add", net.node("MatMul", "x", weight), net.normal(4)), tmp_path)
    assert kinds(graph) == ["linear"]
    assert graph[graph.ops[0].inputs[1]].type.dtype == "int8"


def test_clips_compose(tmp_path: Path) -> None:
    net = Net((1, 3, 6, 6))
    y = net.node("Clip", net.conv("x", 4, 3), net.const(-1.0), net.const(2.0))
    y = net.node("Relu", y)
    graph = folded(net, pool(net, y), tmp_path)
    assert graph.ops[0].attrs.clamp == (0.0, 2.0)
    assert compose((0.0, 6.0), (7.0, 8.0)) == (7.0, 7.0)


def test_clip_stays_where_it_must(tmp_path: Path) -> None:
    """Behind pooling, and where somebody reads the unclipped value."""
    net = Net((1, 3, 6, 6))
    conv = net.conv("x", 4, 3)
    y = net.node("Add", conv, net.conv(net.node("Relu", conv), 4, 4, 1))
    y = net.node("Relu", pool(net, y))
    assert kinds(folded(net, y, tmp_path)) == [
        "conv2d",
        "clip",
        "conv2d",
        "add",
        "avg_pool2d",
        "clip",
        "reshape",
    ]


def test_quantisation_of_a_fused_clip(tmp_path: Path) -> None:
    """The clip's own, else the layer's; both saturate."""
    net = Net((1, 3, 4, 4))
    y = net.node("Relu", net.quantized(net.conv("x", 4, 3), 0.01, 28))
    y = net.conv(y, 4, 4, 1)
    y = net.quantized(net.node("Relu", net.quantized(y, 0.01, 0)), 0.02, -128)
    graph = fold(load_model(net.save(tmp_path, pool(net, y))))
    first, second = graph.ops[:2]
    assert graph[first.outputs[0]].quant == QuantParams((float(np.float32(0.01)),), 28)
    assert graph[second.outputs[0]].quant == QuantParams((float(np.float32(0.02)),), -128)
    np.testing.assert_allclose(first.attrs.clamp, (0.0, 0.99), rtol=1e-6)
    np.testing.assert_allclose(second.attrs.clamp, (0.0, 1.27), rtol=1e-6)


def test_quantised_twice(tmp_path: Path) -> None:
    """The second scale wins where nobody needs the first."""
    net = Net((1, 3, 4, 4))
    y = net.quantized(net.quantized(net.conv("x", 4, 3), 0.01, 0), 0.02, -128)
    graph = fold(load_model(net.save(tmp_path, pool(net, y))))
    assert kinds(graph) == ["conv2d", "avg_pool2d", "reshape"]
    assert graph[graph.ops[0].outputs[0]].quant == QuantParams((float(np.float32(0.02)),), -128)


@pytest.mark.parametrize("flatten", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_pointwise_head_becomes_linear(flatten: bool, relu: bool, tmp_path: Path) -> None:
    net = Net((1, 3, 4, 4))
    y = net.conv(pool(net, net.conv("x", 8, 3)), 6, 8, 1)
    if relu:
        y = net.conv(net.node("Relu", y), 5, 6, 1)
    graph = folded(net, net.node("Flatten", y) if flatten else y, tmp_path)
    heads = ["linear", "linear"] if relu else ["linear"]
    assert kinds(graph) == ["conv2d", "avg_pool2d", "reshape", *heads]
    assert graph[graph.outputs[0]].type.shape == (1, 5 if relu else 6)
    assert graph.producers[graph.outputs[0]].kind == "linear"


def test_pointwise_in_the_middle_stays(tmp_path: Path) -> None:
    """A sum of 1x1 maps takes maps."""
    net = Net((1, 3, 4, 4))
    a = pool(net, net.conv("x", 6, 3))
    y = net.node("Add", a, net.conv(a, 6, 6, 1))
    graph = folded(net, net.node("Flatten", net.conv(y, 5, 6, 1)), tmp_path)
    assert kinds(graph) == ["conv2d", "avg_pool2d", "conv2d", "add", "reshape", "linear"]


def test_two_pointwise_layers_share_a_view(tmp_path: Path) -> None:
    net = Net((1, 3, 4, 4))
    features = pool(net, net.conv("x", 6, 3))
    a, b = (net.node("Flatten", net.conv(features, 4, 6, 1)) for _ in range(2))
    graph = folded(net, net.node("Add", a, b), tmp_path)
    assert kinds(graph) == ["conv2d", "avg_pool2d", "reshape", "linear", "linear", "add"]


def test_flatten_order(tmp_path: Path) -> None:
    """Two linear layers behind one flattened map, one of them behind a relu."""
    net = Net((1, 3, 5, 6))
    y = net.conv("x", 4, 3)
    y = net.node("Flatten", net.node("AveragePool", y, kernel_shape=[2, 2]))
    a, b = net.gemm(y, 5, 24), net.gemm(net.node("Relu", y), 5, 24)
    folded(net, net.node("Add", a, b), tmp_path)


def test_flatten_of_the_input(tmp_path: Path) -> None:
    net = Net((1, 3, 4, 5))
    folded(net, net.gemm(net.node("Flatten", "x"), 5, 60), tmp_path)


def test_flattened_map_as_output(tmp_path: Path) -> None:
    """Nobody behind it could take the order over."""
    net = Net((1, 3, 4, 4))
    graph = folded(net, net.node("Flatten", net.conv("x", 4, 3)), tmp_path)
    assert kinds(graph) == ["conv2d", "transpose"]


def test_a_clip_goes_before_what_only_moves(tmp_path: Path) -> None:
    net = Net((1, 3, 5, 6))
    y = net.node("Relu", net.node("Flatten", net.conv("x", 4, 3)))
    graph = folded(net, net.gemm(y, 5, 48), tmp_path)
    assert kinds(graph) == ["conv2d", "reshape", "linear"]
    assert graph.ops[0].attrs.clamp[0] == 0


def test_softmax_in_the_middle_stays(tmp_path: Path) -> None:
    net = Net((1, 6))
    y = net.gemm(net.node("Softmax", net.gemm("x", 5, 6)), 4, 5)
    graph = folded(net, net.node("Mul", y, net.node("Softmax", y)), tmp_path)
    assert kinds(graph) == ["linear", "softmax", "linear", "softmax", "mul"]


def test_softmax_before_the_last_flatten(tmp_path: Path) -> None:
    net = Net((1, 3, 4, 4))
    y = net.node("Softmax", pool(net, net.conv("x", 5, 3)), axis=1)
    graph = fold(load_model(net.save(tmp_path, net.node("Flatten", y))))
    assert kinds(graph) == ["conv2d", "avg_pool2d", "reshape"]


def test_log_softmax_in_the_middle(tmp_path: Path) -> None:
    net = Net((1, 6))
    y = net.gemm(net.node("LogSoftmax", net.gemm("x", 5, 6), name="soft"), 4, 5)
    graph = fold(load_model(net.save(tmp_path, y)))
    with pytest.raises(TteError, match="LogSoftmax") as caught:
        quantize(calibrate(graph, np.ones((4, 6), np.float32)))
    assert "soft " in caught.value.render()


# ---- a fresh head -------------------------------------------------------------------------


def headed(folder: Path) -> Graph:
    net = Net((1, 3, 4, 4))
    y = net.gemm(net.node("Flatten", pool(net, net.conv("x", 8, 3))), 6, 8)
    return fold(load_model(net.save(folder, y)))


def test_replace_head(tmp_path: Path) -> None:
    graph = headed(tmp_path)
    fresh = verify(replace_head(graph, 11, seed=3))
    assert fresh[fresh.outputs[0]].type.shape == (1, 11)
    assert kinds(fresh) == kinds(graph) and fresh.ops[-1].name == graph.ops[-1].name
    weight, bias = (fresh[name] for name in fresh.ops[-1].inputs[1:])
    assert weight.quant == QuantParams((0.5 / 127,)) and weight.data is not None
    assert 0 < np.abs(weight.data.astype(int)).max() < 64
    assert bias.data is not None and not bias.data.any()


def test_head_is_seeded(tmp_path: Path) -> None:
    graph = headed(tmp_path)

    def codes(seed: int) -> bytes:
        fresh = replace_head(graph, 4, seed)
        data = fresh[fresh.ops[-1].inputs[1]].data
        assert data is not None
        return data.tobytes()

    assert codes(1) == codes(1) != codes(2)


@pytest.mark.parametrize("classes", [-1, 0, 1, 1 << 20])
def test_head_of_impossible_size(classes: int, tmp_path: Path) -> None:
    with pytest.raises(TteError, match="classes"):
        replace_head(headed(tmp_path), classes, 0)


def test_head_of_a_network_without_one(tmp_path: Path) -> None:
    net = Net((1, 3, 4, 4))
    graph = fold(load_model(net.save(tmp_path, pool(net, net.conv("x", 8, 3)))))
    with pytest.raises(TteError, match="ends in reshape"):
        replace_head(graph, 4, 0)
