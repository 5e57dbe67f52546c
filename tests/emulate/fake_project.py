# SPDX-License-Identifier: Apache-2.0
"""A project around the hand-written network in fake/."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tte.board import load_board
from tte.build import Firmware, build_firmware, find_compiler
from tte.codegen.project import project_files
from tte.emulate import Session
from tte.errors import TteError

FAKE = Path(__file__).parent / "fake"
OPS = ("linear", "misbehave", "update")

MakeProject = Callable[..., Path]
OpenFake = Callable[..., Session]


def fake_program(board: str, sram_limit_bytes: int) -> dict[str, Any]:
    """The program.json that belongs to fake/model.c."""
    return {
        "schema": "tte-program/1",
        "id": bytes(range(1, 17)).hex(),
        "board": board,
        "compiler": None,
        "memory": {"sram_limit_bytes": sram_limit_bytes, "flash_limit_bytes": 1 << 20},
        "input": {"shape": [1, 1, 8]},
        "output": {"shape": [3], "dtype": "int32"},
        "target": {"kind": "label", "bytes": 4},
        "loss": {"scale": 2.0**-16},
        "classes": 3,
        "state": [{"name": "weight", "bytes": 24}, {"name": "bias", "bytes": 12}],
        "ops": [
            {"op": name, "kernel": f"tte_{name}_int8", "macs": 24, "phase": "forward"}
            for name in OPS
        ],
        "saturations": ["grad"],
    }


def write_project(folder: Path, board_name: str, sram_limit_bytes: int, extra_bytes: int) -> None:
    board = load_board(board_name)
    files = project_files(
        board, sram_limit_bytes, board.flash.size_bytes, board.stack_reserve_bytes, []
    )
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    shutil.copy(FAKE / "model.h", folder / "src")
    head = f"#define SRAM_END {board.sram.origin + sram_limit_bytes:#x}u\n"
    head += f"#define EXTRA_BYTES {extra_bytes}\n"
    model = (FAKE / "model.c").read_text(encoding="utf-8")
    (folder / "src" / "model.c").write_text(head + model, encoding="utf-8")


def firmware_of(folder: Path, board_name: str, compiler: str) -> Firmware:
    board = load_board(board_name)
    try:
        found = find_compiler(board, compiler)
    except TteError as error:
        pytest.skip(error.what)
    return build_firmware(folder, board, found)
