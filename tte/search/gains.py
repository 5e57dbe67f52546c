# SPDX-License-Identifier: Apache-2.0
"""What training a part is worth, as one number: the sum of steps that a search makes the most of.

The expected decrease of the loss in a step of gradient descent is the learning rate times the
squared norm of the gradient, and the squared norms of parts add up. Learning grows with the root of
that sum, the noise of single samples with the sum itself, and beyond some sum training gets worse:
which layers it comes from matters less (docs/search.md, "Measured").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tte.program import DEFAULT_LEARNING_RATE
from tte.search.space import RATIOS, Candidate

Table = NDArray[np.float64]
BEST_STEP = 1 / DEFAULT_LEARNING_RATE  # the sum of squared norms that trains best


@dataclass(frozen=True, slots=True)
class Gains:
    """Steps, which add up: `bias[depth]` of the biases of the last layers, `weights[layer, ratio]`
    of a layer's weights. The gain of their sum is `height` where it is `best`, and less on either
    side. `unit` says of what: shares of probability, or a proxy."""

    unit: str
    bias: Table
    weights: Table
    best: float = BEST_STEP
    height: float = 1.0

    def of(self, candidates: Sequence[Candidate]) -> Table:
        return self.value(self.steps(candidates))

    def steps(self, candidates: Sequence[Candidate]) -> Table:
        ratios = np.array([candidate.ratios for candidate in candidates], np.int64)
        depths = np.array([candidate.depth for candidate in candidates], np.int64)
        weights = self.weights[np.arange(self.weights.shape[0]), ratios].sum(axis=1)
        total: Table = self.bias[depths] + weights
        return total

    def value(self, steps: Table) -> Table:
        """The gain of a sum of steps: as its root at first, most at `best`."""
        share = np.asarray(steps, np.float64) / self.best
        found: Table = self.height * (2 * np.sqrt(share) - share)
        return found


def smooth(measured: Table) -> Table:
    """[layer, ratio] measured gains -> the nearest c sqrt(ratio) for each layer: four noisy
    numbers become one."""
    shape = np.sqrt(RATIOS)
    size = measured @ shape / (shape @ shape)
    found: Table = size[:, None] * shape
    return found


def noise(measured: Table) -> float:
    """Variance of smooth()'s size of a layer, from how far the measured gains are from it."""
    shape = np.sqrt(RATIOS)
    rest = measured - smooth(measured)
    spread = (rest**2).sum() / (len(rest) * (np.count_nonzero(shape) - 1))
    return float(spread / (shape @ shape))


def shrunk(measured: Table, proxy: Table) -> tuple[Table, float]:
    """[layer, ratio] smoothed gains, drawn to `slope` times the proxy's, by as much as noise
    explains their distance (empirical Bayes); and that slope, at least 0."""
    found = smooth(measured)
    sizes, expected = found[:, -1], proxy[:, -1]
    scale = slope(sizes, expected)
    spread = float(np.square(sizes - scale * expected).mean()) if len(sizes) else 0.0
    kept = max(0.0, 1.0 - noise(measured) / spread) if spread > 0 else 1.0
    return kept * found + (1.0 - kept) * scale * proxy, scale


def slope(measured: Table, expected: Table) -> float:
    """What `expected` is best multiplied by, at least 0."""
    return max(0.0, float(measured @ expected) / max(float(expected @ expected), 1e-30))


def rank_correlation(a: Table, b: Table) -> float:
    """Spearman's: of the ranks, ties sharing theirs; 0 where one side is all the same."""
    ranks = [_ranks(values) for values in (a, b)]
    centred = [rank - rank.mean() for rank in ranks]
    size = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float(centred[0] @ centred[1]) / size if size else 0.0


def _ranks(values: Table) -> Table:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Table = ((ends - counts + ends - 1) / 2)[inverse]
    return ranks
