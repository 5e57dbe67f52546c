# SPDX-License-Identifier: Apache-2.0
"""How ranges are chosen and biases corrected: the best there is, whatever the data does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.onnx_models import Net
from tte.errors import TteError
from tte.frontend.onnx import load_model
from tte.ir import Graph
from tte.ir.verify import verify
from tte.ops.arith import INT32_MAX
from tte.ops.quantized import FIRST_BIAS_LIMIT, quant_of_range
from tte.passes.calibrate import METHODS, OUTSIDE, Spread, calibrate
from tte.passes.correct_biases import correct_biases
from tte.passes.fold import fold
from tte.passes.quantize import quantize
from tte.reference import run_float, run_op

Array = NDArray[Any]
BIN = 1 / 32  # relative width of a histogram's bin


def spread(values: Array) -> Spread:
    """What calibration knows of values."""
    values = values.astype(np.float32)
    found = Spread(min(0.0, float(values.min())), max(0.0, float(values.max())))
    found.count(values)
    return found


def squared_error(values: Array, low: float, high: float) -> float:
    """Of codes over this range."""
    quant = quant_of_range(low, high)
    return float(((quant.dequantize(quant.quantize(values)) - values) ** 2).sum())


SIGNALS = {
    "normal": lambda rng: rng.normal(0, 3, 20000),
    "relu": lambda rng: rng.normal(0, 3, 20000).clip(0),
    "negative": lambda rng: -rng.exponential(0.01, 20000),
    "heavy": lambda rng: rng.standard_t(2, 20000),
    "uniform": lambda rng: rng.uniform(-1, 2, 20000),
    "few": lambda rng: rng.normal(0, 1, 5),
}


# ---- ranges -------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", SIGNALS)
def test_percentile(signal: str) -> None:
    """No more than the share lies outside, at either end; a range a bin smaller would lose it."""
    values = SIGNALS[signal](np.random.default_rng(0)).astype(np.float32)
    low, high = spread(values).range("percentile")
    most = int(OUTSIDE * values.size)
    for side, bound in ((values, high), (-values, -low)):
        assert bound <= max(0.0, side.max())
        assert (side > bound).sum() <= most
        assert bound == 0 or (side >= bound * (1 - 2 * BIN)).sum() > most


@pytest.mark.parametrize("signal", SIGNALS)
def test_mse(signal: str) -> None:
    """Close to the best range that trying finds, and never worse than the extremes."""
    values = SIGNALS[signal](np.random.default_rng(1)).astype(np.float32)
    found = squared_error(values, *spread(values).range("mse"))
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    tried = [
        squared_error(values, low * a, high * b)
        for a in (np.linspace(0.05, 1, 40) if low < 0 else [0.0])
        for b in (np.linspace(0.05, 1, 40) if high > 0 else [0.0])
    ]
    if values.size > 1000:
        assert found <= 1.1 * min(tried)
    assert found <= 1.02 * squared_error(values, low, high) + 1e-9


def test_mse_cuts_off_what_is_rare() -> None:
    """One value of half a million, four times as far out as the others."""
    values = np.append(np.random.default_rng(2).normal(0, 1, 500_000), 20).astype(np.float32)
    low, high = spread(values).range("mse")
    assert high < 15 and low < -3
    assert squared_error(values, low, high) < 0.7 * squared_error(values, values.min(), 20)


def test_the_order_of_samples_does_not_matter() -> None:
    values = SIGNALS["heavy"](np.random.default_rng(3)).astype(np.float32)
    whole, parts = spread(values), Spread(float(values.min()), float(values.max()))
    for part in np.split(values[::-1], 20):
        parts.count(part)
    assert (whole.counts == parts.counts).all()
    assert whole.counts.sum() == values.size


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "values",
    [[0.0], [-0.0, 0.0], [3.0], [-2.5], [1e-42, -1e-42], [3.4e38, -3.4e38], [1e-30] * 9 + [1e30]],
    ids=["zero", "signed zeros", "one", "negative", "denormal", "largest", "far apart"],
)
def test_any_values_give_a_range(values: list[float], method: str) -> None:
    array = np.asarray(values, np.float32)
    low, high = spread(array).range(method)
    assert min(0.0, array.min()) <= low <= 0 <= high <= max(0.0, array.max())
    quant = quant_of_range(low, high)
    assert 0 < quant.per_tensor_scale < np.inf and -128 <= quant.zero_point <= 127


# ---- networks -----------------------------------------------------------------------------


def integers(graph: Graph, x: Array, method: str = "minmax") -> Graph:
    return verify(quantize(calibrate(graph, x, method)))


def real_output(graph: Graph, x: Array) -> Array:
    """The integer network's output for real inputs."""
    quant = graph[graph.inputs[0]].quant
    assert quant is not None
    values = {graph.inputs[0]: quant.quantize(x)}
    for op in graph.ops:
        values[op.outputs[0]] = run_op(graph, op, values)[0]
    output = graph[graph.outputs[0]]
    assert output.quant is not None
    return output.quant.dequantize(values[output.name])


