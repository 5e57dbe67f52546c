# SPDX-License-Identifier: Apache-2.0
"""A project around the hand-written network in fake/, built once per kind and test run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tte.board import load_board
from tte.build import Firmware, build_firmware, find_compiler
from tte.codegen.project import project_files
from tte.emulate import Session, open_session
from tte.errors import TteError

FAKE = Path(__file__).parent / "fake"
OPS = ("linear", "misbehave", "update")

MakeProject = Callable[..., Path]
OpenFake = Callable[..., Session]


def fake_program(board: str, sram_limit_bytes: int) -> dict[str, Any]:
    """The program.json that belongs to fake/model.c."""
    return {
        "schema": "tte-program/1",
        "board": board,
        "compiler": None,
        "memory": {"sram_limit_bytes": sram_limit_bytes, "flash_limit_bytes": 1 << 20},
        "input": {"shape": [1, 1, 8]},
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
    files = project_files(board, sram_limit_bytes, board.flash.size_bytes, 4096, [])
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


@pytest.fixture(scope="session")
def make_project(tmp_path_factory: pytest.TempPathFactory) -> MakeProject:
    """make_project(board, sram_limit_bytes, compiler): a project folder of its own for each."""
    made: dict[tuple[Any, ...], Path] = {}

    def make(
        board: str = "mps2-an386",
        sram_limit_bytes: int = 262144,
        compiler: str = "gcc",
        extra_bytes: int = 64,
    ) -> Path:
        key = (board, sram_limit_bytes, compiler, extra_bytes)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("project")
            write_project(made[key], board, sram_limit_bytes, extra_bytes)
        return made[key]

    return make


@pytest.fixture
def open_fake(make_project: MakeProject) -> OpenFake:
    """open_fake(emulator, board, ...): a session with the fake network."""

    def opener(
        emulator: str,
        board: str = "mps2-an386",
        sram_limit_bytes: int = 262144,
        compiler: str = "gcc",
        command_limit_s: float = 60.0,
    ) -> Session:
        if emulator == "qemu" and shutil.which("qemu-system-arm") is None:
            pytest.skip("qemu-system-arm is not installed")
        folder = make_project(board, sram_limit_bytes, compiler)
        firmware = None if emulator == "host" else firmware_of(folder, board, compiler)
        program = fake_program(board, sram_limit_bytes)
        return open_session(emulator, folder, program, firmware, command_limit_s=command_limit_s)

    return opener
