# SPDX-License-Identifier: Apache-2.0
"""Calibration and quantisation: near the float network, and one quantum from the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.onnx_models import Net, nhwc
from tte.errors import TteError
from tte.frontend.onnx import load_model
from tte.ir import Graph, QuantParams, Role
from tte.ir.verify import verify
from tte.ops.arith import BIAS_LIMIT
from tte.passes.calibrate import calibrate, quant_of_range
from tte.passes.fold import fold
from tte.passes.head import replace_head
from tte.passes.quantize import quantize
from tte.reference import run_float, run_op

Array = NDArray[Any]
NETS = ("mcunet-5fps", "mbv2-w0.35", "proxyless-w0.3")


def codes_of(graph: Graph, x: Array) -> Array:
    """Real inputs as the network's codes."""
    quant = graph[graph.inputs[0]].quant
    assert quant is not None
    return quant.quantize(x)


def run_integers(graph: Graph, codes: Array) -> dict[str, Array]:
    """All activations of an integer graph."""
    values = {graph.inputs[0]: codes}
    for op in graph.ops:
        values[op.outputs[0]] = run_op(graph, op, values)[0]
    return values


def real_logits(graph: Graph, codes: Array) -> Array:
    output = graph.outputs[0]
    quant = graph[output].quant
    assert quant is not None and graph[output].type.dtype == "int32"
    return run_integers(graph, codes)[output] * np.asarray(quant.scale)


def real_samples(shape: tuple[int, ...], count: int = 16) -> Array:
    pixels = np.random.default_rng(5).integers(0, 256, (count, *shape[1:]))
    return (pixels.astype(np.float32) - 128) / np.float32(127.5)


# ---- calibration --------------------------------------------------------------------------


def test_range_to_quantisation() -> None:
    assert quant_of_range(0.0, 6.0) == QuantParams((6 / 255,), -128)
    assert quant_of_range(1.0, 6.0) == QuantParams((6 / 255,), -128)
    assert quant_of_range(-2.0, -1.0) == QuantParams((2 / 255,), 127)
    quant = quant_of_range(-128 / 127.5, 127 / 127.5)
    assert quant.zero_point == 0 and quant.per_tensor_scale == pytest.approx(1 / 127.5)
    assert quant_of_range(0.0, 0.0).per_tensor_scale > 0


def calibrated_net(folder: Path) -> tuple[Graph, Array]:
    net = Net((1, 3, 8, 8))
    a = net.node("Relu", net.conv("x", 8, 3, pads=[1, 1, 1, 1]))
    b = net.node("Clip", net.conv(a, 8, 1, group=8), net.const(0.0), net.const(6.0))
    b = net.node("AveragePool", net.conv(b, 8, 8, 1), kernel_shape=[2, 2], strides=[2, 2])
    c = net.node("Relu", net.node("GlobalAveragePool", net.node("Add", b, net.conv(b, 8, 8, 1))))
    graph = fold(load_model(net.save(folder, net.gemm(net.node("Flatten", c), 5, 8))))
    return graph, real_samples((1, 8, 8, 3))


def test_calibrate(tmp_path: Path) -> None:
    graph, x = calibrated_net(tmp_path)
    result = calibrate(graph, x)
    values = run_float(graph, x)
    for op in result.ops:
        y = op.outputs[0]
        quant = result[y].quant
        if op.kind == "linear":
            assert quant is None
            continue
        assert quant is not None
        if op.kind in ("clip", "reshape"):
            assert quant == result[op.inputs[0]].quant
        else:
            low, high = quant.dequantize(np.asarray([-128, 127]))
            half = quant.per_tensor_scale / 2 + 1e-6
            assert low <= values[y].min() + half and values[y].max() <= high + half
        if op.kind in ("conv2d", "depthwise_conv2d") and op.attrs.clamp[0] == 0.0:
            assert quant.zero_point == -128


def test_batches_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, x = calibrated_net(tmp_path)
    expected = calibrate(graph, x)
    monkeypatch.setattr("tte.passes.calibrate.BATCH_BYTES", 1)
    result = calibrate(graph, x)
    for name, tensor in expected.tensors.items():
        found = result[name].quant
        if tensor.quant is not None and tensor.data is None:
            assert found is not None and found.zero_point == tensor.quant.zero_point
            assert found.per_tensor_scale == pytest.approx(tensor.quant.per_tensor_scale)


def test_calibration_data_must_fit(tmp_path: Path) -> None:
    graph, x = calibrated_net(tmp_path)
    for bad in (x[:0], x[:, :4]):
        with pytest.raises(TteError, match="does not fit"):
            calibrate(graph, bad)


def test_nan_in_the_data(tmp_path: Path) -> None:
    graph, x = calibrated_net(tmp_path)
    x[0, 0, 0, 0] = np.nan
    with pytest.raises(TteError, match="NaN"):
        calibrate(graph, x)


