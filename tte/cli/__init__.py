# SPDX-License-Identifier: Apache-2.0
"""The command line: one file a command. Strict about what it is given; everything heavy is imported
in the commands.

Exit status: 0 done, 1 an error, 2 wrong usage, 3 does not fit the memory, 4 the firmware faulted,
130 interrupted.
"""

from __future__ import annotations

from tte.cli.app import app, guarded
from tte.cli.boards import boards_command
from tte.cli.compile import compile_command
from tte.cli.demo import demo_command
from tte.cli.doctor import doctor_command
from tte.cli.emulate import emulate_command
from tte.cli.export import export_command
from tte.cli.flash import flash_command
from tte.cli.inspect import inspect_command
from tte.cli.ops import ops_command
from tte.cli.report import report_command
from tte.cli.search import search_command
from tte.cli.serve import serve_command
from tte.cli.train import train_command
from tte.cli.weights import weights_app

COMMANDS = (
    ("compile", compile_command),
    ("search", search_command),
    ("emulate", emulate_command),
    ("train", train_command),
    ("serve", serve_command),
    ("flash", flash_command),
    ("export", export_command),
    ("report", report_command),
    ("inspect", inspect_command),
    ("boards", boards_command),
    ("ops", ops_command),
    ("doctor", doctor_command),
    ("demo", demo_command),
)
for _name, _function in COMMANDS:
    app.command(_name)(guarded(_function))
app.add_typer(weights_app, name="weights")


def main() -> None:
    """The `tte` script."""
    app(prog_name="tte")
