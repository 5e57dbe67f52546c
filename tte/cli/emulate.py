# SPDX-License-Identifier: Apache-2.0
"""tte emulate"""

from __future__ import annotations

from typing import Annotated

import typer

from tte.cli.options import (
    Compiler,
    Data,
    EmulatorName,
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
from tte.cli.output import name_of
from tte.cli.project import run_emulation


def emulate_command(
    project: Project,
    data: Data,
    emulator: Annotated[EmulatorName, typer.Option("--emulator")] = EmulatorName.unicorn,
    steps: Steps = None,
    epochs: Epochs = None,
    learning_rate: LearningRate = None,
    schedule: LrSchedule = None,
    seed: SampleSeed = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Start from the state that the last run ended with.")
    ] = False,
    compiler: Compiler = None,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Train in an emulator; report accuracy, memory, instructions."""
    exclude(("--steps", steps), ("--epochs", epochs))
    from tte.data import load_dataset
    from tte.device.run import read_program

    read_program(project)
    run_emulation(
        project,
        load_dataset(data),
        quiet,
        json,
        emulator=emulator.value,
        steps=steps,
        epochs=epochs,
        learning_rate=learning_rate,
        schedule=name_of(schedule),
        seed=seed,
        compiler=name_of(compiler),
        resume=resume,
    )