def test_overflow_in_the_network(tmp_path: Path) -> None:
    net = Net((1, 4))
    y = net.node("Gemm", "x", net.const(np.full((3, 4), 3e38)), transB=1)
    graph = fold(load_model(net.save(tmp_path, net.gemm(net.node("Relu", y), 2, 3))))
    with pytest.raises(TteError, match="infinity"):
        calibrate(graph, np.full((2, 4), 100, np.float32))


def test_clip_with_its_own_scale(tmp_path: Path) -> None:
    """Pooling takes over the scale of the clip that cannot change it."""
    net = Net((1, 3, 4, 4))
    y = net.quantized(net.node("GlobalAveragePool", net.conv("x", 4, 3)), 0.01, 0)
    y = net.quantized(net.node("Relu", y), 0.02, -128)
    graph = calibrate(fold(load_model(net.save(tmp_path, y))), real_samples((1, 4, 4, 3)))
    pool = next(op for op in graph.ops if op.kind == "avg_pool2d")
    assert graph[pool.outputs[0]].quant == QuantParams((float(np.float32(0.02)),), -128)
    verify(quantize(graph))


# ---- quantisation -------------------------------------------------------------------------


def test_a_quotient_of_activations_is_refused(tmp_path: Path) -> None:
    """Layer normalisation, as it is written without its operator."""
    net = Net((1, 8))
    x = net.gemm("x", 6, 8)
    centred = net.node("Sub", x, net.node("ReduceMean", x, axes=[-1]))
    square = net.node("Mul", centred, centred)
    deviation = net.node("Sqrt", net.node("ReduceMean", square, axes=[-1]))
    y = net.gemm(net.node("Div", centred, deviation), 3, 6)
    graph = fold(load_model(net.save(tmp_path, y)))
    with pytest.raises(TteError, match="div cannot be computed") as caught:
        quantize(calibrate(graph, np.random.default_rng(0).normal(0, 1, (4, 8))))
    assert "BatchNormalization" in caught.value.hint


def test_small_network(tmp_path: Path) -> None:
    graph, x = calibrated_net(tmp_path)
    integer = verify(quantize(calibrate(graph, x)))
    assert integer[integer.inputs[0]].role is Role.INPUT
    assert all(tensor.type.dtype in ("int8", "int32") for tensor in integer.tensors.values())
    logits = real_logits(integer, codes_of(integer, x))
    expected = run_float(graph, x)[graph.outputs[0]]
    spread = expected.max() - expected.min()
    assert np.abs(logits - expected).max() < 0.05 * spread


def test_hidden_linear_layers_and_vectors(tmp_path: Path) -> None:
    net = Net((1, 12))
    a = net.node("Relu", net.gemm("x", 16, 12))
    b = net.node("Add", a, net.gemm(a, 16, 16))
    graph = fold(load_model(net.save(tmp_path, net.gemm(b, 4, 16))))
    x = real_samples((1, 12), 64)
    integer = verify(quantize(calibrate(graph, x)))
    expected = run_float(graph, x)[graph.outputs[0]]
    found = real_logits(integer, codes_of(integer, x))
    assert np.abs(found - expected).max() < 0.05 * (expected.max() - expected.min())


@pytest.mark.parametrize("end", ["pool", "relu", "conv"])
def test_output_is_always_int32(end: str, tmp_path: Path) -> None:
    """A network that does not end in a linear layer gets its codes widened."""
    net = Net((1, 3, 4, 4))
    y = net.conv("x", 6, 3)
    if end == "pool":
        y = net.node("GlobalAveragePool", y)
    elif end == "relu":
        y = net.node("Relu", net.gemm(net.node("Flatten", y), 6, 24))
    else:
        y = net.conv(y, 6, 6, 2)
    graph = fold(load_model(net.save(tmp_path, y)))
    x = real_samples((1, 4, 4, 3), 64)
    integer = verify(quantize(calibrate(graph, x)))
    output = integer[integer.outputs[0]]
    assert integer.ops[-1].kind == "widen_int32" and output.type.shape == (1, 6)
    assert output.quant is not None and len(output.quant.scale) == 6
    expected = run_float(graph, x)[graph.outputs[0]]
    found = real_logits(integer, codes_of(integer, x))
    assert np.abs(found - expected).max() < 0.05 * (expected.max() - expected.min())


def test_bias_of_another_scale_is_computed_anew(tmp_path: Path) -> None:
    """An int32 bias is only taken as it is where its scale is s_x s_w."""
    net = Net((1, 4))
    x = net.quantized("x", 0.02, 0)
    weight = net.dequantized(net.rng.integers(-127, 128, (3, 4)), 0.01)
    bias = net.dequantized(np.asarray([100, -50, 7]), 0.002, np.int32)
    graph = fold(load_model(net.save(tmp_path, net.node("Gemm", x, weight, bias, transB=1))))
    integer = quantize(calibrate(graph, np.zeros((1, 4), np.float32)))
    data = integer[integer.ops[-1].inputs[2]].data
    assert data is not None
    np.testing.assert_array_equal(data, [1000, -500, 70])


