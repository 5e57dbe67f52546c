# SPDX-License-Identifier: Apache-2.0
"""tte ops"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from tte.cli.options import Json, Quiet
from tte.cli.output import show_rows


def ops_command(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table as Markdown.")
    ] = False,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """List the operators, and from where they are imported.

    With their kernels in portable C and for the DSP extension (armv7em)."""
    from tte.frontend import support

    if markdown:
        sys.stdout.write(support.markdown())
        return
    rows = support.supported()
    show_rows(
        "Operators",
        support.COLUMNS,
        [row.row() for row in rows],
        {"ops": [asdict(row) for row in rows]},
        json,
        quiet,
    )
