# SPDX-License-Identifier: Apache-2.0
"""Contributions by training: what each layer's weights gain on held-out samples.

For a layer i two trials see the same samples in the same order: one trains the head and the biases
from layer i on, the other also a share of the layer's weights. The gain is the difference of the
probability that the held-out samples' classes get, on average: accuracy without its steps. Every
outcome goes to a journal at once, so that a search that was interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tte.data import Dataset, InputTransform, sample_order
from tte.ir import Graph, TrainPlan
from tte.passes.differentiate import differentiate
from tte.passes.prune import prune
from tte.pipeline import CompileOptions, Prepared, lower, measure_scales, prepare
from tte.search.gains import Gains, shrunk, slope
from tte.search.pool import run_all
from tte.search.space import RATIOS, Candidate, Space
from tte.search.suffix import cut, features
from tte.search.trial import Outcome, Samples, Trial, make_trial
from tte.training import BCE, CROSS_ENTROPY, PLAIN_SGD, target_values

HELD_SHARE = 5  # one in so many training samples is held out


class Progress(Protocol):
    """Who is told how far a search is."""

    def phase(self, title: str, total: int) -> None: ...

    def advance(self, loss: float | None = None) -> None: ...


class Journal:
    """Scores of trials by key, on disk as they come; a line that was cut short is left out."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.scores: dict[str, float] = {}
        if path is not None and path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    key, score = json.loads(line)
                    self.scores[str(key)] = float(score)
                except (ValueError, TypeError):
                    continue

    def add(self, key: str, score: float) -> None:
        self.scores[key] = score
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, score]) + "\n")


def scales_of(prepared: Prepared, plan: TrainPlan, options: CompileOptions) -> dict[str, float]:
    """Gradient scales of a plan, which serve any plan that reaches no deeper, too."""
    full = differentiate(prepared.forward, prepared.loss)
    return measure_scales(prepared, prune(full, plan), options)


def split(dataset: Dataset, seed: int, fold: int) -> Dataset:
    """The training part alone, one in HELD_SHARE samples of it as the test part."""
    count = len(dataset.x_train)
    held = np.sort(np.random.default_rng(seed).permutation(count)[fold::HELD_SHARE])
    fit = np.setdiff1d(np.arange(count), held)
    x, y = dataset.x_train, dataset.y_train
    parts = replace(dataset, x_train=x[fit], y_train=y[fit], x_test=x[held], y_test=y[held])
    if dataset.is_autoencoder:
        parts = replace(parts, y_train=parts.x_train, y_test=parts.x_test)
    return parts


class Fold:
    """Trains on the training part of `split` and looks at its test part, from features of both
    that are computed once. `seed`: of the order of samples."""

    def __init__(
        self, model: Path, split: Dataset, options: CompileOptions, space: Space, deepest: int,
        seed: int,
    ) -> None:  # fmt: skip
        self._space, self._options, self._seed = space, options, seed
        self._prepared = prepare(model, split, options)
        biases = Candidate(len(space.layers) - deepest, (0,) * len(space.layers))
        self._rho = scales_of(self._prepared, space.plan(biases), options)
        spec = self._prepared.input
        transform = InputTransform(spec.scale, spec.zero_point, spec.mean, spec.std)
        shape = self._prepared.codes.shape[1:]
        self._x = transform.quantize(split.x_train).reshape(-1, *shape)
        self._held_x = transform.quantize(split.x_test).reshape(-1, *shape)
        encode = self._prepared.loss.target.encode
        self._y = encode(target_values(split, "train", transform))
        self._held_y = encode(target_values(split, "test", transform))
        self._suffixes: dict[str, tuple[Prepared, Samples]] = {}
        digest = hashlib.sha256()
        for array in (self._x, self._y, self._held_x, self._held_y):
            digest.update(np.ascontiguousarray(array).tobytes())
        self._digest = digest.hexdigest()

    @property
    def samples(self) -> int:
        return len(self._x)

    def key(self, plan: TrainPlan, steps: int, looks: int) -> str:
        """Names a trial: whatever may change its score goes in."""
        facts = (self._prepared.model_sha256, plan.updates, steps, looks, self._seed, self._digest,
                 self._options.classes, self._options.loss)  # fmt: skip
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]

    def trial(self, plan: TrainPlan, steps: int, looks: int = 1) -> tuple[Trial, Samples]:
        """A plan as a trial on cached features."""
        prepared, samples = self._suffix(plan.updates[0].layer)
        options = replace(self._options, stream=False, optimizer=PLAIN_SGD, dump_dir=None)
        program = lower(prepared, plan, options, self._rho, thorough=False)
        order = sample_order(self.samples, steps, self._seed)
        return make_trial(program, order, looks), samples

    def _suffix(self, layer: str) -> tuple[Prepared, Samples]:
        """The program from the last cut before `layer`, and the features of all samples there."""
        few = replace(self._prepared, codes=self._prepared.codes[:1])
        suffix = cut(few, layer)
        name = suffix.prepared.forward.inputs[0]
        if name not in self._suffixes:
            start, x, held_x = self._nearest(suffix.frozen)
            self._suffixes[name] = (
                suffix.prepared,
                Samples(features(start, x), self._y, features(start, held_x)),
            )
        return self._suffixes[name]

    def _nearest(self, frozen: Graph) -> tuple[Graph, NDArray[np.int8], NDArray[np.int8]]:
        """What is left to compute up to a cut, from the nearest features that are known."""
        x, held_x, at = self._x, self._held_x, -1
        for index, op in enumerate(frozen.ops):
            if op.outputs[0] in self._suffixes and op.outputs[0] != frozen.outputs[0]:
                known = self._suffixes[op.outputs[0]][1]
                x, held_x, at = known.x, known.held_x, index
        if at < 0:
            return frozen, x, held_x
        source = frozen.ops[at].outputs[0]
        return frozen.with_changes(ops=frozen.ops[at + 1 :], inputs=[source]), x, held_x

    def score(self, outcome: Outcome) -> float:
        """How good held-out outputs are, on average of the looks at them: mean probability of what
        is right; for values, minus their mean squared error in units of the targets' variance."""
        return sum(map(self._score, outcome.looks)) / len(outcome.looks)

    def _score(self, outputs: NDArray[Any]) -> float:
        output = self._prepared.forward[self._prepared.forward.outputs[0]]
        assert output.quant is not None
        scale = output.quant.scales(output.type.shape[-1])
        raw = outputs.reshape(len(outputs), -1, len(scale)).astype(np.float64)
        zero_point = 0 if output.type.dtype == "int32" else output.quant.zero_point
        real = ((raw - zero_point) * scale).reshape(len(raw), -1)
        loss, y = self._prepared.loss, self._held_y
        if loss.name == CROSS_ENTROPY:
            powers = np.exp(real - real.max(axis=1, keepdims=True))
            return float((powers[np.arange(len(y)), y] / powers.sum(axis=1)).mean())
        if loss.name == BCE:
            return float(np.where(y != 0, 1 / (1 + np.exp(-real)), 1 / (1 + np.exp(real))).mean())
        codes = self._held_x if loss.target.kind == "input" else y
        wanted = codes.reshape(len(real), -1) * loss.target.scale + loss.target.offset
        return -float(np.square(real - wanted).mean() / max(wanted.var(), 1e-12))


