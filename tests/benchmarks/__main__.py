# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.benchmarks [BENCHMARK]`: the numbers of the README and of docs/performance.md.

    network    SRAM, flash and instructions of a training step on both emulated boards
    layers     instructions per multiplication of every layer of that step, forward and backward,
               what is alive at the peak of memory, and plots of both
    memory     arena and lower bound of three networks with all their published updates
    gradients  cosines of the integer gradients with a floating-point implementation
    accuracy   3000 steps on the host, three seeds, two photo data sets (half an hour)
    quantisation  float and int8 scores of trained models, for docs/models.md (ten minutes)
    costs      fits tte/search/cost_table.py to instructions counted by unicorn (minutes)
    search     found updates against published ones at equal SRAM (hours)
    all        everything but accuracy, quantisation, costs and search

Needs the models and data sets of ../shared. Everything goes through the command line, as a user
would run it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.costs import costs
from tests.benchmarks.search import search

SHARED = Path(__file__).resolve().parents[3] / "shared"
MODEL = SHARED / "models" / "mcunet-5fps-int8-qdq.onnx"
BOARDS = ("mps2-an386", "mps2-an500")
console = Console(width=100)


def update(name: str) -> Path:
    """A published update scheme of the model."""
    return SHARED / "models" / "updates" / f"mcunet-5fps-{name}.json"


def tte(*arguments: object) -> None:
    """Runs the command line."""
    subprocess.run([sys.executable, "-m", "tte", *map(str, arguments)], check=True)


def compile_to(
    folder: Path, board: str, data: str, classes: int, scheme: str, *more: object
) -> float:
    """Compiles the model; returns seconds."""
    start = time.perf_counter()
    tte(
        "compile", MODEL, "--board", board, "--data", SHARED / "data" / data,
        "--classes", classes, "--update", update(scheme), "-o", folder, "--quiet", *more,
    )  # fmt: skip
    return time.perf_counter() - start


def emulate(folder: Path, data: str, *more: object) -> dict[str, Any]:
    """Runs the project and returns its report."""
    report = folder.with_suffix(".json")
    tte("emulate", folder, "--data", SHARED / "data" / data, "--json", report, "--quiet", *more)
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


def network(scratch: Path) -> None:
    """The 49kb scheme with ten classes on both boards."""
    table = Table(title="mcunet-5fps, 128x128x3, update 49kb, 10 classes")
    for column in ("board", "SRAM", "flash", "stack", "inference", "training step", "compile, s"):
        table.add_column(column, justify="right")
    table.caption = "bytes, instructions; SRAM is static data and the stack's high-water mark"
    for board in BOARDS:
        folder = scratch / board
        seconds = compile_to(folder, board, "flowers5_128", 10, "49kb")
        report = emulate(folder, "flowers5_128", "--steps", 1, "--emulator", "qemu")
        memory, counts = report["memory"], report["instructions"]
        table.add_row(
            board,
            *(f"{memory[f'{key}_bytes']:,}" for key in ("sram", "flash", "stack")),
            f"{counts['inference']:,}",
            f"{counts['train_step']:,}",
            f"{seconds:.1f}",
        )
    console.print(table)


def layers(scratch: Path) -> None:
    """Every kernel call of one training step on the M7, counted by unicorn."""
    from tte.board import load_board
    from tte.build import build_firmware, find_compiler
    from tte.data import InputTransform, load_dataset
    from tte.emulate.session import open_session
    from tte.report.plots import write_plots
    from tte.report.tables import peak_table, streams_table

    folder = scratch / "layers"
    plan = scratch / "plan.json"
    compile_to(folder, BOARDS[1], "flowers5_128", 10, "49kb", "--json", plan)
    program = json.loads((folder / "program.json").read_text(encoding="utf-8"))
    board = load_board(BOARDS[1])
    firmware = build_firmware(folder, board, find_compiler(board))
    data, entry = load_dataset(SHARED / "data" / "flowers5_128"), program["input"]
    x = InputTransform(entry["scale"], entry["zero_point"]).quantize(data.x_train[0])
    with open_session("unicorn", folder, program, firmware) as session:
        counts = session.count_ops(lambda: session.train(x, int(data.y_train[0])))
    assert counts is not None
    table = Table(title=f"one training step, {BOARDS[1]}, {counts.total:,} instructions")
    table.add_column("op")
    table.add_column("kernel")
    for column in ("MACs", "instructions", "per MAC", "share"):
        table.add_column(column, justify="right")
    for op, count in zip(program["ops"], counts.by_op, strict=True):
        macs = op["macs"]
        ratio = f"{count / macs:.2f}" if macs else ""
        share = f"{100 * count / counts.total:.1f} %"
        kernel = op["kernel"].removeprefix("tte_")
        table.add_row(op["op"], kernel, f"{macs:,}" if macs else "", f"{count:,}", ratio, share)
    report = json.loads(plan.read_text(encoding="utf-8"))
    report["instructions"]["by_op"] = [
        {"op": op["op"], "instructions": count}
        for op, count in zip(program["ops"], counts.by_op, strict=True)
    ]
    console.print(table, peak_table(report), streams_table(report))
    for plot in write_plots(report, scratch):
        console.print(f"plotted: {plot}")


