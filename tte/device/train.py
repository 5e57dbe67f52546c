# SPDX-License-Identifier: Apache-2.0
"""Training on a real board, over its serial port.

The order of the samples is that of the board's step count, so a run that was interrupted goes on
where it stopped. Where the board restarts, training goes on from its last checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tte.build import current_firmware
from tte.data import Dataset, sample_order
from tte.device.client import Device, Hello
from tte.device.link import ConversationLost, Link, Stream
from tte.device.run import (
    Interrupts,
    Progress,
    Run,
    Silent,
    fitting,
    read_program,
    wanted_steps,
    with_schedule,
)
from tte.device.state import State, write_state
from tte.errors import TteError
from tte.report.schema import build_report, instructions_section, memory_section

HELLO_LIMIT_S = 10.0
MOST_RESTARTS = 5  # without a step in between


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What `tte train` can say. `steps` are those of this run or, with `resume`, all since the
    network's first state. `store`: so many samples are kept on the board, which then trains on
    them; `replay`: on those that it has. `fresh` forgets all training first."""

    steps: int | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    schedule: str | None = None
    seed: int | None = None
    resume: bool = False
    fresh: bool = False
    save: bool = True
    save_every: int | None = None
    test: bool = True
    store: int | None = None
    replay: bool = False


def open_board(stream: Stream, program: Mapping[str, Any]) -> tuple[Device, Hello]:
    """Greets the board at the other end of a stream."""
    device = Device(Link(stream), program)
    return device, device.hello(HELLO_LIMIT_S)


def train_on_board(
    project_dir: Path,
    dataset: Dataset,
    stream: Stream,
    options: TrainOptions,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], bool]:
    """Tests, trains, saves and tests again; the report, `tte-report/1`, and whether Ctrl-C cut the
    training short. The trained state is on the board and in DIR/state.bin afterwards.

    Ctrl-C ends the training after the current step, a second one the test afterwards.
    """
    program = with_schedule(read_program(project_dir), options.schedule)
    dataset = fitting(dataset, program)
    device, hello = open_board(stream, program)
    run = _BoardRun(project_dir, device, program, dataset, progress or Silent(), options, hello)
    with Interrupts() as interrupts:
        report, state = run.report(interrupts)
    write_state(project_dir, state)
    return report, interrupts.count > 0


