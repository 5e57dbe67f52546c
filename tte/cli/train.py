# SPDX-License-Identifier: Apache-2.0
"""tte train"""

from __future__ import annotations

from typing import Annotated

import typer

from tte.cli.options import (
    Baud,
    Data,
    Epochs,
    Json,
    LearningRate,
    LrSchedule,
    Project,
    Quiet,
    SampleSeed,
    Steps,
    exclude,
)
from tte.cli.output import name_of, show
from tte.errors import UsageError

Port = Annotated[
    str, typer.Option("--port", metavar="PORT", help="/dev/ttyACM0, COM3, or what serve prints.")
]


def train_command(
    project: Project,
    port: Port,
    data: Data,
    baud: Baud = None,
    steps: Steps = None,
    epochs: Epochs = None,
    learning_rate: LearningRate = None,
    schedule: LrSchedule = None,
    seed: SampleSeed = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Count the steps that the board has trained already.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget all training first, checkpoints too.")
    ] = False,
    save: Annotated[
        bool, typer.Option("--save/--no-save", help="A checkpoint in the board's flash at the end.")
    ] = True,
    save_every: Annotated[
        int | None, typer.Option("--save-every", min=1, metavar="N", help="And every N steps.")
    ] = None,
    test: Annotated[
        bool, typer.Option("--test/--no-test", help="Measure the accuracy before and after.")
    ] = True,
    store: Annotated[
        int | None,
        typer.Option(
            "--store", min=1, metavar="N", help="Keep N samples on the board and train on them."
        ),
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Train on the samples that the board keeps.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="With --replay: let the board train alone.")
    ] = False,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Train on a board, over its serial port, and report accuracy."""
    exclude(("--steps", steps), ("--epochs", epochs))
    exclude(("--resume", resume), ("--fresh", fresh))
    exclude(("--store", store), ("--replay", replay))
    if detach and not (replay and steps):
        raise UsageError("--detach needs --replay and --steps", hint="--replay --steps N --detach")
    from tte.data import load_dataset
    from tte.device.port import SerialStream, baud_of
    from tte.device.run import read_program
    from tte.device.train import TrainOptions, run_alone, train_on_board
    from tte.report.progress import ProgressBar
    from tte.report.schema import REPORT_NAME, write_json
    from tte.report.tables import console

    baud = baud or baud_of(read_program(project))
    if detach:
        with SerialStream(port, baud) as stream:
            samples = run_alone(project, stream, steps or 1, learning_rate, name_of(schedule))
        if not quiet:
            print(f"the board trains {steps} steps on its {samples} samples, alone")
        return
    dataset = load_dataset(data)
    options = TrainOptions(
        steps,
        epochs,
        learning_rate,
        name_of(schedule),
        seed,
        resume,
        fresh,
        save,
        save_every,
        test,
        store,
        replay,
    )
    with (
        SerialStream(port, baud) as stream,
        ProgressBar(console(stderr=True), enabled=not quiet) as progress,
    ):
        report, stopped = train_on_board(project, dataset, stream, options, progress)
    write_json(project / REPORT_NAME, report)
    show(report, json, quiet)
    if stopped:
        raise KeyboardInterrupt
