# SPDX-License-Identifier: Apache-2.0
"""Every loss end to end: the generated C equals the oracle with labels, several outputs, maps and
samples that are their own targets, whatever the optimiser; and what the data says of the loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.graphs import Network, small_network
from tests.train.test_steps import firmware_run, oracle, program_of
from tte.codegen.emit import emit_project
from tte.data import Dataset, InputTransform
from tte.errors import TteError
from tte.ir import Graph
from tte.ops.linear import LinearAttrs
from tte.ops.window import WindowAttrs
from tte.training import (
    BCE,
    CROSS_ENTROPY,
    MSE,
    PLAIN_SGD,
    Loss,
    Optimizer,
    Target,
    choose_loss,
    fit_targets,
    make_loss,
    target_values,
)

WEIGHTED = Loss(CROSS_ENTROPY, Target(), 0.1, (1.0, 0.0, 3.5, 0.25, 1.0))
BINARY = Loss(BCE, Target("binary"), 0.05, (2.0, 1.0, 0.5, 4.0, 1.0))
VALUES = Loss(MSE, Target("codes", 0.02, -0.3))
OWN = Loss(MSE, Target("input", 0.03, 0.1))
ALL = Optimizer(0.8, 3, 0.1)


def dense_autoencoder() -> Graph:
    network = Network((1, 12))
    network.add("linear", "encode", LinearAttrs((0.0, np.inf)), (5, 12), (5,))
    network.add("linear", "decode", LinearAttrs(), (12, 5), (12,))
    return network.graph()


def map_to_map(channels: int) -> Graph:
    network = Network((1, 8, 8, 2))
    network.conv("a", 8, WindowAttrs((3, 3), pads=(1, 1, 1, 1)))
    network.conv("b", channels, WindowAttrs((3, 3), pads=(1, 1, 1, 1)), (-np.inf, np.inf))
    return network.graph()


RUNS: dict[str, tuple[Graph, Loss, Optimizer, str]] = {
    "smoothed labels, class weights": (small_network(), WEIGHTED, PLAIN_SGD, "host"),
    "the same with an optimiser": (small_network(), WEIGHTED, ALL, "unicorn"),
    "several labels": (small_network(), BINARY, PLAIN_SGD, "host"),
    "several labels, optimiser": (small_network(), BINARY, ALL, "host"),
    "one output": (small_network(classes=1), replace(BINARY, weights=()), PLAIN_SGD, "host"),
    "a map of labels": (map_to_map(1), replace(BINARY, weights=(3.0,)), ALL, "unicorn"),
    "several values": (small_network(), VALUES, PLAIN_SGD, "host"),
    "a map of values": (map_to_map(3), VALUES, ALL, "host"),
    "dense autoencoder": (dense_autoencoder(), OWN, ALL, "host"),
    "autoencoder of maps": (map_to_map(2), OWN, PLAIN_SGD, "unicorn"),
}


@pytest.mark.parametrize("name", RUNS)
def test_steps_equal_the_oracle(name: str, tmp_path: Path) -> None:
    network, loss, optimizer, emulator = RUNS[name]
    program, codes, targets = program_of(network, "full", "mps2-an386", optimizer, loss)
    emit_project(program, tmp_path)
    expected = oracle(program, codes, targets)
    assert firmware_run(tmp_path, emulator, "gcc", codes, targets) == expected
    assert len(set(expected.losses)) > len(expected.losses) // 2


# ---- targets ------------------------------------------------------------------------------


def dataset(y: Any, x: Any = None) -> Dataset:
    """Half of it is the test part."""
    y = np.asarray(y)
    x = np.zeros((len(y), 2, 2, 1), np.float32) if x is None else x
    half = len(y) // 2
    names = tuple(map(str, range(int(y.max()) + 1))) if y.ndim == 1 else ()
    return Dataset(x[:half], y[:half], x[half:], y[half:], names)


LABELS = dataset(np.array([0, 2, 1, 1, 0, 2]))
MANY = dataset(np.array([[0, 1, 1], [1, 0, 0]] * 3, np.float32))
ONE_HOT = dataset(np.array([[0, 0, 1], [1, 0, 0]] * 3, np.float32))
REAL = dataset(np.array([[0.5, -1.0, 2.0], [3.0, 0.0, 1.0]] * 3, np.float32))


@pytest.mark.parametrize(
    ("data", "outputs", "ends_in", "loss"),
    [
        (LABELS, 3, "linear", CROSS_ENTROPY),
        (dataset(np.array([0, 1] * 3)), 1, "sigmoid", BCE),
        (MANY, 3, "linear", BCE),
        (ONE_HOT, 3, "softmax", CROSS_ENTROPY),
        (ONE_HOT, 3, "sigmoid", BCE),
        (REAL, 3, "linear", MSE),
    ],
)
def test_the_loss_follows_from_the_targets(
    data: Dataset, outputs: int, ends_in: str, loss: str
) -> None:
    assert choose_loss(data, outputs, ends_in) == loss


@pytest.mark.parametrize(
    ("data", "wanted", "ends_in", "what"),
    [
        (REAL, CROSS_ENTROPY, "linear", "one class a sample"),
        (REAL, BCE, "linear", "targets of 0 and 1"),
        (REAL, MSE, "softmax", "softmax cannot be trained"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused(
    data: Dataset, wanted: str, ends_in: str, what: str
) -> None:
    with pytest.raises(TteError) as caught:
        choose_loss(data, 3, ends_in, wanted)
    assert what in caught.value.what


def test_targets_take_the_shape_of_the_output() -> None:
    assert fit_targets(ONE_HOT, CROSS_ENTROPY, (3,)).y_train.tolist() == [2, 0, 2]
    assert fit_targets(REAL, MSE, (1, 1, 3)).y_test.shape == (3, 1, 1, 3)
    for data, loss, shape in ((REAL, MSE, (4,)), (LABELS, CROSS_ENTROPY, (2,))):
        with pytest.raises(TteError):
            fit_targets(data, loss, shape)


def test_labels_that_are_no_integers_are_explained() -> None:
    labels = dataset(np.array([[0], [2], [1], [1], [0], [2]], np.float32))
    with pytest.raises(TteError) as caught:
        fit_targets(labels, MSE, (3,))
    assert "y.astype(int)" in caught.value.hint


def test_values_become_codes_and_back() -> None:
    transform = InputTransform(0.1, 0, (0.0,), (1.0,))
    loss = make_loss(MSE, REAL, transform)
    codes = loss.target.encode(target_values(REAL, "train", transform))
    assert (codes.dtype, codes.min(), codes.max()) == (np.int8, -127, 127)
    back = codes * loss.target.scale + loss.target.offset
    np.testing.assert_allclose(back, REAL.y_train, atol=loss.target.scale / 2 + 1e-9)


def test_balanced_weights_make_all_classes_count_alike() -> None:
    data = dataset(np.array([0, 0, 0, 1, 1, 2] * 2))
    transform = InputTransform(0.1, 0, (0.0,), (1.0,))
    weights = make_loss(CROSS_ENTROPY, data, transform, weights="balanced", outputs=3).weights
    np.testing.assert_allclose(np.asarray(weights) * [3, 2, 1], 2.0)
    many = make_loss(BCE, MANY, transform, weights="balanced", outputs=3)
    np.testing.assert_allclose(many.weights, [2.0, 0.5, 0.5])
    for given, what in (((1.0,), "1 class weights"), ((1.0, -1.0, 1.0), "out of range")):
        with pytest.raises(TteError) as caught:
            make_loss(CROSS_ENTROPY, data, transform, weights=given, outputs=3)
        assert what in caught.value.what
