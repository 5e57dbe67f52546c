# SPDX-License-Identifier: Apache-2.0
"""From gains to candidates that really fit: the evolution's estimates, held to the compiler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tte.search import exact
from tte.search.evolve import Limits, crossed, evolve, greedy, mutated
from tte.search.gains import Gains
from tte.search.space import Candidate, Cost, Space

FRONT_POINTS = 8
ROUNDS = 6  # of evolution, each with what the last one's winner really took
TRIES = 3  # candidates of a round that are compiled
OFFSPRING_TRIES = 50  # for each child that is wanted
ENOUGH = 0.98  # of the memory: a round whose best candidate fits and takes so much is the last


@dataclass(frozen=True, slots=True)
class Point:
    """A candidate with its gain by the model and its cost by the compiler."""

    candidate: Candidate
    gain: float
    cost: Cost


@dataclass(frozen=True, slots=True)
class Optimiser:
    """Finds candidates of a space within limits."""

    space: Space
    limits: Limits
    seed: int
    generations: int

    def winner(self, gains: Gains) -> Point:
        """The best candidate found; where nothing else fits, the head alone."""
        found = self.fitting(gains, self.limits, self.seed, ROUNDS)
        if found is None:
            head = Candidate(0, (0,) * len(self.space.layers))
            found = Point(head, float(gains.of([head])[0]), self.space.measure(head))
        return found

    def fitting(self, gains: Gains, limits: Limits, seed: int, rounds: int) -> Point | None:
        """The best candidate of some evolutions that fits when compiled. Where the compiler takes
        more than the estimate said, the next round aims that much lower; where less, higher."""
        best: Point | None = None
        aim = limits
        for index in range(rounds):
            off, fits = 0, False
            ranked = evolve(self.space, gains, aim, seed + index, self.generations)
            for candidate in ranked[:TRIES]:
                cost, gain = self.space.judge(candidate), float(gains.of([candidate])[0])
                off = cost.sram_bytes - int(self.space.estimate([candidate])[0, 0])
                fits = limits.admit(cost.sram_bytes, cost.instructions)
                if fits:
                    if best is None or gain > best.gain:
                        best = Point(candidate, gain, cost)
                    break
            if fits and candidate is ranked[0] and cost.sram_bytes >= ENOUGH * limits.sram_bytes:
                break
            aim = replace(limits, sram_bytes=max(1, limits.sram_bytes - off))
        return best and replace(best, cost=self.space.measure(best.candidate))

    def filled(self, gains: Gains, depth: int) -> Point | None:
        """Biases of the last `depth` layers, filled up with weights of the same layers; None where
        the biases do not fit."""
        aim = self.limits
        for _ in range(ROUNDS):
            candidate = greedy(self.space, gains, aim, depth)
            cost = self.space.judge(candidate)
            if self.limits.admit(cost.sram_bytes, cost.instructions):
                return Point(candidate, float(gains.of([candidate])[0]), cost)
            off = cost.sram_bytes - int(self.space.estimate([candidate])[0, 0])
            aim = replace(aim, sram_bytes=max(1, min(aim.sram_bytes - 1, aim.sram_bytes - off)))
        return None

    def offspring(self, parents: Sequence[Candidate], count: int) -> list[Candidate]:
        """Up to `count` new candidates of these that fit when compiled."""
        rng = np.random.default_rng(self.seed)
        found: dict[Candidate, None] = {}

        def fits(child: Candidate) -> bool:
            if self.limits.excess(self.space.estimate([child])).any():
                return False
            cost = self.space.judge(child)
            return self.limits.admit(cost.sram_bytes, cost.instructions)

        for _ in range(OFFSPRING_TRIES * count):
            if len(found) == count:
                break
            mother, father = (parents[int(rng.integers(0, len(parents)))] for _ in range(2))
            child = mutated(crossed(mother, father, rng), rng)
            if child not in found and child not in parents and fits(child):
                found[child] = None
        return list(found)

    def front(self, gains: Gains, best: Point) -> list[Point]:
        """`best`, and what is best with less memory."""
        head = Candidate(0, (0,) * len(self.space.layers))
        least, most = self.space.judge(head).sram_bytes, self.limits.sram_bytes
        points = [best]
        for share in np.linspace(0.0, 1.0, FRONT_POINTS)[:-1]:
            budget = replace(self.limits, sram_bytes=int(least + share * (most - least)))
            found = self.fitting(gains, budget, self.seed, 1)
            points += [found] if found else []
        return pareto(points)

    def gap(self, gains: Gains) -> float | None:
        """The share of the additive model's best gain that the evolution misses, both by the
        estimate; None without SciPy."""
        if not exact.is_available():
            return None
        evolved = evolve(self.space, gains, self.limits, self.seed, self.generations)
        gain = float(gains.of(evolved[:1])[0])
        proven = exact.solve(self.space, gains, self.limits, gain)
        most = gain if proven is None else float(gains.of([proven])[0])
        return (most - gain) / most if most > 0 else 0.0


def pareto(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in bytes and gain, by bytes."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost.sram_bytes, -p.gain)):
        if not front or point.gain > front[-1].gain:
            front.append(point)
    return front
