# SPDX-License-Identifier: Apache-2.0
"""What the importer reads computes what onnxruntime computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.onnx_models import Net, nchw, nhwc, run_onnx, save, small_classifier
from tte.errors import TteError
from tte.frontend.onnx import load_model
from tte.ir import Graph, QuantParams
from tte.passes.fold import fold
from tte.reference import run_float


def check(net: Net, output: str, folder: Path, tolerance: float = 1e-4) -> Graph:
    """Import and fold against onnxruntime on random samples; returns the imported graph."""
    path = net.save(folder, output)
    graph = load_model(path)
    shape = [1 if not isinstance(size, int) else size for size in net.shape]
    x = np.random.default_rng(1).normal(0, 1, (4, *shape[1:])).astype(np.float32)
    expected = run_onnx(path, x)
    for candidate in (graph, fold(graph)):
        found = nchw(run_float(candidate, nhwc(x))[candidate.outputs[0]])
        np.testing.assert_allclose(
            found.reshape(expected.shape), expected, rtol=tolerance, atol=tolerance
        )
    return graph


def kinds(graph: Graph) -> list[str]:
    return [op.kind for op in graph.ops]


def pooled(net: Net, x: str) -> str:
    return net.node("GlobalAveragePool", x)


# ---- operators ----------------------------------------------------------------------------

CONVOLUTIONS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "plain": (5, 4, {}),
    "strided": (5, 4, {"strides": [2, 3], "pads": [1, 0, 2, 1]}),
    "dilated": (5, 4, {"dilations": [2, 1], "pads": [2, 1, 2, 1]}),
    "groups": (6, 2, {"group": 2}),
    "depthwise": (4, 1, {"group": 4, "pads": [1, 1, 1, 1]}),
    "depthwise multiplier": (8, 1, {"group": 4}),
    "same upper": (5, 4, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same lower": (5, 4, {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    "valid": (5, 4, {"auto_pad": "VALID", "kernel_shape": [3, 3]}),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_conv(case: str, tmp_path: Path) -> None:
    out_c, share, attrs = CONVOLUTIONS[case]
    net = Net((1, 4, 9, 8))
    graph = check(net, pooled(net, net.conv("x", out_c, share, **attrs)), tmp_path)
    depthwise = share == 1 and out_c == 4
    assert kinds(graph)[0] == ("depthwise_conv2d" if depthwise else "conv2d")


def test_conv_without_bias(tmp_path: Path) -> None:
    net = Net((1, 3, 6, 6))
    check(net, pooled(net, net.node("Conv", "x", net.normal(4, 3, 3, 3))), tmp_path)


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("bias", [None, (5,), (1, 5), (1,)])
def test_gemm(trans_b: int, bias: tuple[int, ...] | None, tmp_path: Path) -> None:
    net = Net(("batch", 7))
    weight = net.normal(*((5, 7) if trans_b else (7, 5)))
    inputs = [weight] if bias is None else [weight, net.normal(*bias)]
    check(net, net.node("Gemm", "x", *inputs, transB=trans_b), tmp_path)


def test_matmul_and_add(tmp_path: Path) -> None:
    net = Net((1, 7))
    hidden = net.node("MatMul", "x", net.normal(7, 5))
    hidden = net.node("Relu", net.node("Add", hidden, net.normal(5)))
    out = net.node("Add", net.normal(1, 3), net.node("MatMul", hidden, net.normal(5, 3)))
    graph = check(net, out, tmp_path)
    assert kinds(fold(graph)) == ["linear", "linear"]


@pytest.mark.parametrize("opset", [7, 10, 13, 17])
def test_clip_and_relu(opset: int, tmp_path: Path) -> None:
    net = Net((1, 3, 6, 6), opset=opset)
    y = net.conv("x", 4, 3)
    if opset < 11:
        y = net.node("Clip", y, min=-0.5, max=0.75)
        y = net.node("Clip", y, max=0.5)
    else:
        y = net.node("Clip", y, net.const(-0.5), net.const(0.75))
        y = net.node("Clip", y, "", net.const([0.5]) if opset < 12 else net.const(0.5))
    y = net.node("Relu", net.conv(y, 5, 4))
    graph = check(net, pooled(net, y), tmp_path)
    assert kinds(fold(graph)) == ["conv2d", "conv2d", "avg_pool2d", "reshape"]


POOLINGS: dict[str, dict[str, Any]] = {
    "2x2": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "overlapping": {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1]},
    "padding counted": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    "same": {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]},
}


@pytest.mark.parametrize("case", POOLINGS)
def test_average_pool(case: str, tmp_path: Path) -> None:
    net = Net((1, 3, 7, 8))
    y = net.node("AveragePool", net.conv("x", 4, 3), **POOLINGS[case])
    check(net, pooled(net, y), tmp_path)


@pytest.mark.parametrize("opset, keepdims", [(13, 0), (13, 1), (18, 0)])
def test_reduce_mean(opset: int, keepdims: int, tmp_path: Path) -> None:
    net = Net((1, 3, 5, 4), opset=opset)
    y = net.conv("x", 6, 3)
    if opset < 18:
        y = net.node("ReduceMean", y, axes=[2, 3], keepdims=keepdims)
    else:
        y = net.node("ReduceMean", y, net.const([-1, 2], np.int64), keepdims=keepdims)
    check(net, net.gemm(net.node("Flatten", y), 3, 6), tmp_path)


@pytest.mark.parametrize("form", ["Flatten", "Reshape", "Shape", "Squeeze11", "Squeeze13"])
def test_ways_to_flatten(form: str, tmp_path: Path) -> None:
    net = Net(("batch", 3, 5, 4), opset=11 if form == "Squeeze11" else 13)
    y = net.conv("x", 6, 3)
    if form.startswith("Squeeze"):
        y = pooled(net, y)
    if form == "Flatten":
        flat = net.node("Flatten", y)
    elif form == "Reshape":
        flat = net.node("Reshape", y, net.const([1, -1], np.int64))
    elif form == "Shape":
        size = net.node("Gather", net.node("Shape", y), net.const(0, np.int64))
        size = net.node("Unsqueeze", size, net.const([0], np.int64))
        target = net.node("Concat", size, net.const([-1], np.int64), axis=0)
        flat = net.node("Reshape", y, target)
    elif form == "Squeeze11":
        flat = net.node("Squeeze", y, axes=[2, 3])
    else:
        flat = net.node("Squeeze", y, net.const([-2, -1], np.int64))
    features = 6 if form.startswith("Squeeze") else 6 * 3 * 2
    check(net, net.gemm(flat, 4, features), tmp_path)


def test_batch_norm_and_constants(tmp_path: Path) -> None:
    net = Net((1, 3, 6, 6))
    y = net.node("Div", net.node("Sub", "x", net.normal(1, 3, 1, 1)), net.const(2.5))
    y = net.node("Relu", net.batch_norm(net.conv(y, 8, 3), 8))
    y = net.batch_norm(net.conv(y, 8, 1, group=8), 8)
    y = net.node("Mul", net.normal(8, 1, 1), y)
    y = net.node("Sub", net.const(1.0), y)
    y = net.gemm(net.node("Flatten", pooled(net, y)), 6, 8)
    y = net.batch_norm(y, 6)
    y = net.batch_norm(net.node("Relu", y), 6)
    check(net, net.gemm(y, 4, 6), tmp_path)


def test_add_dropout_identity_constant_softmax(tmp_path: Path) -> None:
    net = Net((1, 3, 6, 6))
    a = net.conv("x", 4, 3, pads=[1, 1, 1, 1])
    b = net.node("Dropout", net.node("Identity", net.conv(a, 4, 4, 1)))
    y = net.node("Relu", net.node("Add", a, b))
    high = net.node("Constant", value=onnx.numpy_helper.from_array(np.float32(0.5)))
    y = net.node("Clip", y, net.node("Constant", value_float=0.1), high)
    y = net.gemm(net.node("Flatten", pooled(net, y)), 5, 4)
    path = net.save(tmp_path, net.node("Softmax", y, axis=-1))
    graph = fold(load_model(path))
    assert kinds(graph)[-1] == "linear"
    x = np.random.default_rng(1).normal(0, 1, (3, 3, 6, 6)).astype(np.float32)
    logits = run_float(graph, nhwc(x))[graph.outputs[0]]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, run_onnx(path, x), atol=1e-4)


def test_log_softmax(tmp_path: Path) -> None:
    net = Net((1, 7))
    path = net.save(tmp_path, net.node("LogSoftmax", net.gemm("x", 5, 7), axis=1))
    graph = load_model(path)
    x = np.random.default_rng(1).normal(0, 1, (3, 7)).astype(np.float32)
    found = run_float(graph, x)[graph.outputs[0]]
    np.testing.assert_allclose(found, run_onnx(path, x), atol=1e-4)
    assert kinds(fold(graph)) == ["linear"]


def test_old_style_initializers_as_inputs(tmp_path: Path) -> None:
    model = small_classifier()
    for initializer in model.graph.initializer:
        model.graph.input.append(
            onnx.helper.make_tensor_value_info(
                initializer.name, initializer.data_type, initializer.dims
            )
        )
    assert len(load_model(save(model, tmp_path)).inputs) == 1


def test_names(tmp_path: Path) -> None:
    """Nodes keep their names, unnamed ones get one; no two things share a name."""
    model = small_classifier()
    for node in model.graph.node[:3]:
        node.name = ""
    model.graph.node[3].name = model.graph.node[4].name = "twice"
    graph = load_model(save(model, tmp_path))
    names = [op.name for op in graph.ops]
    assert names[:5] == ["Conv_0", "Relu_0", "Conv_1", "twice", "twice_0"]
    assert len(set(names)) == len(names)
    assert graph.ops[0].origin == "Conv_0 (Conv)"


def test_derived_names_are_left_to_the_passes(tmp_path: Path) -> None:
    model = small_classifier()
    conv, relu = model.graph.node[:2]
    conv.name, conv.output[0], relu.input[0] = "a", "a.weight", "a.weight"
    relu.output[0] = "loss"
    for node in model.graph.node[2:]:
        for index, name in enumerate(node.input):
            if name == "v1":
                node.input[index] = "loss"
    graph = load_model(save(model, tmp_path))
    assert [op.outputs[0] for op in graph.ops[:2]] == ["a_weight", "loss_2"]


@pytest.mark.parametrize("batch", [1, 0, "batch", None])
def test_batch_becomes_one(batch: Any, tmp_path: Path) -> None:
    model = small_classifier()
    dim = model.graph.input[0].type.tensor_type.shape.dim[0]
    dim.Clear()
    if isinstance(batch, str):
        dim.dim_param = batch
    elif batch is not None:
        dim.dim_value = batch
    graph = load_model(save(model, tmp_path))
    assert graph[graph.inputs[0]].type.shape == (1, 8, 8, 3)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_float_types(dtype: int, tmp_path: Path) -> None:
    """Weights of 16 and 64 bits become float32."""
    model = small_classifier()
    reference = load_model(save(model, tmp_path))
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        target = np.float16 if dtype == TensorProto.FLOAT16 else np.float64
        tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(target), tensor.name))
    graph = load_model(save(model, tmp_path))
    for op, other in zip(graph.ops, reference.ops, strict=True):
        for name, before in zip(op.inputs[1:], other.inputs[1:], strict=True):
            data, expected = graph[name].data, reference[before].data
            if data is not None and expected is not None:
                assert data.dtype == np.float32
                np.testing.assert_allclose(data, expected, rtol=1e-3)


def test_external_data(tmp_path: Path) -> None:
    model = small_classifier()
    path = tmp_path / "external.onnx"
    expected = load_model(save(model, tmp_path))
    onnx.save(model, path, save_as_external_data=True, size_threshold=0, location="weights.bin")
    graph = load_model(path)
    weight = graph.ops[0].inputs[1]
    np.testing.assert_array_equal(graph[weight].data, expected[weight].data)


# ---- quantised models ---------------------------------------------------------------------


def quantized_net(dtype: Any, clip: str) -> tuple[Net, str]:
    """QDQ around a convolution and a linear layer; `clip`: where a relu stands."""
    net = Net((1, 3, 6, 6))
    offset = 128 if dtype == np.uint8 else 0
    x = net.quantized("x", 0.02, 3 + offset, dtype)
    codes = net.rng.integers(-127, 128, (4, 3, 3, 3))
    weight_scale = np.asarray([0.004, 0.01, 0.002, 0.006], np.float32)
    weight = net.dequantized(codes, weight_scale)
    bias_scale = weight_scale * np.float32(0.02)
    bias = net.dequantized(net.rng.integers(-900, 900, 4), bias_scale, np.int32)
    y = net.node("Conv", x, weight, bias)
    if clip == "before":
        y = net.node("Clip", y, net.const(0.0), net.const(6.0))
        y = net.quantized(y, 0.02, -128 + offset, dtype)
    elif clip == "between":
        y = net.quantized(y, 0.04, 5 + offset, dtype)
        y = net.quantized(net.node("Relu", y), 0.02, -128 + offset, dtype)
    else:
        y = net.quantized(y, 0.02, -128 + offset, dtype)
    y = net.quantized(pooled(net, y), 0.015, -100 + offset, dtype)
    y = net.node("Flatten", y)
    head = net.dequantized(net.rng.integers(-127, 128, (4, 5)), [0.01] * 5, axis=1)
    return net, net.quantized(net.node("Gemm", y, head, transB=0), 0.05, offset, dtype)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("clip", ["before", "between", "none"])
def test_qdq(dtype: Any, clip: str, tmp_path: Path) -> None:
    """Scales, zero points and codes arrive; folded, the float graph saturates like the file."""
    net, output = quantized_net(dtype, clip)
    path = net.save(tmp_path, output)
    graph = fold(load_model(path))
    assert kinds(graph) == ["conv2d", "avg_pool2d", "reshape", "linear"]
    assert graph[graph.inputs[0]].quant == QuantParams((float(np.float32(0.02)),), 3)
    conv, pool, _, head = graph.ops
    assert graph[conv.outputs[0]].quant == QuantParams((float(np.float32(0.02)),), -128)
    assert graph[pool.outputs[0]].quant == QuantParams((float(np.float32(0.015)),), -100)
    assert graph[head.outputs[0]].quant is None
    assert conv.attrs.clamp[0] == 0.0
    weight, bias = graph[conv.inputs[1]], graph[conv.inputs[2]]
    assert weight.type.dtype == "int8" and bias.type.dtype == "int32"
    assert weight.quant is not None and weight.quant.axis == 0
    matrix = graph[head.inputs[1]]
    assert matrix.type.shape == (5, 4) and matrix.quant is not None and matrix.quant.axis == 0
    x = np.random.default_rng(1).uniform(-2.5, 2.4, (3, 3, 6, 6)).astype(np.float32)
    found = run_float(graph, nhwc(x))[graph.outputs[0]]
    np.testing.assert_allclose(found, run_onnx(path, x), atol=0.12)


def test_asymmetric_weights_become_real(tmp_path: Path) -> None:
    net = Net((1, 6))
    x = net.quantized("x", 0.05, 0)
    codes = net.rng.integers(0, 256, (3, 6))
    weight = net.dequantized(codes, 0.01, np.uint8, np.asarray(120))
    graph = load_model(net.save(tmp_path, net.node("Gemm", x, weight, transB=1)))
    tensor = graph[graph.ops[0].inputs[1]]
    assert tensor.quant is None and tensor.data is not None
    np.testing.assert_allclose(tensor.data, (codes - 120) * 0.01, rtol=1e-5)


def test_symmetric_uint8_weights_keep_their_codes(tmp_path: Path) -> None:
    net = Net((1, 6))
    codes = net.rng.integers(1, 256, (3, 6))
    weight = net.dequantized(codes, 0.01, np.uint8, np.asarray(128))
    graph = load_model(net.save(tmp_path, net.node("Gemm", "x", weight, transB=1)))
    tensor = graph[graph.ops[0].inputs[1]]
    assert tensor.data is not None
    np.testing.assert_array_equal(tensor.data, codes - 128)


def test_scales_along_inputs_become_real(tmp_path: Path) -> None:
    """Weights quantised per input channel have no scale per output channel."""
    net = Net((1, 6))
    codes = net.rng.integers(-127, 128, (3, 6))
    scale = np.linspace(0.01, 0.02, 6, dtype=np.float32)
    weight = net.dequantized(codes, scale, axis=1)
    graph = load_model(net.save(tmp_path, net.node("Gemm", "x", weight, transB=1)))
    tensor = graph[graph.ops[0].inputs[1]]
    assert tensor.quant is None and tensor.data is not None
    np.testing.assert_allclose(tensor.data, codes * scale, rtol=1e-5)


def test_fake_quantised_float_weights(tmp_path: Path) -> None:
    """Quantisation-aware training leaves float weights behind QuantizeLinear."""
    net = Net((1, 6))
    scale, zero = net.const([0.015, 0.02, 0.03]), net.const([0, 0, 0], np.int8)
    codes = net.node("QuantizeLinear", net.normal(3, 6), scale, zero, axis=0)
    weight = net.node("DequantizeLinear", codes, scale, zero, axis=0)
    graph = check(net, net.node("Gemm", "x", weight, transB=1), tmp_path)
    assert graph[graph.ops[0].inputs[1]].type.dtype == "int8"


def test_integer_input(tmp_path: Path) -> None:
    """A model whose input is int8 already."""
    net = Net((1, 6))
    net.input_dtype = TensorProto.UINT8
    x = net.node("DequantizeLinear", "x", net.const(0.05), net.const(130, np.uint8))
    graph = load_model(net.save(tmp_path, net.gemm(x, 3, 6)))
    assert graph[graph.inputs[0]].quant == QuantParams((float(np.float32(0.05)),), 2)


def test_per_channel_activations_are_refused(tmp_path: Path) -> None:
    net = Net((1, 3, 4, 4))
    scale, zero = net.const([0.1, 0.2, 0.3]), net.const([0, 0, 0], np.int8)
    y = net.node("QuantizeLinear", "x", scale, zero, axis=1)
    y = net.node("DequantizeLinear", y, scale, zero, axis=1)
    with pytest.raises(TteError, match="per tensor"):
        load_model(net.save(tmp_path, pooled(net, net.conv(y, 4, 3))))


# ---- pretrained models --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mcunet-5fps", "mbv2-w0.35", "proxyless-w0.3"])
def test_pretrained_float_models(name: str, shared_models: Path) -> None:
    path = shared_models / f"{name}-fp32.onnx"
    graph = load_model(path)
    codes = np.load(shared_models / "logits-golden.npz")["input_q"][:2]
    x = codes.astype(np.float32) / np.float32(127.5)
    expected = run_onnx(path, x)
    for candidate in (graph, fold(graph)):
        found = run_float(candidate, nhwc(x), keep=False)[candidate.outputs[0]]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
