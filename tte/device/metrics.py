# SPDX-License-Identifier: Apache-2.0
"""How good outputs are: accuracy of classes, error of values, whatever the loss is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tte.training import BCE, CROSS_ENTROPY


@dataclass(frozen=True, slots=True)
class Score:
    """`accuracy`: share of samples that are classified right, bce: with all their outputs; None
    for values. `value`: of the metric that fits the loss."""

    metric: str
    value: float
    accuracy: float | None


METRICS = {CROSS_ENTROPY: "accuracy", BCE: "output accuracy"}


class Metric:
    """Collects the outputs of one program, sample by sample."""

    def __init__(self, program: Mapping[str, Any]) -> None:
        output = program["output"]
        self._loss = program["loss"]["name"]
        self._scale = np.asarray(output["scale"], np.float64)
        self._zero_point = int(output["zero_point"])
        self._samples = self._right = 0
        self._sum = 0.0

    @property
    def name(self) -> str:
        return METRICS.get(self._loss, "rmse")

    def real(self, output: NDArray[Any]) -> NDArray[np.float64]:
        """A network's output in real numbers [positions, channels]."""
        values = output.astype(np.float64).reshape(-1, len(self._scale))
        real: NDArray[np.float64] = (values - self._zero_point) * self._scale
        return real

    def add(self, output: NDArray[Any], target: Any) -> None:
        """One sample: raw output, and its label, 0/1 values or real values."""
        real = self.real(output).reshape(-1)
        self._samples += 1
        if self._loss == CROSS_ENTROPY:
            self._right += int(real.argmax()) == int(target)
            return
        wanted = np.asarray(target).reshape(-1)
        if self._loss == BCE:
            same = (real > 0) == (wanted != 0)
            self._right += bool(same.all())
            self._sum += float(same.mean())
        else:
            self._sum += float(np.square(real - wanted).mean())

    def score(self) -> Score:
        """Of all samples so far, of which there is at least one."""
        accuracy, mean = self._right / self._samples, self._sum / self._samples
        if self._loss == CROSS_ENTROPY:
            return Score(self.name, accuracy, accuracy)
        if self._loss == BCE:
            return Score(self.name, mean, accuracy)
        return Score(self.name, math.sqrt(mean), None)
