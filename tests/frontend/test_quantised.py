# SPDX-License-Identifier: Apache-2.0
"""Models as exporters and quantisers write them compute what onnxruntime computes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.layerwise import differences, integers, onnxruntime_codes
from tests.onnx_models import Net, QuantisedNet, nhwc, run_onnx
from tte.errors import TteError
from tte.frontend.onnx import load_model
from tte.ir import Graph, QuantParams
from tte.passes.fold import fold
from tte.reference import run_float

DATA = Path(__file__).resolve().parent.parent / "data"
UINT8, INT8 = "QUInt8", "QInt8"


def images(net: Net, count: int = 8, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, *net.shape[1:])).astype(np.float32)


def agrees(path: Path, x: np.ndarray) -> tuple[Graph, dict[str, int]]:
    """The integer graph, and its differences to onnxruntime, layer by layer."""
    imported = load_model(path)
    graph = integers(imported)
    found = differences(graph, onnxruntime_codes(path, imported, x))
    assert max(found.values()) <= 1, found
    return graph, found


# ---- PyTorch ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["torchscript_opset7", "torchscript_batch", "dynamo_batch"])
def test_pytorch_float(name: str) -> None:
    path = DATA / f"{name}.onnx"
    graph = fold(load_model(path))
    assert [op.kind for op in graph.ops][-3:] == ["avg_pool2d", "reshape", "linear"]
    assert not {"batch_norm", "clip", "transpose"} & {op.kind for op in graph.ops}
    x = np.random.default_rng(1).normal(0, 1, (4, 3, 16, 16)).astype(np.float32)
    found = run_float(graph, nhwc(x))[graph.outputs[0]]
    np.testing.assert_allclose(found, run_onnx(path, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name, layers", [("torchscript_int8", 6), ("torchscript_qat", 4)])
def test_pytorch_quantised(name: str, layers: int) -> None:
    """Quantised after training, and fake-quantised in training."""
    x = np.random.default_rng(1).normal(0, 1, (4, 3, 16, 16)).astype(np.float32)
    _, found = agrees(DATA / f"{name}.onnx", x)
    assert len(found) >= layers


# ---- onnxruntime's quantiser --------------------------------------------------------------


def typical() -> tuple[Net, str]:
    net = Net((1, 3, 12, 12), opset=17)
    y = net.node("Relu", net.conv("x", 8, 3, pads=[1] * 4, strides=[2, 2]))
    z = net.conv(y, 8, 1, pads=[1] * 4, group=8)
    y = net.node("Add", y, net.node("Clip", z, net.const(0.0), net.const(6.0)))
    y = net.conv(net.node("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2]), 12, 8, 1)
    y = net.node("Flatten", net.node("GlobalAveragePool", y))
    y = net.node("Relu", net.gemm(y, 10, 12))
    return net, net.node("MatMul", y, net.normal(10, 5))


def quantise(net: Net, output: str, folder: Path, **options: Any) -> Path:
    """The model after onnxruntime's static quantisation."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.samples: Iterator[np.ndarray] = iter(images(net, 16, 2))

        def get_next(self) -> dict[str, np.ndarray] | None:
            sample = next(self.samples, None)
            return None if sample is None else {"x": sample[None]}

    source, target = net.save(folder, output), folder / "quantised.onnx"
    for name in ("activation_type", "weight_type"):
        options[name] = quantization.QuantType[options.get(name, INT8)]
    options["quant_format"] = quantization.QuantFormat[options.get("quant_format", "QOperator")]
    logging.disable(logging.WARNING)
    try:
        quantization.quantize_static(source, target, Reader(), **options)
    finally:
        logging.disable(logging.NOTSET)
    return target


@pytest.mark.parametrize("quant_format", ["QOperator", "QDQ"])
@pytest.mark.parametrize("activation_type", [UINT8, INT8])
@pytest.mark.parametrize("per_channel", [False, True])
def test_onnxruntime_static(
    quant_format: str, activation_type: str, per_channel: bool, tmp_path: Path
) -> None:
    net, output = typical()
    path = quantise(
        net,
        output,
        tmp_path,
        quant_format=quant_format,
        activation_type=activation_type,
        per_channel=per_channel,
    )
    graph, found = agrees(path, images(net))
    assert len(found) >= 8
    expected = ["conv2d_int8", "depthwise_conv2d_int8", "add_int8", "avg_pool2d_int8"]
    assert [op.kind for op in graph.ops][:4] == expected
    if per_channel:
        weight = graph[graph.ops[0].inputs[1]]
        assert weight.quant is not None and len(weight.quant.scale) == 8


def test_asymmetric_weights(tmp_path: Path) -> None:
    """uint8 weights are quantised anew; the output moves by a few quanta at most."""
    net, output = typical()
    path = quantise(net, output, tmp_path, activation_type=UINT8, weight_type=UINT8)
    imported = load_model(path)
    found = differences(integers(imported), onnxruntime_codes(path, imported, images(net)))
    assert 0 < max(found.values()) <= 4