def two_layers(folder: Path, weight: Array, bias: Array, pooled: bool = True) -> Graph:
    """A 1x1 convolution with these weights [8, 3], relu, pooling, linear."""
    net = Net((1, 3, 6, 6))
    y = net.node("Conv", "x", net.const(weight.reshape(8, 3, 1, 1)), net.const(bias))
    y = net.node("Relu", y)
    y = net.node("Flatten", net.node("GlobalAveragePool", y) if pooled else y)
    return fold(load_model(net.save(folder, net.gemm(y, 4, 8 if pooled else 288))))


def samples(count: int = 32) -> Array:
    return np.random.default_rng(5).normal(0, 1, (count, 6, 6, 3)).astype(np.float32)


@pytest.mark.parametrize("method", METHODS)
def test_constant_and_dead_channels(method: str, tmp_path: Path) -> None:
    """Channels that are always 0, always the same, or nothing but a bias."""
    rng = np.random.default_rng(6)
    weight, bias = rng.normal(0, 0.5, (8, 3)), rng.normal(0, 0.5, 8)
    weight[:4] = 0
    bias[:3] = 0, 1.5, -1.5
    weight[4] = 1e-12
    graph, x = two_layers(tmp_path, weight, bias), samples()
    expected = run_float(graph, x)[graph.outputs[0]]
    calibrated = calibrate(graph, x, method)
    plain = verify(quantize(calibrated))
    for integer in (plain, correct_biases(plain, calibrated, x, run_op)):
        error = np.abs(real_output(integer, x) - expected)
        assert error.max() < 0.03 * np.abs(expected).max()


