# SPDX-License-Identifier: Apache-2.0
"""What a project holds for people who run Renode themselves: scripts, and a test whose answer the
integer reference computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tte.board import enforced_limits
from tte.codegen.renode import Session, project_files
from tte.data import Dataset, InputTransform
from tte.device.recording import record_training
from tte.device.run import fitting, read_target
from tte.ops.arith import to_factor
from tte.passes.differentiate import LABEL, LEARNING_RATE, LOSS, TARGET
from tte.program import Program
from tte.reference import Interpreter
from tte.training import target_values

STEPS = 2


def write_robot(
    project_dir: Path, program: Program, manifest: dict[str, Any], dataset: Dataset
) -> None:
    """Writes emulate.robot and renode/, where Renode runs the board."""
    board = program.board
    if "renode" not in board.emulators:
        return
    limits = enforced_limits(
        board,
        program.sram_limit_bytes,
        program.flash_limit_bytes,
        board.stack_reserve_bytes,
        program.trainable_bytes,
    )
    session = _session(program, manifest, dataset)
    files = project_files(board, limits, program.flash_limit_bytes, session)
    for name, text in files.items():
        path = project_dir / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="ascii")


def _session(program: Program, manifest: dict[str, Any], dataset: Dataset) -> Session:
    """The first training samples, one step with each."""
    dataset = fitting(dataset, manifest)
    spec = program.input
    transform = InputTransform(spec.scale, spec.zero_point, spec.mean, spec.std)
    target, values = read_target(manifest), target_values(dataset, "train", transform)
    samples = [
        (transform.quantize(dataset.x_train[i]), target.encode(values[i : i + 1]))
        for i in range(min(STEPS, len(values)))
    ]
    loss = _reference_loss(program, target.kind, samples)
    return Session(
        requests=record_training(manifest, samples, program.learning_rate),
        loss=loss,
        loss_scale=float(manifest["loss"]["scale"]),
    )


def _reference_loss(
    program: Program, kind: str, samples: list[tuple[NDArray[Any], NDArray[Any]]]
) -> int:
    graph = program.graph
    interpreter = Interpreter(graph)
    rate = np.asarray(to_factor(program.learning_rate), np.int64).astype(np.int32)
    loss = 0
    for sample, target in samples:
        feeds = {
            graph.inputs[0]: sample.reshape(1, *graph[graph.inputs[0]].type.shape[1:]),
            LEARNING_RATE: rate,
        }
        if kind == "label":
            feeds[LABEL] = target.astype(np.int32).reshape(1)
        elif kind != "input":
            feeds[TARGET] = target.reshape(graph[TARGET].type.shape)
        loss = int(interpreter.run(feeds)[LOSS].reshape(-1)[0])
    return loss