class _BoardRun(Run):
    def __init__(
        self,
        project_dir: Path,
        device: Device,
        program: Mapping[str, Any],
        dataset: Dataset,
        progress: Progress,
        options: TrainOptions,
        hello: Hello,
    ) -> None:
        super().__init__(device, program, dataset, progress)
        self.project_dir = project_dir
        self.options = options
        self.hello = hello
        self.rate = options.learning_rate or float(program["learning_rate"])
        self.seed = program["seed"] if options.seed is None else options.seed
        # Of this run, or with --resume of all.
        self.steps = wanted_steps(self.dataset, options.steps, options.epochs)
        self.first_step = 0  # of the schedule
        self.keeps = options.store is not None or options.replay
        self.restarts = 0

    def report(self, interrupts: Interrupts) -> tuple[dict[str, Any], State]:
        device = self.device
        self.prepare()
        before = after = None
        if self.options.test:
            before = self.score("test before", lambda: interrupts.count > 0)
        inference = device.instructions() if before else None
        order = self.order()
        if self.keeps and not interrupts.count:
            self.store(lambda: interrupts.count > 0)
        losses = self.train(order, lambda: interrupts.count > 0)
        step = device.instructions() if losses else None
        if losses and self.options.save:
            self.save()
        if losses and interrupts.count:
            self.progress.note(
                f"stopped after {len(losses)} of {len(order)} steps, which the board keeps "
                "(--resume goes on)"
                + ("; now the test (Ctrl-C again skips it)" if self.options.test else "")
            )
        if losses and self.options.test:
            after = self.score("test after", lambda: interrupts.count > 1)
        state = device.state()
        firmware = current_firmware(self.project_dir)
        report = build_report(
            self.program,
            memory=memory_section(
                self.program,
                static_bytes=firmware.static_bytes if firmware else None,
                flash_bytes=firmware.flash_bytes if firmware else None,
                stack_bytes=device.stack_bytes(),
            ),
            instructions=instructions_section(inference, step),
            training=self.training(self.rate, losses, before, after),
            state_sha256=hashlib.sha256(state).hexdigest(),
        )
        return report, State(self.program["id"], device.steps, state)

    # ---- the board ------------------------------------------------------------------------

    def prepare(self) -> None:
        """The board is at rest, where it is to start, and has its settings."""
        left = self.device.metrics().run_steps
        if left:
            self.device.run(0)
            self.device.steps = self.device.metrics().steps
            self.progress.note(f"stopped the board's own training, {left} steps before its end")
        if self.options.fresh and (self.device.steps or self.hello.checkpoint):
            self.device.restart(forget=True)
            self.hello = self.greet()
        elif self.device.steps:
            self.progress.note(
                f"the board has trained {self.device.steps} steps; --fresh starts again"
            )
        if self.options.save and self.hello.checkpoint_slots == 0:
            self.progress.note("the board has no flash for a checkpoint: power off forgets")
        self.first_step = 0 if self.options.resume else self.device.steps
        self.set_learning_rate(self.rate, self.steps, self.first_step)

    def greet(self) -> Hello:
        """A hello to a board that restarts; the old conversation may still be refused."""
        try:
            return self.device.hello(HELLO_LIMIT_S)
        except ConversationLost:
            return self.device.hello(HELLO_LIMIT_S)

    def save(self) -> None:
        """A checkpoint, where there is room for one."""
        if self.hello.checkpoint_slots:
            self.device.save()

    def order(self) -> NDArray[np.int64]:
        """The samples of the steps to come."""
        first = self.device.steps
        count = max(0, self.steps - first) if self.options.resume else self.steps
        return sample_order(len(self.dataset.x_train), count, self.seed, first)

    def store(self, stop: Callable[[], bool]) -> None:
        """Puts samples into the board's storage, unless it is to train on what it has."""
        if self.options.replay:
            count = self.device.metrics().samples
            if not count:
                raise TteError(
                    "the board has no stored samples", hint="--store N puts N samples on it"
                )
            self.progress.note(f"training on {count} stored samples")
            return
        wanted = self.options.store or 0
        room = self.hello.sample_capacity
        if wanted > room:
            raise TteError(
                f"the board has no room for {wanted} samples",
                why=f"{room} samples fit into its storage",
                hint=f"--store {room}" if room else "train without --store",
            )
        kept = sample_order(len(self.dataset.x_train), wanted, self.seed)
        self.device.clear()
        self.progress.phase("storing samples", wanted)
        for index in kept.tolist():
            if stop():
                break
            self.device.store(*self.sample(index))
            self.progress.advance()

    # ---- steps ----------------------------------------------------------------------------

    def train(self, order: NDArray[np.int64], stop: Callable[[], bool]) -> list[float]:
        """One loss per step, also where the board restarts in between."""
        first = self.device.steps
        losses: list[float] = []
        self.progress.phase("training", len(order))
        while len(losses) < len(order) and not stop():
            try:
                losses.append(self.stored_step() if self.keeps else self.step(order[len(losses)]))
            except ConversationLost:
                self.recover(first)
                del losses[self.device.steps - first :]
                continue
            self.restarts = 0
            self.progress.advance(losses[-1])
            every = self.options.save_every
            if every and self.device.steps % every == 0:
                self.save()
        return losses

    def stored_step(self) -> float:
        """One step on a stored sample; the answer comes when it is done."""
        self.device.run(1)
        metrics = self.device.metrics()
        while metrics.run_steps:
            metrics = self.device.metrics()
        self.device.steps = metrics.steps
        return metrics.loss

    def recover(self, first: int) -> None:
        """The board has restarted from its last checkpoint: training goes on from there."""
        self.restarts += 1
        self.hello = self.greet()
        if self.device.steps < first or self.restarts > MOST_RESTARTS:
            raise TteError(
                "the board restarts again and again"
                if self.restarts > MOST_RESTARTS
                else "the board was restarted and lost what it had trained before this run",
                why=f"it is at step {self.device.steps}, this run began at {first}",
                hint="look at its power supply; --save-every N keeps what is trained",
            )
        self.progress.note(f"the board was restarted; training goes on at step {self.device.steps}")
        self.set_learning_rate(self.rate, self.steps, self.first_step)


def run_alone(
    project_dir: Path,
    stream: Stream,
    steps: int,
    learning_rate: float | None = None,
    schedule: str | None = None,
) -> int:
    """Lets the board train on its stored samples with nobody listening; how many it has."""
    program = with_schedule(read_program(project_dir), schedule)
    device, hello = open_board(stream, program)
    if not hello.samples:
        raise TteError("the board has no stored samples", hint="--store N puts N samples on it")
    if device.metrics().run_steps:
        raise TteError(
            "the board is training on its stored samples already",
            hint="tte train without --detach stops it",
        )
    device.set_learning_rate(
        learning_rate or float(program["learning_rate"]),
        program["optimizer"]["schedule"],
        steps,
    )
    device.run(steps)
    return hello.samples
