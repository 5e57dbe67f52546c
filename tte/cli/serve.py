# SPDX-License-Identifier: Apache-2.0
"""tte serve"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tte.cli.options import Baud, Compiler, EmulatorName, Project, Quiet
from tte.cli.output import name_of


def serve_command(
    project: Project,
    emulator: Annotated[EmulatorName, typer.Option("--emulator")] = EmulatorName.unicorn,
    baud: Baud = None,
    compiler: Compiler = None,
    quiet: Quiet = False,
) -> None:
    """Put an emulated board behind a port for `tte train --port`."""
    import contextlib
    import signal

    from tte.device.port import baud_of
    from tte.device.run import read_program
    from tte.emulate.serve import open_transport, pseudo_terminal, serve

    program = read_program(project)
    baud = baud or baud_of(program)
    ended = False

    def end(number: int, frame: object) -> None:
        nonlocal ended
        ended = True

    with contextlib.ExitStack() as stack:
        terminal, path = stack.enter_context(pseudo_terminal())
        transport = open_transport(emulator.value, project, program, name_of(compiler))
        stack.callback(transport.close)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)
        print(path, flush=True)
        if not quiet:
            print(
                f"an emulated {program['board']} at {baud:,} baud; Ctrl-C ends it", file=sys.stderr
            )
        serve(transport, terminal, baud, lambda: ended)
