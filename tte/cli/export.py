# SPDX-License-Identifier: Apache-2.0
"""tte export"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tte.cli.options import Project
from tte.errors import TteError


def export_command(
    project: Project,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="LIB", help="The folder to write: a new one.")
    ],
) -> None:
    """Write the network of a project as an Arduino library."""
    from tte.codegen.arduino import arduino_library
    from tte.device.run import read_program

    files = arduino_library(project, read_program(project))
    try:
        output.mkdir(parents=True)
        for name, text in files.items():
            path = output / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise TteError(
            "the library cannot be written",
            where=str(output),
            why=error.strerror or str(error),
            hint="-o names a folder that does not exist yet",
        ) from error
    typer.echo(f"{output}: {len(files)} files")