def memory(scratch: Path) -> None:
    """The largest sum of live bytes, and what the planner makes of it."""
    from tests.passes.test_published_updates import CASES, chained, training_graph
    from tte.ir import Role
    from tte.passes.memory import plan_memory
    from tte.passes.schedule import schedule

    table = Table(title="arena of a training step, bytes")
    table.add_column("network")
    table.add_column("update")
    for column in ("whole maps", "streamed: bound", "streamed: arena", "trained", "chains"):
        table.add_column(column, justify="right")
    for net, scheme in CASES:
        graph = training_graph(SHARED / "models", net, scheme)
        whole = plan_memory(*schedule(graph))
        streamed, order = schedule(chained(graph))
        plan = plan_memory(streamed, order)
        trained = sum(
            tensor.type.size_bytes
            for tensor in streamed.tensors.values()
            if tensor.role is Role.PARAMETER and tensor.stored_in is None
        )
        chains = sum(op.kind == "chain" for op in streamed.ops)
        sizes = (whole.arena_bytes, plan.lower_bound_bytes, plan.arena_bytes, trained, chains)
        table.add_row(net, scheme, *(f"{size:,}" for size in sizes))
    console.print(table)


def gradients(scratch: Path) -> None:
    """Every trained layer of the 99kb scheme."""
    from tests.golden import gradient_cosines
    from tte.data import load_dataset

    samples = load_dataset(SHARED / "data" / "person_128").x_train[:64]
    table = Table(title="cosine of integer and floating-point gradients, mcunet-5fps, 99kb")
    for column in ("layer", "gradient", "same activations", "end to end"):
        table.add_column(column)
    same = gradient_cosines(SHARED / "models", samples, teacher=True)
    free = gradient_cosines(SHARED / "models", samples, teacher=False)
    for a, b in zip(same, free, strict=True):
        table.add_row(a.layer, a.param, f"{a.cosine:.4f}", f"{b.cosine:.4f}")
    console.print(table)


def accuracy(scratch: Path) -> None:
    """3000 steps, batch 1, default learning rate, classes from the data, seeds 0, 1, 2."""
    table = Table(title="mcunet-5fps, update 99kb, 3000 steps, batch 1, host")
    for column in ("data", "seed", "learning rate", "before", "after", "saturations", "seconds"):
        table.add_column(column, justify="right")
    for data, classes in (("flowers5_128", 5), ("person_128", 2)):
        results = []
        for seed in range(3):
            folder = scratch / f"{data}-{seed}"
            compile_to(folder, BOARDS[1], data, classes, "99kb", "--sram", "512KiB", "--seed", seed)
            start = time.perf_counter()
            run = emulate(
                folder, data, "--steps", 3000, "--emulator", "host", "--seed", seed
            )["training"]  # fmt: skip
            results.append(run["accuracy_after"])
            table.add_row(
                data,
                str(seed),
                f"{run['learning_rate']:g}",
                f"{run['accuracy_before']:.3f}",
                f"{run['accuracy_after']:.3f}",
                str(sum(run["saturations"].values())),
                f"{time.perf_counter() - start:.0f}",
            )
            console.print(f"{data} seed {seed}: {results[-1]:.4f}")
        table.add_row(data, "mean", "", "", f"{sum(results) / len(results):.4f}", "", "")
    console.print(table)


def quantisation(scratch: Path) -> None:
    """Every trained model, as floats and as integers."""
    from tests.benchmarks.quantisation import quantisation

    quantisation(scratch)


BENCHMARKS = (network, layers, memory, gradients, accuracy, quantisation, costs, search)
SLOW = (accuracy, quantisation, costs, search)


def main() -> None:
    """Runs one benchmark, or the quick ones."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "what",
        nargs="?",
        default="all",
        choices=["all", *(benchmark.__name__ for benchmark in BENCHMARKS)],
    )
    parser.add_argument("--keep", type=Path, help="folder for projects, reports and plots")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for benchmark in BENCHMARKS:
            if args.what == benchmark.__name__ or (args.what == "all" and benchmark not in SLOW):
                benchmark(folder)


if __name__ == "__main__":
    main()
