# SPDX-License-Identifier: Apache-2.0
"""The best candidate of the model, proven: how far is the evolution from it?

For each deepest trained layer the model is a knapsack with a row for every op whose live bytes
could be the peak. What it makes the most of is a concave function of a sum, which lies below its
tangents: the gain is a variable with a row for each. HiGHS solves it; the tangent where its answer
lies is added, until that changes nothing (Kelley's cutting planes).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tte.search.evolve import Limits
from tte.search.gains import Gains
from tte.search.space import RATIOS, Candidate, Space

SECONDS = 10.0  # for one knapsack
GAP = 5e-7  # of a gain: less is nothing
TANGENTS = (0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.3, 2.0)  # shares of the best sum: the first


def is_available() -> bool:
    """Whether SciPy is installed."""
    return importlib.util.find_spec("scipy") is not None


def solve(space: Space, gains: Gains, limits: Limits, lower: float) -> Candidate | None:
    """The candidate of the largest gain that fits by the estimate, if any gains more than
    `lower`."""
    best: Candidate | None = None
    for reach in range(len(space.layers), -1, -1):
        depth = len(space.layers) - reach
        most = gains.bias[: depth + 1].max() + gains.weights[reach:].max(axis=1).sum()
        if float(gains.value(np.minimum(most, gains.best))) <= lower + GAP * gains.height:
            continue
        found = _solve(space, gains, limits, reach, lower)
        if found is not None and float(gains.of([found])[0]) > lower:
            best, lower = found, float(gains.of([found])[0])
    return best


def _solve(
    space: Space, gains: Gains, limits: Limits, reach: int, lower: float
) -> Candidate | None:
    """Over binary variables: the depth (one of), then for each layer a ratio (at most one of);
    and the gain, in units of the height."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    base = space.base(reach)
    layers, depths = np.arange(reach, len(space.layers)), len(space.layers) - reach + 1
    shape = (len(layers), len(RATIOS) - 1)
    count = depths + shape[0] * shape[1] + 1

    def row(
        of_depth: NDArray[np.float64], of_weights: NDArray[np.float64], of_gain: float = 0.0
    ) -> NDArray[np.float64]:
        return np.concatenate([of_depth, of_weights.reshape(-1), [of_gain]])

    trained = row(space.bias_bytes[:depths], space.weight_bytes[reach:, 1:])
    fixed = space.head_bytes + space.board.stack_reserve_bytes
    nothing = np.zeros(depths)
    rows = [
        (trained + row(nothing, base.kept[:, 1:, op]), limits.sram_bytes - fixed - base.live[op])
        for op in range(len(base.live))
    ]
    if limits.instructions is not None:
        spent = row(space.bias_cost[:depths], space.weight_cost[reach:, 1:])
        rows.append((spent, limits.instructions - base.instructions))
    if any(room < 0 for _, room in rows):
        return None
    one_depth = row(np.ones(depths), np.zeros(shape))
    one_ratio = np.zeros((len(layers), count))
    for i in range(len(layers)):
        one_ratio[i, depths + i * shape[1] : depths + (i + 1) * shape[1]] = 1
    constraints = [LinearConstraint(one_depth[None, :], 1, 1)]
    if len(layers):
        constraints.append(LinearConstraint(one_ratio, -np.inf, 1))
    least = np.zeros(count)
    least[-1] = min(1.0, max(0.0, lower / gains.height))

    def tangent(share: float) -> tuple[NDArray[np.float64], float]:
        """2 sqrt(s) - s <= sqrt(share) + s (1 / sqrt(share) - 1)"""
        rise = (1 / np.sqrt(share) - 1) / gains.best
        steps = (-rise * gains.bias[:depths], -rise * gains.weights[reach:, 1:])
        return row(*steps, 1.0), float(np.sqrt(share))

    shares = list(TANGENTS)
    while True:
        all_rows = [*rows, *map(tangent, shares)]
        limit = LinearConstraint(
            np.array([r for r, _ in all_rows]), -np.inf, np.array([b for _, b in all_rows])
        )
        with _quiet():
            result = milp(
                -row(nothing, np.zeros(shape), 1.0),
                integrality=np.append(np.ones(count - 1), 0),
                bounds=Bounds(least, 1),
                constraints=[*constraints, limit],
                options={"time_limit": SECONDS, "mip_rel_gap": GAP},
            )
        if result.x is None:
            return None
        found = _candidate(space, result.x[:-1] > 0.5, reach)
        share = float(gains.steps([found])[0]) / gains.best
        gain = float(gains.of([found])[0]) / gains.height
        if share == 0.0 or share in shares or result.x[-1] - gain <= GAP:
            return found
        shares.append(share)


def _candidate(space: Space, chosen: NDArray[np.bool_], reach: int) -> Candidate:
    """What the binary variables say."""
    depths = len(space.layers) - reach + 1
    ratios = [0] * len(space.layers)
    for i, picks in enumerate(chosen[depths:].reshape(-1, len(RATIOS) - 1)):
        ratios[reach + i] = int(np.flatnonzero(picks)[0]) + 1 if picks.any() else 0
    return Candidate(int(np.flatnonzero(chosen[:depths])[0]), tuple(ratios))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """HiGHS writes remarks to this process's standard output, whatever it is told."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
