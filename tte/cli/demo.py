# SPDX-License-Identifier: Apache-2.0
"""tte demo"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tte.cli.doctor import package_version
from tte.cli.options import BoardName, Compiler, EmulatorName, Json, Quiet
from tte.cli.output import name_of
from tte.cli.project import check_output, run_emulation, write_project
from tte.errors import TteError

UPDATE = "full"


def demo_command(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="The project folder to write.")
    ] = Path("demo"),
    board: BoardName = "mps2-an386",
    emulator: Annotated[EmulatorName, typer.Option("--emulator")] = EmulatorName.unicorn,
    compiler: Compiler = None,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a digit classifier to a changed sensor, in 2 minutes.

    From a source checkout: the model is in its examples."""
    import contextlib
    import io
    import runpy
    import tempfile

    from tte.board import load_board
    from tte.data import load_dataset
    from tte.pipeline import CompileOptions, compile_model
    from tte.resources import examples_dir

    example = examples_dir() / "digits"
    if not package_version("scikit-learn"):
        raise TteError("the demo's digits come with scikit-learn", hint="pip install scikit-learn")
    check_output(output)
    with tempfile.TemporaryDirectory(prefix="tte-") as folder:
        file = Path(folder) / "digits_shifted.npz"
        with contextlib.redirect_stdout(io.StringIO()):
            runpy.run_path(str(example / "make_data.py"))["main"](file)
        dataset = load_dataset(file)
    options = CompileOptions(board=load_board(board), update=UPDATE)
    program = compile_model(example / "digits_cnn.onnx", dataset, options)
    write_project(program, output, options.board, dataset, name_of(compiler))
    run_emulation(output, dataset, quiet, json, emulator=emulator.value, compiler=name_of(compiler))
