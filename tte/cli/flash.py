# SPDX-License-Identifier: Apache-2.0
"""tte flash"""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from tte.cli.options import Compiler, Json, Project, Quiet
from tte.cli.output import name_of, to_stdout, write_json


def flash_command(
    project: Project,
    probe: Annotated[
        str, typer.Option("--probe", metavar="NAME", help="Its serial number, or a UF2 volume.")
    ] = "",
    tool: Annotated[
        str, typer.Option("--tool", metavar="TOOL", help="Default: the first that is there.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the commands and run nothing.")
    ] = False,
    compiler: Compiler = None,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Write the firmware to a board, and verify it."""
    from tte.board import load_board
    from tte.build import build_firmware, find_compiler
    from tte.device.flash import carry_out, make_plan
    from tte.device.run import read_program

    program = read_program(project)
    board = load_board(program["board"])
    plan = make_plan(board, tool, probe, dry=dry_run)
    talks = not quiet and not to_stdout(json)
    facts = {"board": board.name, "tool": plan.tool, "commands": plan.lines(), "verified": False}
    if dry_run:
        if talks:
            print(shlex.join(["cd", str(project / "build")]))
            print("\n".join(map(shlex.join, plan.lines())))
        write_json(facts, json)
        return
    found = find_compiler(board, name_of(compiler) or program.get("compiler"))
    firmware = build_firmware(project, board, found)

    def show(text: str) -> None:
        if not quiet:
            sys.stderr.write(text)
            sys.stderr.flush()

    facts["bytes"] = carry_out(plan, board, firmware.elf_path, show)
    facts["verified"] = True
    if talks:
        print(f"{board.name} runs the firmware: {facts['bytes']} bytes, by {plan.tool}")
    write_json(facts, json)
