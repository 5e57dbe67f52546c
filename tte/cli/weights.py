# SPDX-License-Identifier: Apache-2.0
"""tte weights pull, tte weights push"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tte.cli.app import guarded
from tte.cli.options import Baud, Project, Quiet
from tte.files import write_whole

weights_app = typer.Typer(
    help="Trained weights, out of a device into an ONNX file, and back.", no_args_is_help=True
)
Port = Annotated[
    str | None,
    typer.Option(
        "--port", metavar="PORT", help="A board; without it the state that the last run left."
    ),
]


@weights_app.command("pull")
@guarded
def pull_command(
    project: Project,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="NEW.onnx", help="The file to write.")
    ],
    port: Port = None,
    baud: Baud = None,
    quiet: Quiet = False,
) -> None:
    """Write a QDQ model with the trained weights."""
    from tte.device.port import SerialStream, baud_of
    from tte.device.run import read_program
    from tte.device.state import State, read_state
    from tte.device.train import open_board
    from tte.device.weights import pull

    program = read_program(project)
    if port is None:
        state = read_state(project, program)
    else:
        with SerialStream(port, baud or baud_of(program)) as stream:
            device, hello = open_board(stream, program)
            state = State(hello.model_id, hello.steps, device.state())
    write_whole(output, pull(project, program, state), "the model")
    if not quiet:
        print(f"{output}: {len(program['weights'])} trained tensors after {state.steps} steps")


@weights_app.command("push")
@guarded
def push_command(
    project: Project,
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="A file that pull wrote.")],
    port: Port = None,
    baud: Baud = None,
    save: Annotated[
        bool, typer.Option("--save/--no-save", help="A checkpoint in the board's flash.")
    ] = True,
    quiet: Quiet = False,
) -> None:
    """Put a model's weights into a board or a project."""
    from tte.device.port import SerialStream, baud_of
    from tte.device.run import read_program
    from tte.device.state import STATE_NAME, write_state
    from tte.device.train import open_board
    from tte.device.weights import push

    program = read_program(project)
    state = push(project, program, model)
    if port is None:
        write_state(project, state)
        where = str(project / STATE_NAME)
    else:
        with SerialStream(port, baud or baud_of(program)) as stream:
            device, hello = open_board(stream, program)
            device.set_state(state.data)
            if save and hello.checkpoint_slots:
                device.save()
        where = port
    if not quiet:
        print(f"{where}: {len(program['weights'])} trained tensors from {model}")
