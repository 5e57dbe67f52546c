# SPDX-License-Identifier: Apache-2.0
"""`tte search` from end to end: contributions, evolution, proof, frontier.

Selection sees the training part only: `search` drops the test part before it does anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tte.data import Dataset
from tte.errors import DoesNotFit, TteError
from tte.ir import TrainPlan
from tte.pipeline import CompileOptions, Prepared, prepare
from tte.search import exact
from tte.search.evolve import Limits, evolve
from tte.search.fisher import Information, fisher_gains, information
from tte.search.gains import Gains, rank_correlation
from tte.search.measured import (
    HELD_SHARE,
    Bench,
    Contributions,
    Fold,
    Journal,
    Progress,
    measure_contributions,
)
from tte.search.pool import workers
from tte.search.space import RATIOS, Candidate, Cost, Space

SCHEMA = "tte-search/1"
METHODS = ("measured", "fisher")
FRONT_POINTS = 8
ROUNDS = 6  # of evolution, each with what the last one's winner really took
TRIES = 4  # candidates of a round that are compiled


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What `tte search` can be told. `steps`: of a trial; None: two epochs. `finalists`: how many
    of the best candidates are trained themselves."""

    sram_bytes: int
    method: str = "measured"
    channels: str = "magnitude"
    max_instructions: int | None = None
    steps: int | None = None
    folds: int = 2
    finalists: int = 6
    scheduler: str | None = None
    journal: Path | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """A candidate with its gain by the model and its cost by the compiler."""

    candidate: Candidate
    gain: float
    cost: Cost


class Search:
    """A finished search."""

    def __init__(
        self, space: Space, gains: Gains, contributions: Contributions | None, best: Point,
        front: Sequence[Point], gap: float | None, correlation: float | None,
        finals: dict[Candidate, float],
    ) -> None:  # fmt: skip
        self.space, self.gains, self.contributions = space, gains, contributions
        self.best, self.front, self.gap = best, list(front), gap
        self.correlation, self.finals = correlation, finals

    def facts(self) -> dict[str, Any]:
        """The search as data, for --json, tables and plots."""
        space = self.space
        start = len(space.layers) - self.best.candidate.depth
        measured = None if self.contributions is None else self.contributions.weights
        rows = []
        for i, layer in enumerate(space.layers):
            gained = self.gains.weights[i]
            raw = None
            if measured is not None and not np.isnan(measured[i]).any():
                raw = [float(value) for value in measured[i, 1:]]
            rows.append(
                {
                    "layer": layer,
                    "gain": [float(value) for value in gained[1:]],
                    "measured": raw,
                    "bias_gain": float(self.gains.bias[len(space.layers) - i]),
                    "bytes": [int(value) for value in space.weight_bytes[i, 1:]],
                    "bias": i >= start,
                    "weight": RATIOS[self.best.candidate.ratios[i]],
                }
            )
        return {
            "schema": SCHEMA,
            "unit": self.gains.unit,
            "ratios": list(RATIOS[1:]),
            "layers": rows,
            "best": self._point(self.best),
            "front": [self._point(point) for point in self.front],
            "gap": self.gap,
            "rank_correlation": self.correlation,
        }

    def _point(self, point: Point) -> dict[str, Any]:
        return {
            "gain": point.gain,
            "score": self.finals.get(point.candidate),
            "sram_bytes": point.cost.sram_bytes,
            "instructions": point.cost.instructions,
            "update": self.space.update_file(point.candidate),
        }


class Silent:
    """Nobody."""

    def phase(self, title: str, total: int) -> None:
        pass

    def advance(self, loss: float | None = None) -> None:
        pass


def search(
    model: Path,
    dataset: Dataset,
    compiling: CompileOptions,
    options: SearchOptions,
    progress: Progress | None = None,
) -> Search:
    """Finds what to train of a model within `options.sram_bytes`; DoesNotFit where not even the
    head does."""
    progress = progress or Silent()
    dataset = without_test(dataset)
    prepared = prepare(model, dataset, compiling)
    limits = Limits(options.sram_bytes, options.max_instructions)
    space, found, deepest = _space(prepared, compiling, options, limits)
    proxy = fisher_gains(space, found)
    if options.method == "fisher":
        best, front, gap = _optimise(space, proxy, limits, compiling.seed, progress)
        return Search(space, proxy, None, best, front, gap, None, {})
    if len(dataset.x_train) < 2 * HELD_SHARE:
        raise TteError(
            f"{len(dataset.x_train)} training samples are too few to hold some out",
            hint="give more samples, or use --method fisher",
        )
    with workers(options.scheduler) as (executor, count):
        progress.phase("features", options.folds)
        folds = []
        for index in range(options.folds):
            folds.append(Fold(model, dataset, compiling, space, deepest, index))
            progress.advance()
        steps = options.steps or 2 * folds[0].samples
        bench = Bench(
            folds, space, steps, Journal(options.journal), executor, count, progress
        )  # fmt: skip
        contributions = measure_contributions(bench, space, deepest)
        gains = contributions.gains()
        best, front, gap = _optimise(space, gains, limits, compiling.seed, progress)
        finals = _finals(
            space, gains, proxy, limits, compiling.seed, options, best, bench, progress
        )
    if finals:
        winner = max(finals, key=lambda c: (finals[c], -space.measure(c).sram_bytes))
        best = Point(winner, float(gains.of([winner])[0]), space.measure(winner))
    correlation = correlate(contributions, proxy)
    return Search(space, gains, contributions, best, front, gap, correlation, finals)


