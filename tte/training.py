# SPDX-License-Identifier: Apache-2.0
"""What a training run minimises, and how: losses, their targets, optimisers.

A target reaches the device as a class label (a word), as 0/1 bytes, as int8 codes, or, where the
network reproduces its input, not at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tte.data import Dataset, InputTransform
from tte.errors import TteError

CROSS_ENTROPY, BCE, MSE = "cross-entropy", "bce", "mse"
SCHEDULES = ("constant", "linear", "cosine")
MAX_WEIGHT = 1000.0  # of a class


@dataclass(frozen=True, slots=True)
class Target:
    """How a target is written. `kind`: "label", "binary" (0 or 1 an output), "codes" (int8, real =
    scale * q + offset) or "input": the sample itself, whose codes have this scale and offset."""

    kind: str = "label"
    scale: float = 1.0
    offset: float = 0.0

    def encode(self, y: NDArray[Any]) -> NDArray[Any]:
        """Targets [N, ...] as the device takes them: int64 labels, or int8 [N, elements]."""
        if self.kind == "label":
            return y.astype(np.int64)
        flat = y.reshape(len(y), -1)
        if self.kind == "binary":
            return (flat != 0).astype(np.int8)
        codes = np.floor((flat.astype(np.float64) - self.offset) / self.scale + 0.5)
        return codes.clip(-128, 127).astype(np.int8)


@dataclass(frozen=True, slots=True)
class Loss:
    """`smoothing`: label smoothing, 0 <= smoothing < 1. `weights`: of the classes, or for bce of
    each output's positive targets; empty: all 1."""

    name: str = CROSS_ENTROPY
    target: Target = Target()
    smoothing: float = 0.0
    weights: tuple[float, ...] = ()


DEFAULT_LOSS = Loss()


@dataclass(frozen=True, slots=True)
class Optimizer:
    """Stochastic gradient descent. Plain by default: every sample moves the weights at once.

    `batch`: samples whose mean gradient is one step. `momentum`: share of the velocity that stays,
    v = momentum v + g. `weight_decay`: share of a weight that a step of learning rate 1 takes.
    `schedule`: of the learning rate, over a number of samples that is known when training starts.
    """

    momentum: float = 0.0
    batch: int = 1
    weight_decay: float = 0.0
    schedule: str = "constant"

    @property
    def rate_scale(self) -> float:
        """What the learning rate of plain descent is multiplied by, so that weights move as far:
        velocities sum up, batches are fewer than samples. Beyond 8 samples it grows no more, since
        how far a single step may go does not depend on the batch."""
        return (1 - self.momentum) * min(self.batch, 8)

    @property
    def has_velocity(self) -> bool:
        """Whether gradients are gathered before they move a weight."""
        return self.momentum > 0 or self.batch > 1

    @property
    def has_state(self) -> bool:
        """Whether anything but the weights is kept between two steps."""
        return self.has_velocity or self.weight_decay > 0


PLAIN_SGD = Optimizer()

# ---- which loss ---------------------------------------------------------------------------


def choose_loss(dataset: Dataset, outputs: int, ends_in: str, wanted: str = "auto") -> str:
    """The loss that fits the targets, or `wanted` if it does. `outputs`: elements of the network's
    output; `ends_in`: the kind of its last operator."""
    y = dataset.y_train
    labels = dataset.has_labels
    both = [part.reshape(len(part), -1) for part in (y, dataset.y_test)]
    binary = all(part.dtype.kind in "uib" or (part % 1 == 0).all() for part in both) and all(
        ((part == 0) | (part == 1)).all() for part in both
    )
    one_hot = binary and both[0].shape[1] > 1 and all((p.sum(axis=1) == 1).all() for p in both)
    if wanted == "auto":
        if dataset.is_autoencoder:
            wanted = MSE
        elif labels:
            wanted = BCE if outputs == 1 and binary else CROSS_ENTROPY
        elif binary and y.shape != dataset.x_train.shape:
            wanted = CROSS_ENTROPY if one_hot and ends_in != "sigmoid" else BCE
        else:
            wanted = MSE
    if wanted == CROSS_ENTROPY and not (labels or one_hot):
        raise TteError(
            "cross-entropy needs one class a sample",
            why=f"the targets are {y.dtype} of shape {list(y.shape)}",
            hint="give y as [N] of integers, or choose --loss bce or --loss mse",
        )
    if wanted == BCE and not binary:
        raise TteError(
            "bce needs targets of 0 and 1",
            why=f"the targets are {y.dtype} of shape {list(y.shape)} with other values",
            hint="choose another --loss",
        )
    if wanted == MSE and ends_in == "softmax":
        raise TteError(
            "a softmax cannot be trained with mse",
            hint="choose --loss cross-entropy, or export the network without its softmax",
        )
    return wanted


