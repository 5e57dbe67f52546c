# SPDX-License-Identifier: Apache-2.0
"""tte report"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tte.cli.doctor import package_version
from tte.cli.options import Json, Project, Quiet
from tte.cli.output import show, to_stdout


def report_command(
    project: Project,
    top: Annotated[int, typer.Option("--top", min=1, max=1000, help="Ops to list.")] = 12,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Write PNG files.")] = True,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Show the last report of a project, and plot it."""
    from tte.report.schema import read_report

    report = read_report(project)
    show(report, json, quiet, top)
    if plots:
        if not package_version("matplotlib"):
            print("no plots: pip install matplotlib", file=sys.stderr)
            return
        from tte.report.plots import write_plots

        for path in write_plots(report, project):
            if not quiet and not to_stdout(json):
                print(path)