def test_fresh_head_quantises(tmp_path: Path) -> None:
    graph, x = calibrated_net(tmp_path)
    integer = verify(quantize(calibrate(replace_head(graph, 7, 0), x)))
    quant = integer[integer.ops[-1].inputs[1]].quant
    assert quant is not None and set(quant.scale) == {0.5 / 127}
    assert real_logits(integer, codes_of(integer, x)).shape == (len(x), 7)


# ---- the pretrained networks ----------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained(shared_models: Path) -> dict[str, Graph]:
    """The three int8 networks as integer graphs."""
    nothing = np.zeros(0, np.float32)
    return {
        name: verify(
            quantize(calibrate(fold(load_model(shared_models / f"{name}-int8-qdq.onnx")), nothing))
        )
        for name in NETS
    }


def golden_values(graph: Graph, golden: Any) -> dict[str, Array]:
    """Reference activations by tensor name, NHWC with batch."""
    values = {graph.inputs[0]: golden["input_q"].transpose(1, 2, 0)[None]}
    for op in graph.ops:
        shape = graph[op.outputs[0]].type.shape
        if op.kind == "reshape":
            values[op.outputs[0]] = values[op.inputs[0]].reshape(shape)
        elif op.kind != "linear_int32":
            values[op.outputs[0]] = golden[op.name].transpose(1, 2, 0).reshape(shape)
    return values


@pytest.mark.parametrize("name", NETS)
def test_layer_by_layer(name: str, pretrained: dict[str, Graph], shared_models: Path) -> None:
    """Each layer on the reference's input: at most one quantum, in a few rounding ties."""
    graph = pretrained[name]
    golden = np.load(shared_models / f"{name}-activations-golden.npz")
    values = golden_values(graph, golden)
    differing = elems = checked = 0
    for op in graph.ops:
        if op.kind in ("reshape", "linear_int32"):
            continue
        found = run_op(graph, op, values)[0].astype(int)
        difference = np.abs(found - values[op.outputs[0]])
        assert difference.max() <= 1, op.name
        differing += np.count_nonzero(difference)
        elems += difference.size
        checked += 1
    assert checked == sum(1 for op in graph.ops) - 2
    assert differing <= 10, f"{differing} of {elems} elements differ"


@pytest.mark.parametrize("name", NETS)
def test_end_to_end(name: str, pretrained: dict[str, Graph], shared_models: Path) -> None:
    """Rounding ties cascade, in the reference itself too: a few quanta of the logits."""
    graph = pretrained[name]
    golden = np.load(shared_models / "logits-golden.npz")
    reference = load_model(shared_models / f"{name}-int8-qdq.onnx")
    head = next(op for op in reference.ops if op.name == "classifier")
    quant = reference[head.outputs[0]].quant
    assert quant is not None
    logits = real_logits(graph, nhwc(golden["input_q"]))
    found = quant.quantize(logits).astype(int)
    expected = golden[f"{name}/logits_q"].astype(int)
    difference = np.abs(found - expected)
    assert difference.max() <= 6 and difference.mean() < 0.7
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).all()


@pytest.mark.parametrize("name", NETS)
def test_dead_channels(name: str, pretrained: dict[str, Graph]) -> None:
    """Biases saturated in the file leave room in the accumulator."""
    graph = pretrained[name]
    for op in graph.ops:
        if op.kind in ("conv2d_int8", "depthwise_conv2d_int8"):
            bias = graph[op.inputs[2]].data
            assert bias is not None and np.abs(bias.astype(np.int64)).max() <= BIAS_LIMIT


@pytest.mark.parametrize("name", NETS)
def test_float_twin(name: str, shared_models: Path, shared_data: Path) -> None:
    """The float network, calibrated here on photos, agrees with its int8 self."""
    from tte.data import load_dataset

    data = load_dataset(shared_data / "flowers5_128")
    rng = np.random.default_rng(0)
    picked = rng.permutation(len(data.x_train))[:32]
    graph = fold(load_model(shared_models / f"{name}-fp32.onnx"))

    def real(pixels: Array) -> Array:
        return (pixels.astype(np.float32) - 128) / np.float32(127.5)

    integer = verify(quantize(calibrate(graph, real(data.x_train[picked]))))
    quant = integer[integer.inputs[0]].quant
    assert quant is not None and quant.zero_point == 0
    assert quant.per_tensor_scale == pytest.approx(1 / 127.5, rel=1e-3)
    x = real(data.x_test[::8])
    found = real_logits(integer, codes_of(integer, x))
    expected = run_float(graph, x, keep=False)[graph.outputs[0]]
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((found * expected).sum(axis=1) / norms).mean() > 0.99
    top5 = np.argsort(-expected, axis=1)[:, :5]
    assert (found.argmax(axis=1) == top5[:, 0]).mean() >= 0.8
    assert (found.argmax(axis=1)[:, None] == top5).any(axis=1).mean() >= 0.95
