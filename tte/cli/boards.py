# SPDX-License-Identifier: Apache-2.0
"""tte boards"""

from __future__ import annotations

from tte.cli.options import Json, Quiet
from tte.cli.output import show_rows


def boards_command(json: Json = None, quiet: Quiet = False) -> None:
    """List the boards."""
    from tte.board import list_boards, load_board

    boards = [load_board(name) for name in list_boards()]
    facts = [
        {
            "name": b.name,
            "core": b.core,
            "sram_bytes": b.sram_bytes,
            "flash_bytes": b.flash.size_bytes,
            "emulators": list(b.emulators),
            "description": b.description,
        }
        for b in boards
    ]
    rows = [
        (
            b.name,
            b.core,
            f"{b.sram_bytes >> 10} KiB",
            f"{b.flash.size_bytes >> 10} KiB",
            ", ".join(b.emulators),
        )
        for b in boards
    ]
    columns = ("board", "core", "#SRAM", "#flash", "runs on")
    show_rows("Boards", columns, rows, {"boards": facts}, json, quiet)