def fit_targets(dataset: Dataset, loss: str, output_shape: tuple[int, ...]) -> Dataset:
    """The data with targets as `loss` takes them: labels [N] for cross-entropy, else
    [N, *output_shape]; an error where they do not fit the network's output."""
    outputs = math.prod(output_shape)
    y_train, y_test = dataset.y_train, dataset.y_test
    if loss == CROSS_ENTROPY:
        if not dataset.has_labels:
            y_train, y_test = (y.reshape(len(y), -1).argmax(axis=1) for y in (y_train, y_test))
        largest = int(max(y_train.max(), y_test.max()))
        if largest >= outputs:
            count = max(dataset.classes, largest + 1)
            raise TteError(
                f"the data has the label {largest}, but the model has only {outputs} outputs",
                why=f"labels must be 0..{outputs - 1}",
                hint=f"--classes {count} replaces the classifier",
            )
        return replace(dataset, y_train=y_train, y_test=y_test)
    found = y_train.shape[1:]
    if math.prod(found) != outputs or (
        len(found) == len(output_shape) == 3 and _big(found) != _big(output_shape)
    ):
        raise TteError(
            f"the targets are {_text(found)}, but the model's output is {_text(output_shape)}",
            hint="labels of classes are integers of shape [N]: y.astype(int).ravel()"
            if found == (1,)
            else "targets are [N, outputs], or maps [N, H, W, C]",
        )
    if dataset.is_autoencoder and _big(found) != _big(output_shape) and len(_big(found)) > 1:
        raise TteError(
            f"the output, {_text(output_shape)}, has not the order of the input, {_text(found)}",
            why="a sample of several rows and channels can be its own target only as a map",
            hint="give y_train and y_test in the order of the model's output",
        )
    shape = (-1, *output_shape)
    if dataset.is_autoencoder:
        return dataset
    return replace(dataset, y_train=y_train.reshape(shape), y_test=y_test.reshape(shape))


def make_loss(
    name: str,
    dataset: Dataset,
    transform: InputTransform,
    *,
    smoothing: float = 0.0,
    weights: str | tuple[float, ...] = (),
    outputs: int = 1,
) -> Loss:
    """The loss with its targets' codes, from fitted data. `transform`: of the input, which is also
    the target of an autoencoder. `weights` may be "balanced". `outputs`: classes or channels."""
    if name == MSE:
        if smoothing or weights:
            raise TteError(
                "mse has no classes to smooth or to weigh",
                hint="leave out --label-smoothing and --class-weights",
            )
        return Loss(name, _value_target(dataset, transform))
    if weights == "balanced":
        weights = _balanced(name, dataset.y_train, outputs)
    assert not isinstance(weights, str)
    if weights and len(weights) != outputs:
        raise TteError(
            f"{len(weights)} class weights for {outputs} outputs",
            hint="give one weight an output, or balanced",
        )
    if any(not (w == 0 or 1 / MAX_WEIGHT <= w <= MAX_WEIGHT) for w in weights):
        raise TteError(
            "a class weight is out of range",
            why=f"weights are 0 or {1 / MAX_WEIGHT:g} to {MAX_WEIGHT:g}",
        )
    kind = "label" if name == CROSS_ENTROPY else "binary"
    return Loss(name, Target(kind), smoothing, tuple(weights))


def target_values(dataset: Dataset, part: str, transform: InputTransform) -> NDArray[Any]:
    """Targets as real numbers (or labels): uint8 images as targets enter like samples."""
    x, y = (getattr(dataset, f"{name}_{part}") for name in ("x", "y"))
    if y.dtype == np.uint8 and y.shape[1:] == x.shape[1:] and x.dtype == np.uint8:
        return transform.to_float(y)
    values: NDArray[Any] = y
    return values


def _value_target(dataset: Dataset, transform: InputTransform) -> Target:
    if dataset.is_autoencoder:
        return Target("input", transform.scale, -transform.scale * transform.zero_point)
    y = target_values(dataset, "train", transform)
    low, high = float(y.min()), float(y.max())
    span = high - low
    if span <= max(abs(low), abs(high)) * 2.0**-14:
        raise TteError(
            "the targets are all the same" if span == 0 else "the targets hardly differ",
            why=f"they are {low:g} to {high:g}",
            hint="a regression needs targets that vary; remove their common offset",
        )
    return Target("codes", span / 254, (low + high) / 2)


def _balanced(name: str, y: NDArray[Any], outputs: int) -> tuple[float, ...]:
    """As frequent classes count less: N / (classes * count); for bce negatives / positives."""
    if name == CROSS_ENTROPY:
        counts = np.bincount(y, minlength=outputs)
        weights = len(y) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    else:
        positive = (y.reshape(-1, outputs) != 0).sum(axis=0)
        weights = (y.size / outputs - positive) / np.maximum(positive, 1)
    return tuple(np.clip(weights, 1 / MAX_WEIGHT, MAX_WEIGHT).tolist())


def _big(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _text(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
