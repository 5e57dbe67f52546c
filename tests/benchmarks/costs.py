# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.benchmarks costs`: fits tte/search/cost_table.py to counted training steps."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from tte.board import load_board
from tte.codegen.emit import emit_project
from tte.data import Dataset
from tte.device.run import read_program
from tte.emulate.session import open_session
from tte.passes.update import plan_update
from tte.pipeline import CompileOptions, lower, prepare
from tte.program import Program
from tte.search.costs import Work, family, work

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
TABLE = ROOT / "tte" / "search" / "cost_table.py"
BOARDS = ("mps2-an386", "mps2-an385", "generic-m0plus")
PUBLISHED = ("mcunet-5fps-49kb", "mcunet-5fps-124kb", "mbv2-w0.35-99kb", "proxyless-w0.3-98kb")

Counted = list[tuple[Work, int]]


def programs(board: str, names: tuple[str, ...]) -> list[Program]:
    """The digits example trained whole, and published updates of photo networks."""
    rng = np.random.default_rng(0)

    def data(shape: tuple[int, ...], classes: int) -> Dataset:
        x = rng.integers(0, 256, (16, *shape)).astype(np.uint8)
        y = np.arange(16, dtype=np.int64) % classes
        return Dataset(x, y, x, y, tuple(map(str, range(classes))))

    options = CompileOptions(load_board(board), flash_bytes=4 << 20, sram_bytes=4 << 20)
    cases: list[tuple[Path, tuple[int, ...], str]] = [
        (ROOT / "examples" / "digits" / "digits_cnn.onnx", (16, 16, 1), spec)
        for spec in ("full", "bias:4")
    ]
    for name in names:
        model = SHARED / "models" / f"{name.rpartition('-')[0]}-int8-qdq.onnx"
        cases.append((model, (128, 128, 3), str(SHARED / "models" / "updates" / f"{name}.json")))
    made = []
    for model, shape, spec in cases:
        prepared = prepare(model, data(shape, 10), options)
        made.append(lower(prepared, plan_update(prepared.forward, spec), options))
    return made


def count(program: Program, folder: Path) -> Counted:
    """The exact instructions of each kernel call of one training step."""
    folder.mkdir(parents=True)
    emit_project(program, folder)
    x = np.random.default_rng(1).integers(-128, 128, program.input.shape).astype(np.int8)
    with open_session("unicorn", folder, read_program(folder), command_limit_s=600) as session:
        counts = session.count_ops(lambda: session.train(x, 1))
    assert counts is not None
    return list(zip(work(program.graph), counts.by_op, strict=True))


def fit(counted: Counted) -> dict[str, tuple[float, ...]]:
    """Coefficients that are not negative, of least relative error."""
    from scipy.optimize import nnls

    groups: dict[str, Counted] = defaultdict(list)
    for one, instructions in counted:
        groups[one.key].append((one, instructions))
        groups["any"].append((one, instructions))
    table = {}
    for kernel, cases in sorted(groups.items()):
        instructions = np.array([found for _, found in cases], float)
        # Large calls count most: a step is their sum.
        scale = instructions**-0.5
        rows = np.array([one.features for one, _ in cases]) * scale[:, None]
        solved, _ = nnls(rows, instructions * scale)
        table[kernel] = tuple(float(f"{value:.4g}") for value in solved)
    return table


def costs(scratch: Path) -> None:
    """Counts, fits, writes the table and says how far it is off."""
    lines = [
        "# SPDX-License-Identifier: Apache-2.0",
        '"""Instructions a call, a multiplication, an element read, an element written, by kernel.',
        "",
        'Fitted to counted training steps by `python -m tests.benchmarks costs`."""',
        "",
        "COSTS: dict[str, dict[str, tuple[float, float, float, float]]] = {",
    ]
    for board in BOARDS:
        names = PUBLISHED if board == BOARDS[0] else PUBLISHED[2:3]
        counted = []
        for index, program in enumerate(programs(board, names)):
            counted.append(count(program, scratch / board / str(index)))
            print(board, program.name, f"{sum(n for _, n in counted[-1]):,}", flush=True)
        table = fit([case for cases in counted for case in cases])
        for cases in counted:
            guess = sum(np.dot(table[one.key], one.features) for one, _ in cases)
            total = sum(n for _, n in cases)
            print(
                f"{board}: predicted {guess:,.0f} of {total:,} ({100 * guess / total - 100:+.1f} %)"
            )
        lines.append(f'    "{family(load_board(board))}": {{')
        lines += [f'        "{kernel}": {values},' for kernel, values in table.items()]
        lines.append("    },")
    TABLE.write_text("\n".join([*lines, "}"]) + "\n", encoding="utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", TABLE], check=True)
