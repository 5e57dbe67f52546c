# SPDX-License-Identifier: Apache-2.0
"""One run in an emulator: accuracy, training steps, accuracy again, and what it took."""

from __future__ import annotations

import hashlib
import json
import math
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tte.board import load_board
from tte.build import Firmware, build_firmware, find_compiler
from tte.data import Dataset, InputTransform, check_against, sample_order
from tte.emulate.metrics import Metric, Score
from tte.emulate.session import OpCounts, Session, open_session
from tte.errors import TteError
from tte.report.schema import (
    build_report,
    instructions_section,
    memory_section,
    training_section,
)
from tte.training import Target, choose_loss, fit_targets, target_values

PROGRAM_NAME = "program.json"
PROGRAM_SCHEMA = "tte-program/1"
DEFAULT_EMULATOR = "unicorn"


class Progress(Protocol):
    """Who is told how far a run is."""

    def phase(self, title: str, total: int) -> None: ...

    def advance(self, loss: float | None = None) -> None: ...

    def note(self, text: str) -> None: ...


class Silent:
    """Nobody."""

    def phase(self, title: str, total: int) -> None:
        pass

    def advance(self, loss: float | None = None) -> None:
        pass

    def note(self, text: str) -> None:
        pass


def emulate(
    project_dir: Path,
    dataset: Dataset,
    emulator: str = DEFAULT_EMULATOR,
    *,
    steps: int | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    compiler: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Trains `steps` steps (default: one epoch) in an emulator; the report, `tte-report/1`.

    Ctrl-C ends the training after the current step and the report tells the steps done; a second
    one skips the accuracy afterwards too.
    """
    program = read_program(project_dir)
    dataset = _fitting(dataset, program)
    rate = float(program["learning_rate"]) if learning_rate is None else learning_rate
    count = steps if steps is not None else (epochs or 1) * len(dataset.x_train)
    order = sample_order(len(dataset.x_train), count, program["seed"] if seed is None else seed)
    firmware = None
    if emulator != "host":
        board = load_board(program["board"])
        found = find_compiler(board, compiler or program.get("compiler"))
        firmware = build_firmware(project_dir, board, found)
    with open_session(emulator, project_dir, program, firmware) as session:
        run = _Run(session, program, dataset, progress or Silent())
        return run.report(order, rate, firmware)


def read_program(project_dir: Path) -> dict[str, Any]:
    """The program.json of a compiled project."""
    path = project_dir / PROGRAM_NAME
    hint = f"tte compile MODEL --board BOARD --data DATA -o {project_dir} writes a project"
    try:
        program = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TteError("this folder is no compiled project", where=str(path), hint=hint) from error
    except (OSError, ValueError, RecursionError) as error:
        raise TteError(
            "the project's description cannot be read", where=str(path), why=str(error), hint=hint
        ) from error
    if not isinstance(program, dict) or program.get("schema") != PROGRAM_SCHEMA:
        raise TteError(
            "the project was not written by this version of tte",
            where=str(path),
            why=f"its schema is not {PROGRAM_SCHEMA}",
            hint=hint,
        )
    return program


def read_target(program: Mapping[str, Any]) -> Target:
    """How the targets of a program are written."""
    entry = program["target"]
    return Target(entry["kind"], float(entry["scale"]), float(entry["offset"]))


class _Run:
    def __init__(
        self,
        session: Session,
        program: Mapping[str, Any],
        dataset: Dataset,
        progress: Progress,
    ) -> None:
        self.session, self.program, self.dataset, self.progress = (
            session, program, dataset, progress,
        )  # fmt: skip
        entry = program["input"]
        self.transform = InputTransform(
            entry["scale"], entry["zero_point"], tuple(entry["mean"]), tuple(entry["std"])
        )
        self.target = read_target(program)

    def report(
        self, order: NDArray[np.int64], rate: float, firmware: Firmware | None
    ) -> dict[str, Any]:
        session = self.session
        session.set_learning_rate(rate)
        with _Interrupts() as interrupts:
            before = self.score("test before", lambda: interrupts.count > 0)
            inference = self.counted(lambda: self.infer(0))
            losses, step = self.train(order, lambda: interrupts.count > 0)
            after = None
            if losses:
                if interrupts.count:
                    self.progress.note(
                        f"stopped after {len(losses)} of {len(order)} steps; now the test "
                        "(Ctrl-C again skips it)"
                    )
                after = self.score("test after", lambda: interrupts.count > 1)
            state = session.state()
            saturations = session.saturations()
            stack_bytes = session.stack_bytes()
        names = self.program["saturations"]
        return build_report(
            self.program,
            compiler=f"{firmware.compiler_name} {firmware.compiler_version}" if firmware else None,
            emulator=session.emulator_name,
            emulator_version=session.emulator_version,
            memory=memory_section(
                self.program,
                static_bytes=firmware.static_bytes if firmware else None,
                flash_bytes=firmware.flash_bytes if firmware else None,
                stack_bytes=stack_bytes,
            ),
            instructions=self.instructions(inference, step),
            training=training_section(
                steps=len(losses),
                learning_rate=rate,
                loss=losses,
                accuracy_before=before.accuracy if before else None,
                accuracy_after=after.accuracy if after else None,
                metric={
                    "name": Metric(self.program).name,
                    "before": before.value if before else None,
                    "after": after.value if after else None,
                },
                saturations=dict(zip(names, saturations, strict=True)),
            ),
            state_sha256=hashlib.sha256(state).hexdigest(),
        )

    def infer(self, index: int) -> NDArray[Any]:
        """The raw output for a test sample."""
        return self.session.infer(self.transform.quantize(self.dataset.x_test[index]))

    def score(self, title: str, stop: Callable[[], bool]) -> Score | None:
        """What the outputs of the test samples are worth; None when stopped."""
        metric = Metric(self.program)
        targets = target_values(self.dataset, "test", self.transform)
        self.progress.phase(title, len(targets))
        for index, target in enumerate(targets):
            if stop():
                return None
            metric.add(self.infer(index), target)
            self.progress.advance()
        return metric.score()

    def train(
        self, order: NDArray[np.int64], stop: Callable[[], bool]
    ) -> tuple[list[float], OpCounts | int | None]:
        """One loss per step, and the instructions of the first step."""
        losses: list[float] = []
        counts: OpCounts | int | None = None
        x, y = self.dataset.x_train, target_values(self.dataset, "train", self.transform)
        self.progress.phase("training", len(order))
        for index in order.tolist():
            if stop():
                break
            sample, target = (
                self.transform.quantize(x[index]),
                self.target.encode(y[index : index + 1]),
            )

            def step(sample: NDArray[np.int8] = sample, target: NDArray[Any] = target) -> None:
                losses.append(self.session.train(sample, target))

            if losses:
                step()
            else:
                counts = self.counted(step)
            self.progress.advance(losses[-1])
        return losses, counts

    def counted(self, command: Callable[[], object]) -> OpCounts | int | None:
        """Runs `command` once and counts its instructions as well as the emulator can."""
        counts = self.session.count_ops(command)
        if counts is not None:
            return counts
        command()
        return self.session.instructions()

    def instructions(
        self, inference: OpCounts | int | None, step: OpCounts | int | None
    ) -> dict[str, Any]:
        by_op = []
        if isinstance(step, OpCounts):
            by_op = [
                {"op": op["op"], "kernel": op["kernel"], "macs": op["macs"], "instructions": count}
                for op, count in zip(self.program["ops"], step.by_op, strict=True)
            ]
        return instructions_section(_total(inference), _total(step), by_op)


def _total(counts: OpCounts | int | None) -> int | None:
    return counts.total if isinstance(counts, OpCounts) else counts


def _fitting(dataset: Dataset, program: Mapping[str, Any]) -> Dataset:
    """The data in the program's shapes; an error where its classes are others."""
    dataset = check_against(dataset, program["input"]["shape"])
    loss, shape = program["loss"]["name"], tuple(program["output"]["shape"])
    choose_loss(dataset, math.prod(shape), "", loss)
    if dataset.is_autoencoder != (program["target"]["kind"] == "input"):
        raise TteError(
            "the data's targets are not of the kind that the project was compiled for",
            why="the project's samples are their own targets"
            if not dataset.is_autoencoder
            else "the data has no targets",
            hint="compile the model again with this data",
        )
    dataset = fit_targets(dataset, loss, shape)
    known = tuple(program["class_names"])[: dataset.classes]
    numbered = tuple(str(i) for i in range(dataset.classes))
    if known != dataset.class_names and numbered not in (known, dataset.class_names):
        differing = next(
            i for i, name in enumerate(dataset.class_names) if name not in known[i : i + 1]
        )
        raise TteError(
            "the data's classes are not those that the project was compiled for",
            where=f"class {differing}",
            why=f"the data calls it {dataset.class_names[differing]!r}, the project "
            f"{known[differing] if differing < len(known) else 'has no such class'!r}",
            hint="compile the model again with this data",
        )
    return dataset


class _Interrupts:
    """Counts Ctrl-C, so that no command to the firmware is cut in two; the third one is raised."""

    def __init__(self) -> None:
        self.count = 0
        self._previous: Any = None

    def __enter__(self) -> _Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._on_interrupt)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 2:
            raise KeyboardInterrupt
