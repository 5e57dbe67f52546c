# SPDX-License-Identifier: Apache-2.0
"""One run in an emulator: accuracy, training steps, accuracy again, and what it took."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tte.build import Firmware
from tte.data import Dataset, sample_order
from tte.device.run import (
    PROGRAM_NAME,
    Interrupts,
    Progress,
    Run,
    Silent,
    fitting,
    read_program,
    read_target,
    wanted_steps,
    with_schedule,
)
from tte.device.state import State, read_state, write_state
from tte.emulate.session import OpCounts, Session, build_for, open_session
from tte.report.schema import (
    build_report,
    instructions_section,
    memory_section,
)

__all__ = ["PROGRAM_NAME", "Progress", "Silent", "emulate", "read_program", "read_target"]

DEFAULT_EMULATOR = "unicorn"


def emulate(
    project_dir: Path,
    dataset: Dataset,
    emulator: str = DEFAULT_EMULATOR,
    *,
    steps: int | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    schedule: str | None = None,
    seed: int | None = None,
    compiler: str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Trains `steps` steps (default: one epoch) in an emulator; the report, `tte-report/1`. The
    trained state is in DIR/state.bin afterwards; `resume` starts from the one that is there.

    Ctrl-C ends the training after the current step and the report tells the steps done; a second
    one skips the accuracy afterwards too.
    """
    program = with_schedule(read_program(project_dir), schedule)
    dataset = fitting(dataset, program)
    rate = float(program["learning_rate"]) if learning_rate is None else learning_rate
    count = wanted_steps(dataset, steps, epochs)
    start = read_state(project_dir, program) if resume else State(program["id"], 0, b"")
    seed = program["seed"] if seed is None else seed
    order = sample_order(len(dataset.x_train), count, seed, start.steps)
    firmware = build_for(emulator, project_dir, program, compiler)
    with open_session(emulator, project_dir, program, firmware) as session:
        if resume:
            session.set_state(start.data)
        run = _Run(session, program, dataset, progress or Silent())
        report = run.report(order, rate, firmware)
        write_state(project_dir, State(program["id"], start.steps + session.steps, run.state))
        return report


class _Run(Run):
    def __init__(
        self,
        session: Session,
        program: Mapping[str, Any],
        dataset: Dataset,
        progress: Progress,
    ) -> None:
        super().__init__(session, program, dataset, progress)
        self.session = session
        self.steps = 0
        self.counted_step = 1  # the first one that moves the weights
        self.step_counts: OpCounts | int | None = None  # what it took
        self.state = b""  # at the end

    def report(
        self, order: NDArray[np.int64], rate: float, firmware: Firmware | None
    ) -> dict[str, Any]:
        session = self.session
        self.set_learning_rate(rate, len(order))
        self.counted_step = min(self.program["optimizer"]["batch"], len(order))
        with Interrupts() as interrupts:
            before = self.score("test before", lambda: interrupts.count > 0)
            inference = self.counted(lambda: self.infer(0))
            losses = self.train(order, lambda: interrupts.count > 0)
            after = None
            if losses:
                if interrupts.count:
                    self.progress.note(
                        f"stopped after {len(losses)} of {len(order)} steps; now the test "
                        "(Ctrl-C again skips it)"
                    )
                after = self.score("test after", lambda: interrupts.count > 1)
            training = self.training(rate, losses, before, after)
            self.state = session.state()
            stack_bytes = session.stack_bytes()
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
            instructions=self.instructions(inference, self.step_counts),
            training=training,
            state_sha256=hashlib.sha256(self.state).hexdigest(),
        )

    def step(self, index: int) -> float:
        """The first one that moves the weights is counted."""
        self.steps += 1
        if self.steps != self.counted_step:
            return super().step(index)
        sample, target = self.sample(index)
        losses: list[float] = []
        self.step_counts = self.counted(lambda: losses.append(self.session.train(sample, target)))
        return losses[0]

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
