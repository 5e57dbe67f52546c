# SPDX-License-Identifier: Apache-2.0
"""Projects around the fake network, built once per kind and test run, and sessions with them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.emulate.fake_project import (
    MakeProject,
    OpenFake,
    fake_program,
    firmware_of,
    write_project,
)
from tte.emulate import Session, open_session


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
