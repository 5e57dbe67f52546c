# SPDX-License-Identifier: Apache-2.0
"""The project folder: checked before it is written, replaced whole or not at all, and run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tte.cli.output import show
from tte.errors import TteError

if TYPE_CHECKING:
    from tte.board import Board
    from tte.build import Firmware
    from tte.data import Dataset


def check_model(model: Path) -> None:
    if not model.is_file():
        raise TteError(
            "the model does not exist", where=str(model), hint="give an .onnx or .tflite file"
        )


def check_output(output: Path) -> None:
    """Only an empty folder or an earlier project may be replaced."""
    from tte.device.run import PROGRAM_NAME, read_program

    if not os.path.lexists(output):
        return
    hint = "choose another folder with -o, or remove this one"
    if not output.is_dir():
        raise TteError("the output exists and is no folder", where=str(output), hint=hint)
    if output.resolve() == Path.cwd().resolve() or output.resolve() in Path.cwd().resolve().parents:
        raise TteError("the output is the current folder", where=str(output), hint=hint)
    if not any(output.iterdir()):
        return
    if not (output / PROGRAM_NAME).is_file():
        raise TteError(
            "the output folder holds something else", where=str(output),
            why="tte replaces only what it wrote itself", hint=hint,
        )  # fmt: skip
    read_program(output)


def write_project(
    program: Any, output: Path, board: Board, dataset: Dataset, compiler: str | None
) -> tuple[dict[str, Any], TteError | None]:
    """Writes and builds the project beside its place and moves it there when all went well.

    Where no compiler is installed the project is written all the same, and its error is returned:
    it can still be built elsewhere, or run on the host.
    """
    import json
    import shutil
    import tempfile

    from tte.build import build_firmware, find_compiler
    from tte.codegen.emit import emit_project
    from tte.device.run import PROGRAM_NAME, read_program
    from tte.emulate.robot import write_robot

    output = output.resolve()
    without: TteError | None = None
    firmware: Firmware | None = None
    try:
        found = find_compiler(board, compiler)
    except TteError as error:
        if compiler is not None:
            raise
        found, without = None, error
    folder: Path | None = None
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
        partial = folder / "new"
        partial.mkdir()
        emit_project(program, partial)
        manifest = read_program(partial)
        if compiler is not None and manifest.get("compiler") != compiler:
            manifest["compiler"] = compiler
            text = json.dumps(manifest, indent=1) + "\n"
            (partial / PROGRAM_NAME).write_text(text, encoding="utf-8")
        write_robot(partial, program, manifest, dataset)
        if found is not None:
            if board.is_bare_in_renode:
                build_firmware(partial, board, found, for_renode=True)
            firmware = build_firmware(partial, board, found)
        if output.is_dir():
            output.rename(folder / "old")
        try:
            partial.rename(output)
        except OSError:
            if (folder / "old").is_dir():
                (folder / "old").rename(output)
            raise
    except OSError as error:
        raise TteError(
            "the project cannot be written", where=str(output), why=error.strerror or str(error)
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return _compile_report(manifest, firmware), without


def _compile_report(manifest: dict[str, Any], firmware: Firmware | None) -> dict[str, Any]:
    from tte.report.schema import build_report, memory_section

    if firmware is None:
        return build_report(manifest, memory=memory_section(manifest))
    memory = memory_section(
        manifest, static_bytes=firmware.static_bytes, flash_bytes=firmware.flash_bytes
    )
    compiler = f"{firmware.compiler_name} {firmware.compiler_version}"
    return build_report(manifest, memory=memory, compiler=compiler)


def run_emulation(
    project: Path, dataset: Dataset, quiet: bool, json: Path | None, **options: Any
) -> None:
    """Runs, writes DIR/report.json, shows the report; status 130 where Ctrl-C cut it short."""
    from tte.device.run import wanted_steps
    from tte.emulate.run import emulate
    from tte.report.progress import ProgressBar
    from tte.report.schema import REPORT_NAME, write_json
    from tte.report.tables import console

    with ProgressBar(console(stderr=True), enabled=not quiet) as progress:
        report = emulate(project, dataset, progress=progress, **options)
    write_json(project / REPORT_NAME, report)
    show(report, json, quiet)
    wanted = wanted_steps(dataset, options.get("steps"), options.get("epochs"))
    if report["training"]["steps"] < wanted:
        raise KeyboardInterrupt
