# SPDX-License-Identifier: Apache-2.0
"""`tte search` from end to end: contributions, evolution, proof, frontier.

Selection sees the training part only: `search` drops the test part before it does anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tte.data import Dataset
from tte.errors import DoesNotFit, TteError
from tte.pipeline import CompileOptions, Prepared, check_fit, lower, prepare
from tte.program import Program
from tte.search.evolve import GENERATIONS, Limits
from tte.search.fisher import Information, fisher_gains, information
from tte.search.gains import Gains, rank_correlation, smooth
from tte.search.measured import (
    HELD_SHARE,
    Bench,
    Contributions,
    Fold,
    Journal,
    Progress,
    measure_contributions,
    split,
)
from tte.search.optimise import Optimiser, Point
from tte.search.pool import workers
from tte.search.space import RATIOS, Candidate, Space

SCHEMA = "tte-search/1"
METHODS = ("measured", "fisher")
DEPTHS = (1 / 2, 1 / 3, 2 / 3, 1 / 4)  # of all layers: of finalists that are filled up
EAGER = 2.0  # times the best sum of steps, for these
STEP_SHARES = (0.5, 2.0, 1.0)  # of the best sum of steps, by which other finalists differ
FINALIST_ROUNDS = 2
BEST = 4  # finalists that have offspring, and of all that are trained on every fold
LOOKS = 5  # at the held-out samples while a finalist trains: single steps of descent are noisy
FIRMWARE_BYTES = 1024  # of SRAM for what is not the network: buffers of the line, counters


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What `tte search` can be told. `steps`: of a trial; None: one epoch. `finalists`: how many
    of the best candidates are trained themselves, and as many of their offspring, `final_steps`
    steps."""

    sram_bytes: int
    method: str = "measured"
    channels: str = "magnitude"
    max_instructions: int | None = None
    steps: int | None = None
    folds: int = 2
    finalists: int = 8
    final_steps: int = 3000
    generations: int = GENERATIONS
    scheduler: str | None = None
    journal: Path | None = None


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
            gained = self.gains.value(self.gains.weights[i])
            raw = None
            if measured is not None and not np.isnan(measured[i]).any():
                raw = [float(value) for value in measured[i, 1:]]
            rows.append(
                {
                    "layer": layer,
                    "gain": [float(value) for value in gained[1:]],
                    "measured": raw,
                    "bias_gain": float(self.gains.value(self.gains.bias[len(space.layers) - i])),
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
            "finalists": [
                self._point(Point(c, float(self.gains.of([c])[0]), space.measure(c)))
                for c in _ranked(self.finals, space)
            ],
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
    limits = _limits(options.sram_bytes, options.max_instructions)
    space, found, deepest = _space(prepared, compiling, options, limits)
    proxy = fisher_gains(space, found)
    optimiser = Optimiser(space, limits, compiling.seed, options.generations)
    if options.method == "fisher":
        best = optimiser.winner(proxy)
        front, gap = optimiser.front(proxy, best), optimiser.gap(proxy)
        return Search(space, proxy, None, best, front, gap, None, {})
    if len(dataset.x_train) < 2 * HELD_SHARE:
        raise TteError(
            f"{len(dataset.x_train)} training samples are too few to hold some out",
            hint="give more samples, or use --method fisher",
        )
    count = HELD_SHARE if options.finalists else options.folds
    with workers(options.scheduler) as (executor, workers_count):
        progress.phase("folds", count)
        folds = []
        for index in range(count):
            parts = split(dataset, compiling.seed, index)
            seed = compiling.seed + index
            folds.append(Fold(model, parts, compiling, space, deepest, seed))
            progress.advance()
        steps = options.steps or folds[0].samples
        bench = Bench(folds, space, Journal(options.journal), executor, workers_count, progress)
        contributions = measure_contributions(bench, space, deepest, steps, options.folds)
        gains = contributions.gains(proxy)
        best = optimiser.winner(gains)
        front, gap = optimiser.front(gains, best), optimiser.gap(gains)
        finals = _finals(optimiser, gains, proxy, options, best, bench)
    if finals:
        winner = _ranked(finals, space)[0]
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
    measured = smooth(contributions.weights[known])
    return rank_correlation(measured[:, -1], proxy.weights[known, -1])


def compile_auto(model: Path, dataset: Dataset, compiling: CompileOptions) -> Program:
    """`--update auto`: compiles what the Fisher proxy chooses for the memory there is."""
    prepared = prepare(model, without_test(dataset), compiling)
    options = SearchOptions(compiling.sram_bytes or compiling.board.sram.size_bytes, "fisher")
    limits = _limits(options.sram_bytes)
    space, found, _ = _space(prepared, compiling, options, limits)
    optimiser = Optimiser(space, limits, compiling.seed, options.generations)
    best = optimiser.winner(fisher_gains(space, found))
    program = lower(prepared, replace(space.plan(best.candidate), spec="auto"), compiling)
    check_fit(program)
    return program


def _limits(sram_bytes: int, instructions: int | None = None) -> Limits:
    return Limits(max(1, sram_bytes - FIRMWARE_BYTES), instructions)


def _space(
    prepared: Prepared, compiling: CompileOptions, options: SearchOptions, limits: Limits
) -> tuple[Space, Information, int]:
    """The space, the Fisher information of its layers, and the deepest layer that can train."""
    plain = Space(
        prepared, compiling.board, streamed=compiling.stream, optimizer=compiling.optimizer
    )
    deepest = _deepest(plain, limits)
    found = information(prepared, plain.layers[deepest:], plain.head)
    if options.channels == "magnitude":
        return plain, found, deepest
    importance = found.importance() if options.channels == "gradient" else None
    chosen = Space(
        prepared, compiling.board, options.channels, importance, compiling.stream,
        compiling.optimizer,
    )  # fmt: skip
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


def _finals(
    optimiser: Optimiser, gains: Gains, proxy: Gains, options: SearchOptions, best: Point,
    bench: Bench,
) -> dict[Candidate, float]:  # fmt: skip
    """Held-out scores of the best candidates, trained as they are. First the biases of some of the
    last layers, filled up with weights of these that are not depthwise; and those that are best by
    the measured gains and by the proxy if the best sum of steps were smaller or larger than
    thought, since that depends on how noisy the task is. Then offspring of the best of these. At
    last the best of all on every fold, whose scores are returned."""
    if not options.finalists:
        return {}
    space, limits = optimiser.space, optimiser.limits
    plain = replace(proxy, weights=np.where(space.depthwise[:, None], 0.0, proxy.weights))
    eager = replace(plain, best=EAGER * plain.best)

    def guesses() -> Iterator[Point | None]:
        yield best
        for part in DEPTHS:
            yield optimiser.filled(eager, round(part * len(space.layers)))
        for share in STEP_SHARES:
            for model in (gains, proxy):
                scaled = replace(model, best=share * model.best)
                yield optimiser.fitting(scaled, limits, optimiser.seed, FINALIST_ROUNDS)
        for again in range(1, 2 * options.finalists + 1):
            yield optimiser.fitting(gains, limits, optimiser.seed + 1000 * again, FINALIST_ROUNDS)

    chosen: dict[Candidate, None] = {}
    for point in guesses():
        if point is not None:
            chosen[point.candidate] = None
        if len(chosen) == options.finalists:
            break

    def train(title: str, candidates: Sequence[Candidate], folds: int) -> dict[Candidate, float]:
        return bench.scores(title, candidates, options.final_steps, folds, LOOKS)

    scores = train("finalists", list(chosen), options.folds)
    parents = _ranked(scores, optimiser.space)[:BEST]
    children = optimiser.offspring(parents, options.finalists)
    scores |= train("their offspring", children, options.folds)
    return train("the best of them", _ranked(scores, optimiser.space)[:BEST], HELD_SHARE)


def _ranked(scores: dict[Candidate, float], space: Space) -> list[Candidate]:
    """The best first; of two that are as good the smaller one."""
    return sorted(scores, key=lambda c: (-scores[c], space.measure(c).sram_bytes))