@pytest.mark.parametrize("method", METHODS)
def test_everything_is_constant(method: str, tmp_path: Path) -> None:
    graph = two_layers(tmp_path, np.zeros((8, 3)), np.zeros(8))
    x = np.zeros((3, 6, 6, 3), np.float32)
    calibrated = calibrate(graph, x, method)
    integer = correct_biases(quantize(calibrated), calibrated, x, run_op)
    expected = run_float(graph, x)[graph.outputs[0]]
    np.testing.assert_allclose(real_output(integer, x), expected, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_one_sample(method: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    graph = two_layers(tmp_path, rng.normal(0, 0.5, (8, 3)), rng.normal(0, 0.5, 8))
    x = samples(1)
    calibrated = calibrate(graph, x, method)
    integer = correct_biases(verify(quantize(calibrated)), calibrated, x, run_op)
    expected = run_float(graph, x)[graph.outputs[0]]
    assert np.abs(real_output(integer, x) - expected).max() < 0.03 * np.abs(expected).max()


def test_a_huge_outlier(tmp_path: Path) -> None:
    """One broken pixel of 40,000 makes minmax useless, but not percentile."""
    rng = np.random.default_rng(8)
    graph = two_layers(tmp_path, rng.normal(0, 0.5, (8, 3)), rng.normal(0, 0.5, 8), pooled=False)
    x = samples(400)
    expected = run_float(graph, x)[graph.outputs[0]]
    broken = x.copy()
    broken[0, 0, 0, 0] = 1e6

    def error(method: str) -> float:
        found = real_output(integers(graph, broken, method), x)
        return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))

    assert error("percentile") < 0.03
    assert error("minmax") > 0.3


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_finite_is_named(method: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    graph = two_layers(tmp_path, rng.normal(0, 0.5, (8, 3)), rng.normal(0, 0.5, 8))
    for value in (np.nan, np.inf, -np.inf):
        x = samples(40)
        x[39, 5, 5, 2] = value
        with pytest.raises(TteError, match="NaN or infinity") as error:
            calibrate(graph, x, method)
        assert "'x'" in str(error.value.where)
    weight = rng.normal(0, 0.5, (8, 3))
    weight[3, 1] = np.nan
    with pytest.raises(TteError, match="NaN") as error:
        calibrate(two_layers(tmp_path, weight, np.zeros(8)), samples(), method)
    assert "Conv" in error.value.what


# ---- biases -------------------------------------------------------------------------------


def rounded_down(folder: Path) -> tuple[Graph, Array]:
    """Weights that all lose the same half step when they are rounded, so that errors add up."""
    rng = np.random.default_rng(10)
    weight = (rng.integers(-20, 20, (8, 3)) + 0.49) / 127
    weight[:, 0] = 1  # the largest: a step is 1/127
    return two_layers(folder, weight, rng.normal(0, 0.5, 8)), np.abs(samples(64))


def test_correction_takes_the_mean_error_out(tmp_path: Path) -> None:
    graph, x = rounded_down(tmp_path)
    calibrated = calibrate(graph, x)
    plain = verify(quantize(calibrated))
    corrected = verify(correct_biases(plain, calibrated, x[:32], run_op))
    expected = run_float(graph, x)[graph.outputs[0]]

    def mean_error(integer: Graph) -> float:  # of samples that it has not seen
        return float(np.abs((real_output(integer, x[32:]) - expected[32:]).mean(axis=0)).max())

    assert mean_error(corrected) < 0.3 * mean_error(plain)
    changed = [n for n in plain.tensors if not _same(plain[n].data, corrected[n].data)]
    assert changed and all(name.endswith(".bias") for name in changed)


def _same(a: Array | None, b: Array | None) -> bool:
    return a is b or (a is not None and b is not None and bool((a == b).all()))


def test_one_sample_corrects_nothing(tmp_path: Path) -> None:
    """One sample says nothing of a mean."""
    graph, x = rounded_down(tmp_path)
    calibrated = calibrate(graph, x)
    plain = quantize(calibrated)
    alone = correct_biases(plain, calibrated, x[:1], run_op)
    assert all(_same(plain[name].data, alone[name].data) for name in plain.tensors)


def test_correction_is_the_same_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, x = rounded_down(tmp_path)
    calibrated = calibrate(graph, x)
    plain = quantize(calibrated)
    whole = correct_biases(plain, calibrated, x, run_op)
    monkeypatch.setattr("tte.passes.correct_biases.BATCH", 5)
    parts = correct_biases(plain, calibrated, x, run_op)
    for name, tensor in whole.tensors.items():
        if tensor.data is not None:
            assert np.abs(tensor.data.astype(int) - parts[name].data).max() <= 1, name


def test_corrected_biases_leave_room(tmp_path: Path) -> None:
    """Accumulators cannot overflow, however wrong the samples are."""
    graph, x = rounded_down(tmp_path)
    calibrated = calibrate(graph, x)
    plain = quantize(calibrated)
    found = correct_biases(plain, calibrated, 1e9 * x, run_op)
    for op in found.ops:
        if op.kind in ("conv2d_int8", "linear_int32"):
            weight, bias = (found[name].data for name in op.inputs[1:3])
            assert weight is not None and bias is not None
            largest = 255 * np.abs(weight.astype(np.int64)).reshape(len(bias), -1).sum(axis=1)
            assert np.abs(bias).max() <= FIRST_BIAS_LIMIT
            assert (largest + np.abs(bias.astype(np.int64))).max() <= INT32_MAX


def test_what_came_quantised_keeps_its_biases(tmp_path: Path) -> None:
    net = Net((1, 4))
    x = net.quantized("x", 0.02, 0)
    weight = net.dequantized(net.rng.integers(-127, 128, (3, 4)), 0.01)
    y = net.node("Gemm", x, weight, net.normal(3), transB=1)
    graph = fold(load_model(net.save(tmp_path, y)))
    x = np.random.default_rng(11).normal(0, 1, (8, 4)).astype(np.float32)
    calibrated = calibrate(graph, x)
    plain = quantize(calibrated)
    assert correct_biases(plain, calibrated, x, run_op) is plain
