# SPDX-License-Identifier: Apache-2.0
"""One run on a device, emulated or real: accuracy, training steps, accuracy again."""

from __future__ import annotations

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

from tte.data import Dataset, InputTransform, check_against
from tte.device.client import Device
from tte.device.metrics import Metric, Score
from tte.errors import TteError
from tte.report.schema import training_section
from tte.training import Target, choose_loss, fit_targets, target_values

PROGRAM_NAME = "program.json"
PROGRAM_SCHEMA = "tte-program/1"


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


def with_schedule(program: dict[str, Any], schedule: str | None) -> dict[str, Any]:
    """The program with a schedule of the learning rate other than its own, if one is given."""
    if schedule is None:
        return program
    return {**program, "optimizer": {**program["optimizer"], "schedule": schedule}}


def wanted_steps(dataset: Dataset, steps: int | None, epochs: int | None) -> int:
    """As many as are asked for; of neither, one epoch."""
    return (epochs or 1) * len(dataset.x_train) if steps is None else steps


class Run:
    """A device, its program and the data it is trained and tested with."""

    def __init__(
        self,
        device: Device,
        program: Mapping[str, Any],
        dataset: Dataset,
        progress: Progress,
    ) -> None:
        self.device, self.program, self.dataset, self.progress = (
            device, program, dataset, progress,
        )  # fmt: skip
        entry = program["input"]
        self.transform = InputTransform(
            entry["scale"], entry["zero_point"], tuple(entry["mean"]), tuple(entry["std"])
        )
        self.target = read_target(program)
        self.targets = target_values(dataset, "train", self.transform)

    def set_learning_rate(self, rate: float, steps: int, first_step: int | None = None) -> None:
        """By the program's schedule."""
        schedule = self.program["optimizer"]["schedule"]
        self.device.set_learning_rate(rate, schedule, steps, first_step)

    def infer(self, index: int) -> NDArray[Any]:
        """The raw output for a test sample."""
        return self.device.infer(self.transform.quantize(self.dataset.x_test[index]))

    def sample(self, index: int) -> tuple[NDArray[np.int8], NDArray[Any]]:
        """A training sample and its target, as the device takes them."""
        sample = self.transform.quantize(self.dataset.x_train[index])
        return sample, self.target.encode(self.targets[index : index + 1])

    def step(self, index: int) -> float:
        """One training step with a training sample; its loss."""
        return self.device.train(*self.sample(index))

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

    def train(self, order: NDArray[np.int64], stop: Callable[[], bool]) -> list[float]:
        """One loss per step."""
        losses: list[float] = []
        self.progress.phase("training", len(order))
        for index in order.tolist():
            if stop():
                break
            losses.append(self.step(index))
            self.progress.advance(losses[-1])
        return losses

    def training(
        self, rate: float, losses: list[float], before: Score | None, after: Score | None
    ) -> dict[str, Any]:
        """The report's section; asks the device for its saturations."""
        saturations = self.device.saturations()
        return training_section(
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
            saturations=dict(zip(self.program["saturations"], saturations, strict=True)),
        )


def fitting(dataset: Dataset, program: Mapping[str, Any]) -> Dataset:
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


class Interrupts:
    """Counts Ctrl-C, so that no command to the firmware is cut in two; the third one is raised."""

    def __init__(self) -> None:
        self.count = 0
        self._previous: Any = None

    def __enter__(self) -> Interrupts:
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