def test_views_of_codes(tmp_path: Path) -> None:
    """onnxruntime leaves operators that only move elements on the codes."""
    net = Net((1, 3, 6, 6), opset=17)
    y = net.node("Transpose", net.conv("x", 4, 3), perm=[0, 2, 3, 1])
    y = net.node("Reshape", y, net.const([1, -1], np.int64))
    path = quantise(net, net.gemm(y, 5, 64), tmp_path)
    types = [node.op_type for node in onnx.load(path).graph.node]
    assert types.index("Transpose") < types.index("QGemm")
    graph, _ = agrees(path, images(net))
    assert [op.kind for op in graph.ops] == ["conv2d_int8", "reshape", "linear_int32"]


def test_dynamic_quantisation_is_refused(tmp_path: Path) -> None:
    from onnxruntime import quantization

    net, output = typical()
    target = tmp_path / "dynamic.onnx"
    logging.disable(logging.WARNING)
    quantization.quantize_dynamic(net.save(tmp_path, output), target)
    logging.disable(logging.NOTSET)
    with pytest.raises(TteError, match="dynamically quantised") as caught:
        load_model(target)
    assert "quantize_static" in str(caught.value)


# ---- quantised operators by hand ----------------------------------------------------------


@pytest.mark.parametrize("opset", [10, 13, 21])
def test_linear_matmul_per_column(opset: int, tmp_path: Path) -> None:
    """A scale per column, before opset 13 knew DequantizeLinear with an axis too."""
    net = QuantisedNet((1, 7), opset=opset)
    x, x_params = net.code("x", 0.03, 5), net.params(0.03, 5)
    codes = net.rng.integers(-127, 128, (7, 4))
    scales = np.asarray([0.01, 0.02, 0.005, 0.03], np.float32)
    w = net.const(codes, np.int8), net.const(scales), net.const(np.zeros(4), np.int8)
    y_params = net.params(0.2, -3)
    y = net.node("QLinearMatMul", x, *x_params, *w, *y_params)
    path = net.save(tmp_path, net.node("DequantizeLinear", y, *y_params))
    graph, _ = agrees(path, images(net))
    weight = graph[graph.ops[0].inputs[1]]
    np.testing.assert_array_equal(weight.data, codes.T)
    assert weight.quant is not None and weight.quant.scale == tuple(map(float, scales))


def test_gemm_with_a_real_output(tmp_path: Path) -> None:
    net = QuantisedNet((1, 7))
    x = net.code("x", 0.03, 128, np.uint8)
    w = net.const(net.rng.integers(-127, 128, (4, 7)), np.int8)
    bias = net.const(net.rng.integers(-500, 500, 4), np.int32)
    inputs = (x, *net.params(0.03, 128, np.uint8), w, *net.params(0.01, 0), bias)
    path = net.save(tmp_path, net.contrib("QGemm", *inputs, transB=1))
    graph = fold(load_model(path))
    x = images(net)
    real = run_float(graph, x)[graph.outputs[0]]
    np.testing.assert_allclose(real, run_onnx(path, x), atol=0.03 * 0.01 * 127 * 7)
    assert graph[graph.ops[0].inputs[2]].type.dtype == "int32"


def test_output_of_codes(tmp_path: Path) -> None:
    """A model that ends in codes."""
    net = QuantisedNet((1, 7))
    x, x_params = net.code("x", 0.03, 5), net.params(0.03, 5)
    w = net.const(net.rng.integers(-127, 128, (7, 4)), np.int8), *net.params(0.01, 0)
    path = net.save(tmp_path, net.node("QLinearMatMul", x, *x_params, *w, *net.params(0.1, 2)))
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT8
    onnx.save(model, path)
    agrees(path, images(net))


def test_contributed_quantize_linear(tmp_path: Path) -> None:
    net = QuantisedNet((1, 6))
    parameters = net.params(0.05, 3)
    y = net.contrib("QuantizeLinear", "x", *parameters)
    y = net.contrib("DequantizeLinear", y, *parameters)
    graph = load_model(net.save(tmp_path, net.gemm(y, 3, 6)))
    assert graph[graph.inputs[0]].quant == QuantParams((float(np.float32(0.05)),), 3)


@pytest.mark.parametrize(
    "attrs, cut, expected",
    [
        ({"channels_last": 1}, None, "channels_last"),
        ({}, 2, "scale"),
        ({"volume": 11}, None, "unknown attribute 'volume'"),
    ],
)
def test_bad_quantised_operators(
    attrs: dict[str, int], cut: int | None, expected: str, tmp_path: Path
) -> None:
    net = QuantisedNet((1, 3, 4, 4))
    x, parameters = net.code("x", 0.03, 5), net.params(0.03, 5)
    inputs = [x, *parameters, *parameters]
    if cut is not None:
        inputs[1] = ""
    y = net.contrib("QLinearGlobalAveragePool", *inputs, **attrs)
    path = net.save(tmp_path, net.node("DequantizeLinear", y, *parameters))
    with pytest.raises(TteError, match=expected):
        load_model(path)