def without_test(dataset: Dataset) -> Dataset:
    """The data with training samples in the place of the test part."""
    return replace(dataset, x_test=dataset.x_train, y_test=dataset.y_train)


def correlate(contributions: Contributions, proxy: Gains) -> float:
    """Rank correlation of measured and proxy gains of all layers that were measured, at full
    ratio and smoothed over ratios."""
    known = ~np.isnan(contributions.weights).any(axis=1)
    return rank_correlation(contributions.gains().weights[known, -1], proxy.weights[known, -1])


def auto_plan(prepared: Prepared, compiling: CompileOptions) -> TrainPlan:
    """`--update auto`: the Fisher proxy's choice for the memory there is."""
    options = SearchOptions(compiling.sram_bytes or compiling.board.sram.size_bytes, "fisher")
    limits = Limits(options.sram_bytes)
    space, found, _ = _space(prepared, compiling, options, limits)
    gains = fisher_gains(space, found)
    best = _winner(space, gains, limits, compiling.seed)
    return replace(space.plan(best.candidate), spec="auto")


def _space(
    prepared: Prepared, compiling: CompileOptions, options: SearchOptions, limits: Limits
) -> tuple[Space, Information, int]:
    """The space, the Fisher information of its layers, and the deepest layer that can train."""
    plain = Space(prepared, compiling.board, streamed=compiling.stream)
    deepest = _deepest(plain, limits)
    found = information(prepared, plain.layers[deepest:], plain.head)
    if options.channels == "magnitude":
        return plain, found, deepest
    importance = found.importance() if options.channels == "gradient" else None
    chosen = Space(prepared, compiling.board, options.channels, importance, compiling.stream)
    return chosen, found, deepest


def _deepest(space: Space, limits: Limits) -> int:
    """The first layer whose bias can train together with all biases behind it."""
    layers = len(space.layers)

    def fits(layer: int) -> bool:
        candidate = Candidate(layers - layer, (0,) * layers)
        return not limits.excess(space.estimate([candidate])).any()

    if not fits(layers):
        cost = space.measure(Candidate(0, (0,) * layers))
        raise DoesNotFit(
            f"training the head alone needs {cost.sram_bytes} bytes of SRAM and "
            f"{cost.instructions} instructions a step",
            where=space.head,
            hint="give more with --sram or --max-instructions, or use a smaller input",
        )
    low, high = 0, layers  # the last known to fit
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return high


def _optimise(
    space: Space, gains: Gains, limits: Limits, seed: int, progress: Progress
) -> tuple[Point, list[Point], float | None]:
    """The best candidate, the front below it, and the share of the model's best gain that the
    evolution missed."""
    progress.phase("search", FRONT_POINTS)
    best = _winner(space, gains, limits, seed)
    progress.advance()
    least = space.measure(Candidate(0, (0,) * len(space.layers))).sram_bytes
    points = [best]
    for share in np.linspace(0.0, 1.0, FRONT_POINTS)[:-1]:
        budget = int(least + share * (limits.sram_bytes - least))
        found = _fitting(space, gains, replace(limits, sram_bytes=budget), seed, 1)
        points += [found] if found else []
        progress.advance()
    gap = None
    if exact.is_available():
        evolved = evolve(space, gains, limits, seed)[0]
        gain = float(gains.of([evolved])[0])
        proven = exact.solve(space, gains, limits, gain)
        most = gain if proven is None else float(gains.of([proven])[0])
        gap = (most - gain) / most if most > 0 else 0.0
    return best, pareto(points), gap


def _winner(space: Space, gains: Gains, limits: Limits, seed: int) -> Point:
    found = _fitting(space, gains, limits, seed, ROUNDS)
    if found is None:
        none = Candidate(0, (0,) * len(space.layers))
        found = Point(none, float(gains.of([none])[0]), space.measure(none))
    return found


def _fitting(space: Space, gains: Gains, limits: Limits, seed: int, rounds: int) -> Point | None:
    """The best candidate found that really fits. Where the compiler needs more than the estimate
    said, the next round aims that much lower; where it needs less, higher."""
    best: Point | None = None
    aim = limits
    for round_ in range(rounds):
        ranked = evolve(space, gains, aim, seed + round_)
        off = 0
        for candidate in ranked[:TRIES]:
            cost, gain = space.measure(candidate), float(gains.of([candidate])[0])
            off = cost.sram_bytes - int(space.estimate([candidate])[0, 0])
            costs = np.array([[cost.sram_bytes, cost.instructions]], float)
            if not limits.excess(costs).any():
                if best is None or gain > best.gain:
                    best = Point(candidate, gain, cost)
                break
        aim = replace(limits, sram_bytes=max(1, limits.sram_bytes - off))
    return best


def _finals(
    space: Space, gains: Gains, proxy: Gains, limits: Limits, seed: int, options: SearchOptions,
    best: Point, bench: Bench, progress: Progress,
) -> dict[Candidate, float]:  # fmt: skip
    """Held-out scores of the most promising candidates, trained as they are: the winner, what
    the proxy would have chosen, and other good ones of the evolution."""
    if not options.finalists:
        return {}
    chosen = dict.fromkeys([best.candidate, _winner(space, proxy, limits, seed).candidate])
    for other in range(1, 4 * options.finalists):
        if len(chosen) >= options.finalists:
            break
        point = _fitting(space, gains, limits, seed + 1000 * other, 1)
        if point is not None:
            chosen[point.candidate] = None
    return bench.scores("finalists", list(chosen)[: options.finalists])


def pareto(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in bytes and gain, by bytes."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost.sram_bytes, -p.gain)):
        if not front or point.gain > front[-1].gain:
            front.append(point)
    return front
