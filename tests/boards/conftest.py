# SPDX-License-Identifier: Apache-2.0
"""The digits example, prepared once and built for each board and compiler, and what training leaves
behind on the host."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.boards import CHIPS
from tests.boards.machine import Machine
from tests.emulate.fake_project import fake_program, write_project
from tte.board import Board, Limits, enforced_limits, load_board
from tte.build import Firmware, build_firmware, find_compiler
from tte.codegen.emit import emit_project
from tte.data import load_dataset
from tte.device import Device
from tte.emulate import Session, open_session
from tte.emulate.run import read_program
from tte.errors import TteError
from tte.passes.update import plan_update
from tte.pipeline import CompileOptions, Prepared, lower, prepare

UPDATE = "full"
STEPS = 12
FIRST_BOARD = "stm32f4-discovery"


@dataclass(frozen=True)
class Built:
    """A project of the digits example and its firmware."""

    folder: Path
    board: Board
    program: dict[str, Any]
    firmware: Firmware
    limits: Limits

    def machine(self, **options: Any) -> Machine:
        chip = CHIPS[self.board.name]()
        return Machine(self.firmware.elf_path, self.board, self.limits, chip, **options)

    def session(self, machine: Machine) -> Session:
        session = Session(machine, self.program)
        session.hello()
        return session


Build = Callable[..., Built]

# Building the example with zig takes long; every night it is done all the same.
NIGHTLY = os.environ.get("TTE_NIGHTLY") == "1"


@pytest.fixture(scope="session")
def digits(digits_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    pytest.importorskip("sklearn")
    file = tmp_path_factory.mktemp("digits") / "digits.npz"
    with contextlib.redirect_stdout(io.StringIO()):
        runpy.run_path(str(digits_model.with_name("make_data.py")))["main"](file)
    options = CompileOptions(board=load_board(FIRST_BOARD))
    return prepare(digits_model, load_dataset(file), options)


@pytest.fixture(scope="session")
def build(digits: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """build(board, compiler, without_fast): each once. zig builds a small network."""
    made: dict[tuple[Any, ...], Built] = {}

    def make(name: str, compiler: str = "gcc", without_fast: bool = False) -> Built:
        key = (name, compiler, without_fast)
        if key not in made:
            board = load_board(name)
            if without_fast:
                board = replace(board, fast=None)
            try:
                found = find_compiler(board, compiler)
            except TteError as error:
                pytest.skip(error.what)
            folder = tmp_path_factory.mktemp(name)
            if compiler == "gcc" or NIGHTLY:
                plan = plan_update(digits.forward, UPDATE)
                program = lower(digits, plan, CompileOptions(board=board, update=UPDATE))
                emit_project(program, folder)
                manifest, trained_bytes = read_program(folder), program.trainable_bytes
            else:
                write_project(folder, name, board.sram_bytes, 64)
                manifest, trained_bytes = fake_program(name, board.sram_bytes), 0
            limits = enforced_limits(
                board,
                board.sram_bytes,
                board.flash.size_bytes,
                board.stack_reserve_bytes,
                trained_bytes,
            )
            firmware = build_firmware(folder, board, found)
            made[key] = Built(folder, board, manifest, firmware, limits)
        return made[key]

    return make


@pytest.fixture(scope="session")
def train(digits: Prepared) -> Callable[[Device], bytes]:
    """Trains a device on a few samples; the state that it ends in."""

    def run(device: Device) -> bytes:
        device.set_learning_rate(0.01)
        for step in range(STEPS):
            device.train(np.ravel(digits.codes[step]), int(digits.labels[step]))
        return device.state()

    return run


@pytest.fixture(scope="session")
def expected(build: Build, train: Callable[[Device], bytes]) -> bytes:
    """The state on the host."""
    built = build(FIRST_BOARD)
    with open_session("host", built.folder, built.program) as session:
        return train(session)