def test_computed_scale(tmp_path: Path) -> None:
    net = QuantisedNet((1, 6))
    x, parameters = net.code("x", 0.03, 5), net.params(0.03, 5)
    w = net.const(np.ones((6, 3)), np.int8), "v0", net.const(0, np.int8)
    y = net.node("QLinearMatMul", x, *parameters, *w, *parameters)
    with pytest.raises(TteError, match="constant"):
        load_model(net.save(tmp_path, net.node("DequantizeLinear", y, *parameters)))


def test_constant_codes_are_moved(tmp_path: Path) -> None:
    """A quantised constant, transposed as codes."""
    net = QuantisedNet((1, 6))
    w_params = net.params(0.02, 0)
    w = net.node("Transpose", net.node("QuantizeLinear", net.normal(6, 3), *w_params), perm=[1, 0])
    w = net.node("DequantizeLinear", w, *w_params)
    graph = load_model(net.save(tmp_path, net.node("Gemm", "x", w, transB=1)))
    assert graph[graph.ops[0].inputs[1]].type.dtype == "int8"


# ---- Keras by way of tf2onnx --------------------------------------------------------------


@pytest.mark.parametrize("zero_point", [0, 3, 128])
def test_unsigned_constants(zero_point: int, tmp_path: Path) -> None:
    """Codes above 127 without their zero point are no int8."""
    net = Net((1, 4), opset=13)
    codes = np.asarray([0, 100, 200, 255], np.uint8)
    other = net.dequantized(codes, 0.02, np.uint8, zero_point)
    path = net.save(tmp_path, net.gemm(net.node("Add", "x", other), 3, 4))
    graph, x = fold(load_model(path)), images(net)
    found = run_float(graph, x)[graph.outputs[0]]
    np.testing.assert_allclose(found, run_onnx(path, x), atol=0.02 if zero_point == 128 else 1e-4)


def test_a_range_that_cuts(tmp_path: Path) -> None:
    """A second quantisation is a relu for one of two readers."""
    net = Net((1, 6), opset=13)
    x = net.quantized("x", 0.02, 0)
    y = net.node("Concat", net.quantized(x, 0.01, -128), x, axis=1)
    path = net.save(tmp_path, net.gemm(y, 3, 12))
    graph, x = fold(load_model(path)), images(net).clip(-2, 2)
    found = run_float(graph, x)[graph.outputs[0]]
    np.testing.assert_allclose(found, run_onnx(path, x), atol=0.05)


def test_channel_last_qdq(tmp_path: Path) -> None:
    """NHWC activations quantised between transposes, weights transposed in the graph."""
    net = Net((1, 6, 6, 3))
    x = net.quantized("x", 0.02, 3)
    y = net.node("Transpose", x, perm=[0, 3, 1, 2])
    codes = net.rng.integers(-127, 128, (3, 3, 3, 4))
    weight = net.dequantized(codes, np.asarray([0.004, 0.01, 0.002, 0.006]), axis=3)
    y = net.node("Conv", y, net.node("Transpose", weight, perm=[3, 2, 0, 1]))
    y = net.node("Transpose", y, perm=[0, 2, 3, 1])
    y = net.quantized(net.node("Relu", net.node("Add", y, net.normal(4))), 0.03, -128)
    y = net.node("Reshape", y, net.const([-1, 64], np.int64))
    y = net.node(
        "MatMul", y, net.dequantized(net.rng.integers(-99, 99, (64, 5)), [0.01] * 5, axis=1)
    )
    path = net.save(tmp_path, net.quantized(y, 0.1, 0))
    graph = integers(load_model(path))
    assert [op.kind for op in graph.ops] == ["conv2d_int8", "reshape", "linear_int32"]
    np.testing.assert_array_equal(graph[graph.ops[0].inputs[1]].data, codes.transpose(3, 0, 1, 2))


@pytest.mark.parametrize("dtype, low", [(TensorProto.UINT8, 0), (TensorProto.INT8, -128)])
def test_integer_pixels_cast_to_float(dtype: int, low: int, tmp_path: Path) -> None:
    """Pixels enter as integers, and the model scales them itself."""
    net = Net((1, 3, 5, 5))
    net.input_dtype = dtype
    y = net.node("Mul", net.node("Cast", "x", to=TensorProto.FLOAT), net.const(1 / 64))
    y = net.node("GlobalAveragePool", net.conv(y, 4, 3))
    path = net.save(tmp_path, net.gemm(net.node("Flatten", y), 3, 4))
    graph = load_model(path)
    assert graph[graph.inputs[0]].quant == QuantParams((1.0,), -128 - low)
    x = np.random.default_rng(1).integers(low, low + 256, (4, 3, 5, 5))
    expected = run_onnx(path, x.astype(np.uint8 if low == 0 else np.int8))
    found = run_float(fold(graph), nhwc(x))[fold(graph).outputs[0]]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
