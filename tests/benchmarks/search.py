# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.benchmarks search`: found updates against published ones at equal SRAM.

For two networks and two photo data sets: the update that `tte search` finds within what a published
update takes, that published update, and baselines; accuracy on the test part after 3000 steps,
three seeds. Hours on two cores; TTE_SEARCH narrows it, as in `mcunet-5fps:flowers5_128:fisher`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tte.board import load_board
from tte.data import load_dataset
from tte.passes.update import plan_update
from tte.pipeline import CompileOptions, prepare
from tte.search.measured import Fold
from tte.search.run import FIRMWARE_BYTES
from tte.search.space import Space
from tte.search.trial import run_trial

SHARED = Path(__file__).resolve().parents[3] / "shared"
BOARD = "mps2-an500"
STEPS, SEEDS = 3000, 3
NETS = ("mcunet-5fps", "mbv2-w0.35")
DATA = ("flowers5_128", "person_128")
SCHEMES = ("49kb", "99kb")
BASELINES = ("head", "bias:20", "last:2")


@dataclass(frozen=True)
class Run:
    """One training run on the whole training part, tested on the test part."""

    net: str
    data: str
    name: str
    spec: str
    seed: int


def accuracy(run: Run) -> float:
    """Of the test part, after training: the program of `tte compile`, from its last cut."""
    dataset = load_dataset(SHARED / "data" / run.data)
    options = CompileOptions(load_board(BOARD), classes=dataset.classes, seed=run.seed)
    model = SHARED / "models" / f"{run.net}-int8-qdq.onnx"
    prepared = prepare(model, dataset, options)
    plan = plan_update(prepared.forward, run.spec)
    space = Space(prepared, options.board)
    deepest = [*space.layers, space.head].index(plan.updates[0].layer)
    outcome = run_trial(*Fold(model, dataset, options, space, deepest, run.seed).trial(plan, STEPS))
    output = prepared.forward[prepared.forward.outputs[0]]
    assert output.quant is not None
    real = outcome.outputs * output.quant.scales(dataset.classes)
    return float((real.argmax(axis=1) == dataset.y_test).mean())


def cases() -> Iterator[tuple[str, str, str]]:
    """(network, data, method), as TTE_SEARCH narrows them."""
    wanted = os.environ.get("TTE_SEARCH", "").split(":")
    for net in NETS:
        for data in DATA:
            if wanted[0] in ("", net) and (len(wanted) < 2 or wanted[1] in ("", data)):
                yield net, data, wanted[2] if len(wanted) > 2 else "measured"


def found(net: str, data: str, scheme: str, method: str, folder: Path) -> tuple[int, Path]:
    """The SRAM of a published update, and what a search finds within it."""
    dataset = load_dataset(SHARED / "data" / data)
    options = CompileOptions(load_board(BOARD), classes=dataset.classes)
    model = SHARED / "models" / f"{net}-int8-qdq.onnx"
    prepared = prepare(model, dataset, options)
    published = str(SHARED / "models" / "updates" / f"{net}-{scheme}.json")
    sram = Space(prepared, options.board).cost(plan_update(prepared.forward, published)).sram_bytes
    update = folder / f"{net}-{data}-{scheme}.json"
    command = ["tte", "search", model, "--board", BOARD, "--data", SHARED / "data" / data]
    command += ["--classes", dataset.classes, "--sram", sram + FIRMWARE_BYTES, "-o", update]
    command += ["--method", method, "--quiet"]
    subprocess.run([sys.executable, "-m", *map(str, command)], check=True)
    return sram, update


def search(scratch: Path) -> None:
    """Searches, trains, prints the table."""
    table = Table(title=f"accuracy after {STEPS} steps, mean of {SEEDS} seeds")
    for column in ("network", "data", "update", "SRAM", "each seed", "mean"):
        table.add_column(column)
    folder = Path(os.environ.get("TTE_SEARCH_FOLDER") or tempfile.mkdtemp(dir=scratch))
    for net, data, method in cases():
        rows: list[tuple[str, str, str]] = [(spec, spec, "") for spec in BASELINES]
        for scheme in SCHEMES:
            sram, update = found(net, data, scheme, method, folder)
            published = SHARED / "models" / "updates" / f"{net}-{scheme}.json"
            facts = json.loads(update.read_text(encoding="utf-8"))
            rows.append((f"published {scheme}", str(published), f"{sram:,}"))
            rows.append((f"found, {len(facts['layers'])} layers", str(update), f"<= {sram:,}"))
        runs = [Run(net, data, name, spec, s) for name, spec, _ in rows for s in range(SEEDS)]
        with ProcessPoolExecutor() as pool:
            results = np.array(list(pool.map(accuracy, runs))).reshape(len(rows), SEEDS)
        for (name, _, sram_text), each in zip(rows, results, strict=True):
            seeds = ", ".join(f"{100 * value:.1f}" for value in each)
            table.add_row(net, data, name, sram_text, seeds, f"{100 * each.mean():.2f}")
    Console(width=100).print(table)
