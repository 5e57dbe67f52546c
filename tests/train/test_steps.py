# SPDX-License-Identifier: Apache-2.0
"""N training steps of the generated C equal N steps of the oracle: trained state, losses, logits
and saturations, on every back end and with every compiler that is there."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.graphs import small_network, training_graph
from tte.board import load_board
from tte.build import build_firmware, find_compiler
from tte.codegen.emit import emit_project
from tte.emulate.session import open_session
from tte.errors import TteError
from tte.ir import Graph, TrainPlan
from tte.ops.arith import to_factor
from tte.ops.loss import LossAttrs
from tte.ops.window import hwc
from tte.passes.memory import plan_memory
from tte.passes.schedule import schedule
from tte.program import InputSpec, Program
from tte.reference import Interpreter
from tte.training import DEFAULT_LOSS, PLAIN_SGD, Loss, Optimizer

STEPS = 12
LEARNING_RATE = 0.02
NARROW = {
    "schema": "tte-update/1",
    "layers": {
        "b1.pw1": {"bias": True, "weight": 0.5},
        "b2.dw": {"bias": True, "weight": 0.4},
        "head": {"bias": True, "weight": 1.0},
    },
}


@dataclass(frozen=True)
class Run:
    """What a run leaves behind."""

    state: bytes
    losses: list[float]
    saturations: list[int]


def make_program(update: str, board: str) -> tuple[Program, Any, Any]:
    """A program of the small network, samples and labels."""
    return program_of(small_network(), update, board)


def program_of(
    network: Graph,
    update: str,
    board: str,
    optimizer: Optimizer = PLAIN_SGD,
    loss: Loss = DEFAULT_LOSS,
) -> tuple[Program, Any, Any]:
    """A program of a float graph, samples and targets."""
    graph, codes, targets = training_graph(network, update, optimizer=optimizer, loss=loss)
    ordered, order = schedule(graph)
    quant = ordered[ordered.inputs[0]].quant
    assert quant is not None
    height, width, channels = hwc(ordered[ordered.inputs[0]].type)
    program = Program(
        name="small",
        model_sha256="0" * 64,
        board=load_board(board),
        sram_limit_bytes=262144,
        flash_limit_bytes=1048576,
        input=InputSpec(
            (height, width, channels), quant.per_tensor_scale, quant.zero_point, (0.0,), (1.0,)
        ),
        class_names=("a", "b", "c", "d", "e"),
        learning_rate=LEARNING_RATE,
        seed=0,
        plan=TrainPlan(update, ()),
        graph=ordered,
        schedule=order,
        memory=plan_memory(ordered, order),
        loss=loss,
        optimizer=optimizer,
    )
    return program, codes, targets


def oracle(program: Program, codes: Any, targets: Any) -> Run:
    """A step for each of the samples, STEPS at most, in numpy."""
    interpreter = Interpreter(program.graph)
    rate = np.asarray(to_factor(program.learning_rate), np.int64).astype(np.int32)
    scale = next(op for op in program.graph.ops if isinstance(op.attrs, LossAttrs)).attrs.loss_scale
    losses = []
    for i in range(min(STEPS, len(codes))):
        name = "label" if program.loss.target.kind == "label" else "target"
        feeds = {name: targets[i : i + 1], "learning_rate": rate}
        feeds[program.graph.inputs[0]] = codes[i : i + 1]
        losses.append(float(interpreter.run(feeds)["loss"][0]) * scale)
    state = b"".join(interpreter.state[name].tobytes() for name in program.trained)
    return Run(state, losses, list(interpreter.saturations.values()))


def firmware_run(folder: Path, emulator: str, compiler: str, codes: Any, targets: Any) -> Run:
    """The same steps in an emulator."""
    manifest = json.loads((folder / "program.json").read_text(encoding="utf-8"))
    board = load_board(manifest["board"])
    try:
        found = None if emulator == "host" else find_compiler(board, compiler)
    except TteError as error:
        pytest.skip(error.what)
    firmware = None if found is None else build_firmware(folder, board, found)
    try:
        session = open_session(emulator, folder, manifest, firmware)
    except TteError as error:
        pytest.skip(error.what)
    with session:
        session.set_learning_rate(manifest["learning_rate"])
        losses = [session.train(codes[i], targets[i]) for i in range(min(STEPS, len(codes)))]
        return Run(session.state(), losses, session.saturations())


RUNS = [
    *((update, "unicorn", "mps2-an386", "gcc") for update in ("full", "last:4", "narrow", "head")),
    ("full", "host", "mps2-an386", "gcc"),
    ("narrow", "host", "mps2-an386", "gcc"),
    ("full", "unicorn", "mps2-an500", "gcc"),
    ("full", "unicorn", "mps2-an386", "zig"),
    ("narrow", "unicorn", "mps2-an500", "zig"),
    ("full", "qemu", "mps2-an386", "gcc"),
    ("narrow", "qemu", "mps2-an500", "gcc"),
    ("full", "qemu", "mps2-an500", "zig"),
    ("full", "qemu", "mps2-an385", "gcc"),
    ("full", "qemu", "mps2-an505", "gcc"),
    ("narrow", "unicorn", "mps2-an505", "zig"),
    ("full", "unicorn", "generic-m0plus", "gcc"),
    ("narrow", "unicorn", "generic-m0plus", "zig"),
]


@pytest.mark.parametrize(("update", "emulator", "board", "compiler"), RUNS)
def test_steps_equal_the_oracle(
    update: str, emulator: str, board: str, compiler: str, tmp_path: Path
) -> None:
    if update == "narrow":
        path = tmp_path / "narrow.json"
        path.write_text(json.dumps(NARROW), encoding="utf-8")
        update = str(path)
    program, codes, labels = make_program(update, board)
    project = tmp_path / "project"
    project.mkdir()
    emit_project(program, project)
    expected = oracle(program, codes, labels)
    found = firmware_run(project, emulator, compiler, codes, labels)
    assert found == expected
    assert len(set(expected.losses)) == STEPS


@pytest.mark.parametrize(
    ("update", "kinds", "taps"),
    [
        ("full", ("int8", "masked_int8", "grad"), ("3", "next_block", "near_3", "near_5_2")),
        ("head", ("int8",), ()),
    ],
)
def test_depthwise_kernels_of_other_shapes_are_not_linked(
    update: str, kinds: tuple[str, ...], taps: tuple[str, ...], tmp_path: Path
) -> None:
    program, _, _ = make_program(update, "mps2-an386")
    emit_project(program, tmp_path)
    try:
        compiler = find_compiler(program.board, "gcc")
    except TteError as error:
        pytest.skip(error.what)
    elf = build_firmware(tmp_path, program.board, compiler).elf_path.read_bytes()
    shapes = ("3x3_1", "5x5_2")
    expected = {f"tte_windows_{shape}_{kind}".encode() for shape in shapes for kind in kinds}
    assert set(re.findall(rb"tte_windows_\w+", elf)) == expected
    if taps:
        taps += ("split_channel", "split_four_channels")
    assert set(re.findall(rb"tte_taps_\w+", elf)) == {f"tte_taps_{name}".encode() for name in taps}


def test_same_program_same_bytes(tmp_path: Path) -> None:
    program, _, _ = make_program("last:2", "mps2-an386")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        emit_project(program, tmp_path / name)
    one = {p.relative_to(tmp_path / "one"): p.read_bytes() for p in (tmp_path / "one").rglob("*.*")}
    two = {p.relative_to(tmp_path / "two"): p.read_bytes() for p in (tmp_path / "two").rglob("*.*")}
    assert one == two
    assert not any(str(tmp_path).encode() in text for text in one.values())


def test_generated_c_is_clean_on_other_compilers(tmp_path: Path) -> None:
    if shutil.which("clang") is None:
        pytest.skip("clang is not installed")
    import subprocess

    program, _, _ = make_program("full", "mps2-an386")
    emit_project(program, tmp_path)
    for source in sorted(tmp_path.glob("src/*.c")):
        command = ["clang", "-std=c99", "-Weverything", "-Werror", "-pedantic", "-fsyntax-only"]
        quiet = ["declaration-after-statement", "unsafe-buffer-usage", "padded"]
        quiet += ["unknown-warning-option", "bad-function-cast", "cast-align"]
        flags = [f"-Wno-{name}" for name in quiet]
        include = [f"-I{tmp_path}/src", f"-I{tmp_path}/kernels"]
        if source.name == "main.c":
            continue
        result = subprocess.run(
            [*command, *flags, *include, str(source)], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
