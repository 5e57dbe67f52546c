# SPDX-License-Identifier: Apache-2.0
"""What training a part is worth, as an additive model: the sum that a search maximises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tte.search.space import RATIOS, Candidate

Table = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Gains:
    """`bias[depth]`: of the biases of the last layers; `weights[layer, ratio]`: of a layer's
    weights on top of them. `unit` says in what: shares of probability, or a proxy."""

    unit: str
    bias: Table
    weights: Table

    def of(self, candidates: Sequence[Candidate]) -> Table:
        ratios = np.array([candidate.ratios for candidate in candidates], np.int64)
        depths = np.array([candidate.depth for candidate in candidates], np.int64)
        weights = self.weights[np.arange(self.weights.shape[0]), ratios].sum(axis=1)
        total: Table = self.bias[depths] + weights
        return total


def smooth(measured: Table) -> Table:
    """[layer, ratio] measured gains -> the nearest c sqrt(ratio) for each layer: four noisy
    numbers become one. The root: half of the channels gain more than half, and the channels that
    train are the most important ones."""
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


def shrunk(measured: Table, proxy: Table) -> Table:
    """[layer, ratio] smoothed gains, drawn to what the proxy leads to expect, by as much as noise
    explains their distance (empirical Bayes)."""
    found, (sizes, expected) = smooth(measured), (smooth(measured)[:, -1], proxy[:, -1])
    slope = max(0.0, float(sizes @ expected) / max(float(expected @ expected), 1e-30))
    spread = float(np.square(sizes - slope * expected).mean()) if len(sizes) else 0.0
    kept = max(0.0, 1.0 - noise(measured) / spread) if spread > 0 else 1.0
    drawn: Table = kept * found + (1.0 - kept) * slope * proxy
    return drawn


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