class Bench:
    """Trains candidates on folds of the training part."""

    def __init__(
        self, folds: Sequence[Fold], space: Space, journal: Journal,
        executor: Executor, count: int, progress: Progress,
    ) -> None:  # fmt: skip
        self._folds, self._space = folds, space
        self._journal, self._executor, self._count = journal, executor, count
        self._progress = progress

    def scores(
        self, title: str, candidates: Sequence[Candidate], steps: int, folds: int, looks: int = 1
    ) -> dict[Candidate, float]:
        """Mean scores of candidates over the first `folds` folds, after `steps` steps. The deepest
        come first: they take longest, and the features of the others come from theirs."""
        plans = {candidate: self._space.plan(candidate) for candidate in candidates}
        order = sorted(plans, key=self._space.reach)
        self._progress.phase(title, len(plans) * folds)
        keys = {
            (name, f): self._folds[f].key(plans[name], steps, looks)
            for f in range(folds)
            for name in order
        }
        owner = {key: f for (_, f), key in keys.items()}

        def jobs() -> Iterator[tuple[str, Trial, Samples]]:
            for (name, f), key in keys.items():
                if key in self._journal.scores:
                    self._progress.advance()
                else:
                    yield key, *self._folds[f].trial(plans[name], steps, looks)

        for key, outcome in run_all(jobs(), self._executor, self._count):
            self._journal.add(key, self._folds[owner[key]].score(outcome))
            self._progress.advance()
        return {
            name: sum(self._journal.scores[keys[name, f]] for f in range(folds)) / folds
            for name in plans
        }


@dataclass(frozen=True, slots=True)
class Contributions:
    """[depth] scores of biases alone (depth 0: the head), [layer, ratio] gains of weights, as
    measured; NaN where a layer was too deep to fit."""

    bias: NDArray[np.float64]
    weights: NDArray[np.float64]

    def gains(self, proxy: Gains) -> Gains:
        """Steps as measured, their noise taken out: weights are drawn to the proxy, biases are
        the proxy's, all of them made smaller or larger by one factor."""
        known = ~np.isnan(self.weights).any(axis=1)
        drawn, size = shrunk(self.weights[known], np.sqrt(proxy.weights[known]))
        if size == 0.0:  # nothing that could be told from noise
            return proxy
        weights = np.zeros_like(self.weights)
        weights[known] = np.square(np.maximum(drawn, 0.0) / size)
        depths = np.flatnonzero(~np.isnan(self.bias))
        of_bias = slope(self.bias[depths] - self.bias[0], np.sqrt(proxy.bias[depths]))
        bias = proxy.bias * min(1.0, of_bias / size) ** 2
        return Gains("probability", bias, weights, proxy.best, size * np.sqrt(proxy.best) / 2)


def measure_contributions(
    bench: Bench, space: Space, deepest: int, steps: int, folds: int
) -> Contributions:
    """Trains biases alone from each layer on, then each layer's weights on top of them."""
    layers = len(space.layers)
    alone = [Candidate(depth, (0,) * layers) for depth in range(layers - deepest + 1)]
    trained = {
        (i, r): Candidate(layers - i, tuple(r if j == i else 0 for j in range(layers)))
        for i in reversed(range(deepest, layers))
        for r in range(1, len(RATIOS))
    }
    scores = bench.scores("contributions", [*alone, *trained.values()], steps, folds)
    bias = np.full(layers + 1, np.nan)
    weights = np.full((layers, len(RATIOS)), np.nan)
    weights[deepest:, 0] = 0.0
    for candidate in alone:
        bias[candidate.depth] = scores[candidate]
    for (i, r), candidate in trained.items():
        weights[i, r] = scores[candidate] - scores[alone[layers - i]]
    return Contributions(bias, weights)
