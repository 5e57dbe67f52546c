# SPDX-License-Identifier: Apache-2.0
"""Evolutionary search for the candidate of the largest gain within the limits.

Tournaments, uniform crossover, and three mutations: another depth, another ratio, two layers
exchange theirs. Feasible candidates beat infeasible ones; among those the smaller excess wins.
The same seed finds the same candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tte.search.gains import Gains
from tte.search.space import RATIOS, Candidate, Space

POPULATION = 96
GENERATIONS = 120
ELITE = 8


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes of SRAM, and instructions of a step or None."""

    sram_bytes: int
    instructions: int | None = None

    def excess(self, costs: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far [N, 2] costs exceed the limits, as a share; 0 where they do not."""
        over = np.maximum(0.0, costs[:, 0] / self.sram_bytes - 1)
        if self.instructions is not None:
            over = over + np.maximum(0.0, costs[:, 1] / self.instructions - 1)
        return over

    def admit(self, sram_bytes: int, instructions: int) -> bool:
        return not self.excess(np.array([[sram_bytes, instructions]], float)).any()


def evolve(
    space: Space,
    gains: Gains,
    limits: Limits,
    seed: int,
    generations: int = GENERATIONS,
    tell: Callable[[], None] = lambda: None,
) -> list[Candidate]:
    """Candidates that were tried and that fit by the estimate, the best first."""
    rng = np.random.default_rng(seed)
    tried: dict[Candidate, tuple[float, float]] = {}

    def judge(candidates: Sequence[Candidate]) -> None:
        new = list(dict.fromkeys(c for c in candidates if c not in tried))
        if new:
            excess = limits.excess(space.estimate(new))
            tried.update(zip(new, zip(excess, -gains.of(new), strict=True), strict=True))

    population = _start(space, gains, limits, rng)
    judge(population)
    for _ in range(generations):
        ranked = sorted(population, key=lambda c: tried[c])
        children = []
        for _ in range(POPULATION - ELITE):
            mother, father = (ranked[min(rng.integers(0, len(ranked), 3))] for _ in range(2))
            children.append(mutated(crossed(mother, father, rng), rng))
        population = [*ranked[:ELITE], *children]
        judge(population)
        tell()
    fitting = [c for c, (excess, _) in tried.items() if excess == 0]
    return sorted(fitting, key=lambda c: (tried[c], c.depth, c.ratios))


def _start(space: Space, gains: Gains, limits: Limits, rng: np.random.Generator) -> list[Candidate]:
    """Plans of biases alone, each filled up greedily, and random neighbours of them."""
    layers = len(space.layers)
    depths = sorted({round(layers * share) for share in np.linspace(0, 1, 9)})
    found = [greedy(space, gains, limits, depth) for depth in depths]
    found += [Candidate(depth, (0,) * layers) for depth in depths]
    while len(found) < POPULATION:
        found.append(mutated(found[int(rng.integers(0, len(depths)))], rng))
    return found


def greedy(space: Space, gains: Gains, limits: Limits, depth: int) -> Candidate:
    """Biases of `depth` layers, then whatever gains most per byte of what fits."""
    layers = len(space.layers)
    best = Candidate(depth, (0,) * layers)
    while True:
        steps = [
            Candidate(depth, (*best.ratios[:i], r, *best.ratios[i + 1 :]))
            for i in range(layers - depth, layers)
            for r in range(best.ratios[i] + 1, len(RATIOS))
        ]
        if not steps:
            return best
        costs, now = space.estimate([best, *steps]), gains.of([best, *steps])
        more = now[1:] - now[0]
        price = np.maximum(1.0, costs[1:, 0] - costs[0, 0])
        worth = np.where((limits.excess(costs[1:]) == 0) & (more > 0), more / price, 0.0)
        if worth.max() <= 0:
            return best
        best = steps[int(worth.argmax())]


def crossed(mother: Candidate, father: Candidate, rng: np.random.Generator) -> Candidate:
    """Each layer's ratio, and the depth, from one of two."""
    picks = rng.random(len(mother.ratios)) < 0.5
    ratios = tuple(
        m if pick else f for m, f, pick in zip(mother.ratios, father.ratios, picks, strict=True)
    )
    return Candidate(mother.depth if rng.random() < 0.5 else father.depth, ratios)


def mutated(candidate: Candidate, rng: np.random.Generator) -> Candidate:
    """One to three mutations."""
    ratios, depth = list(candidate.ratios), candidate.depth
    for _ in range(int(rng.integers(1, 4))):
        kind = rng.random()
        if kind < 0.2:
            depth = int(np.clip(depth + rng.integers(-4, 5), 0, len(ratios)))
        elif kind < 0.7:
            ratios[int(rng.integers(0, len(ratios)))] = int(rng.integers(0, len(RATIOS)))
        else:
            i, j = (int(k) for k in rng.integers(0, len(ratios), 2))
            ratios[i], ratios[j] = ratios[j], ratios[i]
    return Candidate(depth, tuple(ratios))
