# SPDX-License-Identifier: Apache-2.0
"""The search: limits, proof, seeds, interruption, and what it may look at."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tte.data import Dataset
from tte.errors import DoesNotFit
from tte.pipeline import CompileOptions, Prepared
from tte.report.search import print_search
from tte.search import exact, measured
from tte.search.evolve import Limits, evolve
from tte.search.fisher import Information, fisher_gains, information
from tte.search.gains import Gains, rank_correlation, shrunk, smooth
from tte.search.optimise import Optimiser, pareto
from tte.search.run import SearchOptions, search
from tte.search.space import RATIOS, Candidate, Space

TIGHT = 11_500  # bytes: the head and the layer before it


@pytest.fixture(scope="module")
def found(prepared: Prepared, space: Space) -> Information:
    return information(prepared, space.layers, space.head)


@pytest.fixture(scope="module")
def gains(space: Space, found: Information) -> Gains:
    return fisher_gains(space, found)


def test_fisher_information_is_the_mean_square_of_single_gradients(
    prepared: Prepared, space: Space, found: Information
) -> None:
    few = replace(prepared, codes=prepared.codes[:2], labels=prepared.labels[:2])
    both = information(few, space.layers, space.head)
    ones = [
        information(
            replace(prepared, codes=prepared.codes[i : i + 1], labels=prepared.labels[i : i + 1]),
            space.layers,
            space.head,
        )
        for i in range(2)
    ]
    for layer in space.layers:
        mean = sum(one.channels[layer] for one in ones) / 2
        np.testing.assert_allclose(both.channels[layer], mean)
        assert found.bias[layer] > 0


@pytest.mark.parametrize("sram", [14_000, 24_000, 36_000])
def test_the_evolution_is_close_to_the_proven_best(sram: int, space: Space, gains: Gains) -> None:
    pytest.importorskip("scipy")
    limits = Limits(sram)
    best = evolve(space, gains, limits, 0)[0]
    gain = float(gains.of([best])[0])
    proven = exact.solve(space, gains, limits, 0.0)
    assert proven is not None
    most = float(gains.of([proven])[0])
    assert not limits.excess(space.estimate([proven])).any()
    assert 0.97 * most <= gain <= most * (1 + 1e-6)
    assert exact.solve(space, gains, limits, most * 1.001) is None


@pytest.mark.parametrize("share", [0.1, 0.5, 10.0])
def test_the_proof_agrees_with_trying_everything(share: float, space: Space, gains: Gains) -> None:
    """With gains for three layers only, so that everything can be tried; whether too large steps
    are in reach, or not."""
    pytest.importorskip("scipy")
    few = gains.weights.copy()
    few[:-3] = 0
    most = 0.1 * gains.bias[-1] + few.max(axis=1).sum()
    small = Gains("test", gains.bias * 0.1, few, best=share * most)
    layers = len(space.layers)
    every = [
        Candidate(depth, (*(0,) * (layers - 3), *ratios))
        for depth in range(layers + 1)
        for ratios in itertools.product(range(len(RATIOS)), repeat=3)
    ]
    limits = Limits(22_000, 900_000)
    fits = limits.excess(space.estimate(every)) == 0
    proven = exact.solve(space, small, limits, 0.0)
    assert proven is not None
    assert small.of([proven])[0] == pytest.approx(small.of(every)[fits].max())


def test_a_quick_plan_never_takes_less(space: Space, gains: Gains) -> None:
    for candidate in evolve(space, gains, Limits(24_000), 1, generations=3)[:20]:
        quick, thorough = space.judge(candidate), space.measure(candidate)
        assert quick.sram_bytes >= thorough.sram_bytes
        assert quick.instructions == thorough.instructions


def test_limits_and_seeds(space: Space, gains: Gains) -> None:
    free = evolve(space, gains, Limits(30_000), 3, generations=20)
    assert free == evolve(space, gains, Limits(30_000), 3, generations=20)
    assert (space.estimate(free)[:, 0] <= 30_000).all()
    limit = int(space.estimate(free[:1])[0, 1] * 0.8)
    bound = evolve(space, gains, Limits(30_000, limit), 3, generations=20)
    assert (space.estimate(bound)[:, 1] <= limit).all()
    assert gains.of(bound[:1])[0] < gains.of(free[:1])[0]


def test_offspring_is_new_and_fits(space: Space, gains: Gains) -> None:
    limits = Limits(24_000, 900_000)
    optimiser = Optimiser(space, limits, 5, 20)
    parents = evolve(space, gains, Limits(22_000, 800_000), 0, generations=5)[:2]
    children = optimiser.offspring(parents, 6)
    assert len({*parents, *children}) == len(parents) + 6
    assert all(limits.admit(c.sram_bytes, c.instructions) for c in map(space.measure, children))
    assert children == optimiser.offspring(parents, 6)
    assert Optimiser(space, Limits(1), 5, 20).offspring(parents, 1) == []


def test_biases_of_some_last_layers_are_filled_up(space: Space, gains: Gains) -> None:
    limits = Limits(20_000)
    optimiser = Optimiser(space, limits, 0, 20)
    point = optimiser.filled(replace(gains, best=1e9), 4)
    assert point is not None and point.candidate.depth == 4
    assert space.reach(point.candidate) == len(space.layers) - 4 and any(point.candidate.ratios)
    assert point.cost.sram_bytes <= 20_000 < space.measure(_more(point.candidate)).sram_bytes
    assert Optimiser(space, Limits(6_000), 0, 20).filled(gains, 4) is None


def _more(candidate: Candidate) -> Candidate:
    """All weights of the layers whose biases train."""
    whole = (len(RATIOS) - 1,) * candidate.depth
    return replace(candidate, ratios=(*candidate.ratios[: -candidate.depth], *whole))


def test_gains_are_smoothed_and_drawn_to_the_proxy() -> None:
    root = np.sqrt(RATIOS)
    np.testing.assert_allclose(smooth(np.array([2 * root])), [2 * root])
    rng = np.random.default_rng(0)
    truth = np.abs(rng.normal(1, 0.3, 30))[:, None] * root
    noisy = truth + rng.normal(0, 1, truth.shape) * (root > 0)
    drawn, size = shrunk(noisy, truth * 7)
    assert size == pytest.approx(1 / 7, rel=0.2)
    assert np.square(drawn - truth).mean() < 0.5 * np.square(smooth(noisy) - truth).mean()
    np.testing.assert_allclose(shrunk(truth, rng.random(truth.shape))[0], truth)  # no noise
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([1.0, 4, 9])) == pytest.approx(1)
    assert rank_correlation(np.array([1.0, 1, 2]), np.array([3.0, 3, 1])) == pytest.approx(-1)


def test_too_large_a_step_gains_less(space: Space, gains: Gains) -> None:
    best = gains.value(np.array(gains.best))
    assert best == gains.height
    assert gains.value(np.array([0.25, 0.81, 1.21, 4.0]) * gains.best) == pytest.approx(
        best * np.array([0.75, 0.99, 0.99, 0.0])
    )
    whole = Candidate(len(space.layers), (len(RATIOS) - 1,) * len(space.layers))
    small = replace(gains, best=gains.steps([whole])[0] / 5)
    found = evolve(space, small, Limits(10**9), 0, generations=40)[0]
    assert small.steps([found])[0] == pytest.approx(small.best, rel=0.2)


def test_measured_gains_become_steps(space: Space, gains: Gains) -> None:
    """Where what was measured is what the proxy leads to expect, the same candidates win."""
    exact_ = measured.Contributions(
        0.5 + 0.03 * np.sqrt(gains.bias), 0.03 * np.sqrt(gains.weights[:, -1:] * RATIOS)
    )
    proxy = replace(gains, weights=gains.weights[:, -1:] * RATIOS)
    found = exact_.gains(proxy)
    np.testing.assert_allclose(found.weights, proxy.weights)
    np.testing.assert_allclose(found.bias, proxy.bias)
    assert found.height == pytest.approx(0.03 * np.sqrt(gains.best) / 2)
    nothing = measured.Contributions(np.zeros(len(gains.bias)), np.zeros(gains.weights.shape))
    assert nothing.gains(proxy) is proxy


def quick(**more: Any) -> SearchOptions:
    return SearchOptions(TIGHT, steps=4, folds=1, finalists=2, final_steps=5, generations=5, **more)


def test_the_test_part_is_never_looked_at(
    digits_model: Path, digits: Dataset, options: CompileOptions
) -> None:
    """Two test parts, of other sizes and labels: the same result, measured and by proxy; it is
    another one where the training part differs."""
    other = replace(digits, x_test=255 - digits.x_test[:7], y_test=digits.y_test[:7] * 0)
    shuffled = replace(digits, y_train=digits.y_train[::-1].copy())
    for method in ("fisher", "measured"):
        facts = [
            search(digits_model, data, options, replace(quick(), method=method)).facts()
            for data in (digits, other)
        ]
        assert facts[0] == facts[1]
    changed = search(digits_model, shuffled, options, replace(quick(), method="measured"))
    assert changed.facts()["layers"] != facts[0]["layers"]


def test_an_interrupted_search_goes_on(
    digits_model: Path,
    digits: Dataset,
    options: CompileOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    journal = tmp_path / "update.journal"
    ran: list[str] = []
    run_all = measured.run_all

    def counted(jobs: Any, executor: Any, count: int) -> Any:
        for key, outcome in run_all(jobs, executor, count):
            if len(ran) == 4:
                raise KeyboardInterrupt
            ran.append(key)
            yield key, outcome

    monkeypatch.setattr(measured, "run_all", counted)
    with pytest.raises(KeyboardInterrupt):
        search(digits_model, digits, options, quick(journal=journal))
    journal.write_text(journal.read_text() + '["cut off', encoding="utf-8")
    before = ran.copy()
    ran[:] = [""] * 10  # from now on nothing interrupts
    resumed = search(digits_model, digits, options, quick(journal=journal))
    assert len(before) == 4 and not set(before) & set(ran)
    again = search(digits_model, digits, options, quick(journal=journal))
    facts = resumed.facts()
    assert again.facts() == facts
    points = resumed.front
    assert pareto(points) == points
    scores = [point["score"] for point in facts["finalists"]]
    assert facts["finalists"][0] == facts["best"] and scores == sorted(scores, reverse=True)
    out = io.StringIO()
    print_search(facts, tmp_path / "update.json", Console(file=out, width=100))
    assert f"{scores[0]:.4f}" in out.getvalue()


def test_not_even_the_head_fits(
    digits_model: Path, digits: Dataset, options: CompileOptions
) -> None:
    with pytest.raises(DoesNotFit, match="training the head alone needs"):
        search(digits_model, digits, options, SearchOptions(6000, "fisher"))


def tte(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tte", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_command(digits_model: Path, digits: Dataset, tmp_path: Path) -> None:
    data, update = tmp_path / "data.npz", tmp_path / "update.json"
    np.savez(
        data, x_train=digits.x_train, y_train=digits.y_train,
        x_test=digits.x_test, y_test=digits.y_test,
    )  # fmt: skip
    common = (digits_model, "--board", "mps2-an386", "--data", data)
    done = tte(
        "search", *common, "--sram", "24K", "--method", "fisher", "--channels", "gradient",
        "-o", update, "--json", "-",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["schema"] == "tte-search/1" and facts["best"]["sram_bytes"] <= 24 << 10
    assert len(facts["front"]) > 2 and (tmp_path / "update.png").is_file()
    assert json.loads(update.read_text()) == facts["best"]["update"]
    for spec in (update, tmp_path / "update.1.json", "auto"):
        compiled = tte(
            "compile", *common, "--update", spec, "--sram", "24K", "-o", tmp_path / "p", "--quiet"
        )
        assert compiled.returncode == 0, compiled.stderr
    small = tte("search", *common, "--sram", "2K", "--method", "fisher", "-o", update)
    assert small.returncode == 3 and "SRAM" in small.stderr
