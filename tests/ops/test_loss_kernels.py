# SPDX-License-Identifier: Apache-2.0
"""The losses: kernel == oracle bit for bit, extreme outputs included; the integers stand for what
they should; and the real gradients are derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.c_runner import run_c
from tests.kernel_library import (
    SOURCES,
    asan_is_loaded,
    asan_runtime,
    kernel_library,
    run_with_asan,
)
from tte.ir import Graph, Op, Role, Tensor, TensorType
from tte.ops.arith import to_factor
from tte.ops.loss import LossAttrs, SoftmaxCrossEntropyAttrs, step_tensor
from tte.ops.sigmoid_loss import SigmoidCrossEntropyAttrs
from tte.ops.squared_loss import MeanSquaredErrorAttrs
from tte.reference import run_op

Array = NDArray[Any]
KERNELS = ("tte_sigmoid_cross_entropy_int8", "tte_mean_squared_error_int8")
RATE = 0.37

cases = settings(max_examples=150, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Case:
    """A loss op on one sample."""

    kind: str
    attrs: LossAttrs
    output: Array
    target: Array

    def graph(self) -> tuple[Graph, Op]:
        def tensor(name: str, data: Array, role: Role) -> Tensor:
            return Tensor(name, TensorType(data.shape, str(data.dtype)), role)

        one, two = np.zeros(1, np.int32), np.zeros(2, np.int32)
        tensors = [
            tensor("output", self.output, Role.ACTIVATION),
            tensor("target", self.target, Role.INPUT),
            tensor("learning_rate", two, Role.SCALAR),
            tensor("grad", self.output.astype(np.int8), Role.GRADIENT),
            tensor("loss", one, Role.SCALAR),
            tensor("step", two, Role.SCALAR),
        ]
        inputs, outputs = ("output", "target", "learning_rate"), ("grad", "loss", "step")
        op = Op(self.kind, "loss", inputs, outputs, self.attrs)
        return Graph("loss", {t.name: t for t in tensors}, (op,), inputs, outputs), op

    def check(self, rate: float = RATE) -> tuple[Array, int, float]:
        """Kernel == oracle, in place too; gradient, loss, step."""
        graph, op = self.graph()
        values = {
            "output": self.output,
            "target": self.target,
            "learning_rate": step_tensor(to_factor(rate)),
        }
        grad, loss, step = run_op(graph, op, values)
        library = kernel_library(SOURCES)
        ways = [None] if self.kind.startswith("softmax") else [None, 0]
        for way in ways:
            found = run_c(library, graph, op, values, way)
            found[0] = found[0].reshape(-1).view(np.int8)[: grad.size]
            for wanted, value in zip((grad, loss, step), found, strict=True):
                np.testing.assert_array_equal(value.reshape(-1), wanted.reshape(-1))
        return grad, int(loss[0]), float(step[0]) * 2.0 ** -float(step[1])

    def check_meaning(self, real_loss: float) -> None:
        """Gradient within half a step and what fixed-point numbers are off, scale and loss."""
        grad, loss, step = self.check()
        wanted, peak = self.attrs.real_gradient(self.output, self.target[None])
        assert loss * self.attrs.loss_scale == pytest.approx(
            real_loss, rel=2e-4, abs=max(2e-4, 2 * self.attrs.loss_scale)
        )
        if peak[0] > 1e-5 and step:
            assert step == pytest.approx(RATE * peak[0], rel=0.01)
            codes = wanted[0] / (peak[0] * max(self.attrs.scale)) * 127
            assert np.abs(grad.reshape(codes.shape) - codes).max() < 1.2


def softmax_case(classes: int, spread: int, seed: int, smoothing: float, weighted: bool) -> Case:
    rng = np.random.default_rng(seed)
    scale = tuple(rng.uniform(1e-4, 3e-3, classes).tolist())
    weights = tuple(rng.choice([0.0, 0.001, 0.7, 3.0, 1000.0], classes).tolist())
    attrs = SoftmaxCrossEntropyAttrs(scale, smoothing, weights if weighted else ())
    output = rng.integers(-spread, spread, (1, classes), endpoint=True).astype(np.int32)
    label = rng.integers(0, classes, 1).astype(np.int32)
    return Case("softmax_cross_entropy_int8", attrs, output, label)


spreads = st.sampled_from([1, 2**8, 2**12, 2**20, 2**31 - 1])
shapes = st.sampled_from([(1, 1), (1, 3), (1, 40), (1, 3, 2, 5), (1, 4, 4, 1)])


@cases
@given(st.integers(2, 300), spreads, seeds, st.sampled_from([0.0, 0.05, 0.9]), st.booleans())
def test_softmax_cross_entropy(
    classes: int, spread: int, seed: int, smoothing: float, weighted: bool
) -> None:
    softmax_case(classes, spread, seed, smoothing, weighted).check()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("spread", [1, 2**10, 2**13])
def test_smoothed_cross_entropy_means_what_it_says(smoothing: float, spread: int) -> None:
    for seed in range(8):
        case = softmax_case(11, spread, seed, smoothing, False)
        z = case.output[0] * np.asarray(case.attrs.scale)
        log_p = z - z.max() - np.log(np.exp(z - z.max()).sum())
        label = case.target[0]
        case.check_meaning(-(1 - smoothing) * log_p[label] - smoothing * log_p.mean())


def test_class_weights_scale_loss_and_step() -> None:
    plain = softmax_case(4, 2**10, 3, 0.1, False)
    scale = plain.attrs.scale
    label = int(plain.target[0])
    grad, loss, step = plain.check()
    for weight in (0.0, 0.25, 7.0):
        weights = tuple(weight if i == label else 1.0 for i in range(4))
        attrs = SoftmaxCrossEntropyAttrs(scale, 0.1, weights)
        found = Case(plain.kind, attrs, plain.output, plain.target).check()
        assert np.array_equal(found[0], grad)
        assert found[1] == pytest.approx(weight * loss, abs=1)
        assert found[2] == pytest.approx(weight * step, rel=1e-6)


def sigmoid_case(
    shape: tuple[int, ...], spread: int, seed: int, smoothing: float, weighted: bool, dtype: str
) -> Case:
    rng = np.random.default_rng(seed)
    channels = shape[-1]
    scale = tuple(rng.uniform(1e-4, 3e-3, channels).tolist())
    zero_point = 0
    if dtype == "int8":
        spread, zero_point = 127, int(rng.integers(-128, 128))
        scale = (float(rng.uniform(1e-3, 2)),) * channels
    weights = tuple(rng.choice([0.0, 0.001, 0.7, 3.0, 1000.0], channels).tolist())
    attrs = SigmoidCrossEntropyAttrs(scale, zero_point, smoothing, weights if weighted else ())
    output = rng.integers(-spread, spread, shape, endpoint=True).astype(dtype)
    target = (rng.integers(0, 2, output.size) * rng.choice([1, -128, 127])).astype(np.int8)
    return Case("sigmoid_cross_entropy_int8", attrs, output, target)


dtypes = st.sampled_from(["int8", "int32"])


@cases
@given(shapes, spreads, seeds, st.sampled_from([0.0, 0.05, 0.9]), st.booleans(), dtypes)
def test_sigmoid_cross_entropy(
    shape: tuple[int, ...], spread: int, seed: int, smoothing: float, weighted: bool, dtype: str
) -> None:
    sigmoid_case(shape, spread, seed, smoothing, weighted, dtype).check()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", ["int8", "int32"])
def test_sigmoid_cross_entropy_means_what_it_says(
    smoothing: float, weighted: bool, dtype: str
) -> None:
    for seed in range(8):
        case = sigmoid_case((1, 2, 3, 4), 2**12, seed, smoothing, weighted, dtype)
        attrs = case.attrs
        assert isinstance(attrs, SigmoidCrossEntropyAttrs)
        z = ((case.output - float(attrs.zero_point)) * np.asarray(attrs.scale)).reshape(-1)
        on = case.target != 0
        t = np.where(on, 1 - smoothing / 2, smoothing / 2)
        weight = np.where(on, np.tile(attrs.weights, 6), 1.0) if weighted else 1.0
        case.check_meaning(float((weight * (np.logaddexp(0, z) - t * z)).mean()))


def squared_case(shape: tuple[int, ...], spread: int, seed: int, dtype: str) -> Case:
    rng = np.random.default_rng(seed)
    channels = shape[-1]
    scale, zero_point = tuple(rng.uniform(1e-4, 3e-3, channels).tolist()), 0
    if dtype == "int8":
        spread, zero_point = 127, int(rng.integers(-128, 128))
        scale = (float(rng.uniform(1e-3, 2)),) * channels
    unit = float(rng.choice([1e-3, 0.02, 5.0]))
    attrs = MeanSquaredErrorAttrs(scale, zero_point, unit, float(rng.normal(0, 100)) * unit)
    output = rng.integers(-spread, spread, shape, endpoint=True).astype(dtype)
    target = rng.integers(-128, 128, output.size).astype(np.int8)
    return Case("mean_squared_error_int8", attrs, output, target)


@cases
@given(shapes, spreads, seeds, dtypes)
def test_mean_squared_error(shape: tuple[int, ...], spread: int, seed: int, dtype: str) -> None:
    squared_case(shape, spread, seed, dtype).check()


@pytest.mark.parametrize("dtype", ["int8", "int32"])
def test_mean_squared_error_means_what_it_says(dtype: str) -> None:
    for seed in range(12):
        case = squared_case((1, 2, 3, 4), 2**10, seed, dtype)
        attrs = case.attrs
        assert isinstance(attrs, MeanSquaredErrorAttrs)
        y = (case.output - float(attrs.zero_point)) * np.asarray(attrs.scale)
        t = case.target.reshape(y.shape) * attrs.target_scale + attrs.target_offset
        if np.abs(y - t).max() < 2**11 * attrs.target_scale:
            case.check_meaning(float(np.square(y - t).mean()))


@pytest.mark.parametrize("kind", ["sigmoid", "squared"])
def test_a_target_that_is_met_moves_nothing(kind: str) -> None:
    output = np.full((1, 3), 100000, np.int32)
    if kind == "sigmoid":
        attrs: LossAttrs = SigmoidCrossEntropyAttrs((1.0,) * 3)
        case = Case("sigmoid_cross_entropy_int8", attrs, output, np.ones(3, np.int8))
    else:
        attrs = MeanSquaredErrorAttrs((1e-3,) * 3, 0, 1.0, 0.0)
        case = Case("mean_squared_error_int8", attrs, output, np.full(3, 100, np.int8))
    grad, loss, step = case.check()
    assert (grad == 0).all() and loss == 0 and step == 0.0


def test_a_rate_of_zero_is_no_step() -> None:
    for case in (
        softmax_case(5, 2**12, 0, 0.1, True),
        sigmoid_case((1, 5), 2**12, 0, 0.0, False, "int32"),
        squared_case((1, 5), 2**12, 0, "int32"),
    ):
        grad, _, step = case.check(0.0)
        assert step == 0.0 and np.abs(grad).max() > 60


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_real_gradients_are_derivatives(smoothing: float) -> None:
    """Central differences of the losses as they are written down."""
    rng = np.random.default_rng(5)
    scale = rng.uniform(0.5, 2, 6)
    z, binary = rng.normal(0, 1, (3, 6)), rng.integers(0, 2, (3, 6))
    label, weights = rng.integers(0, 6, 3), rng.uniform(0.1, 3, 6)

    def softmax(y: Array) -> Array:
        log_p = y - np.log(np.exp(y).sum(axis=1, keepdims=True))
        return -(1 - smoothing) * log_p[np.arange(3), label] - smoothing * log_p.mean(axis=1)

    def sigmoid(y: Array) -> Array:
        t = np.where(binary, 1 - smoothing / 2, smoothing / 2)
        return (np.where(binary, weights, 1) * (np.logaddexp(0, y) - t * y)).mean(axis=1)

    def squared(y: Array) -> Array:
        return np.square(y - (0.3 * binary + 0.1)).mean(axis=1)

    tied = tuple(scale.tolist())
    for loss, attrs, target in (
        (softmax, SoftmaxCrossEntropyAttrs(tied, smoothing), label),
        (sigmoid, SigmoidCrossEntropyAttrs(tied, 0, smoothing, tuple(weights.tolist())), binary),
        (squared, MeanSquaredErrorAttrs(tied, 0, 0.3, 0.1), binary),
    ):
        found, peak = attrs.real_gradient(z, target)
        slopes = np.zeros_like(z)
        for i in range(6):
            up, down = z.copy(), z.copy()
            up[:, i], down[:, i] = up[:, i] + 1e-5, down[:, i] - 1e-5
            slopes[:, i] = (loss(up * scale) - loss(down * scale)) / 2e-5
        np.testing.assert_allclose(found, slopes, rtol=1e-4, atol=1e-8)
        np.testing.assert_allclose(peak, np.abs(found / scale).max(axis=1))


@pytest.mark.skipif(asan_is_loaded(), reason="this is the run under AddressSanitizer")
def test_again_with_address_sanitizer() -> None:
    runtime = asan_runtime()
    if runtime is None:
        pytest.skip("the host compiler has no libasan")
    result = run_with_asan(Path(__file__), runtime)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
