# SPDX-License-Identifier: Apache-2.0
"""The models notice what is wrong: drivers with one mistake each do not get through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.boards import CHIPS
from tests.boards.machine import Machine
from tests.emulate.fake_project import fake_program, write_project
from tte.board import enforced_limits, load_board
from tte.build import build_firmware, find_compiler
from tte.emulate import Session
from tte.errors import TteError

SAMPLE = np.arange(8, dtype=np.int8)


def run(name: str, folder: Path, file: str, right: str, wrong: str) -> None:
    """Builds a small network's firmware with a mistake; trains, saves, restarts."""
    board = load_board(name)
    try:
        compiler = find_compiler(board, "gcc")
    except TteError as error:
        pytest.skip(error.what)
    write_project(folder, name, board.sram_bytes, 64)
    source = (folder / "board" / file).read_text()
    assert right in source
    (folder / "board" / file).write_text(source.replace(right, wrong))
    firmware = build_firmware(folder, board, compiler)
    limits = enforced_limits(
        board, board.sram_bytes, board.flash.size_bytes, board.stack_reserve_bytes
    )
    machine = Machine(firmware.elf_path, board, limits, CHIPS[name]())
    session = Session(machine, fake_program(name, board.sram_bytes))
    session.hello()
    assert board.uart is not None
    machine.chip.check_line(board.uart.baud)
    session.train(SAMPLE, 1)
    assert session.save() == 1
    session.restart()
    session.hello()


@pytest.mark.parametrize(
    ("name", "file", "right", "wrong", "what"),
    [
        ("stm32f4-discovery", "chip.c", "336u << 6", "168u << 6", "baud"),
        ("stm32f4-discovery", "chip.c", "7u << 8 | 5u", "7u << 8 | 4u", "read too fast"),
        ("stm32f4-discovery", "chip.c", "RCC_APB1ENR |= 1u << 28;", "", "PWR has no clock"),
        ("stm32f4-discovery", "usart_v1.c", " | CR1_RXNEIE;", ";", "no interrupt"),
        ("stm32f4-discovery", "flash_f4.c", "KEYR = 0xCDEF89ABu;", "", "CR is locked"),
        ("stm32f4-discovery", "flash_f4.c", "CR = CR_PSIZE_WORD | CR_PG;", "", "PG is not set"),
        ("stm32f4-discovery", "port.c", "tte_chip_drain();", "", "lost the conversation"),
        ("nrf52840-dk", "flash.c", "configure(ERASE);", "", "CONFIG does not allow"),
        ("raspberry-pi-pico", "flash.c", '"cpsid i"', '"nop"', "interrupts on"),
        ("raspberry-pi-pico", "boot2.c", "0x20004b0au", "0x20004b0bu", "boot ROM refuses"),
    ],
)
def test_a_mistake_is_found(
    name: str, file: str, right: str, wrong: str, what: str, tmp_path: Path
) -> None:
    with pytest.raises((AssertionError, TteError), match=what):
        run(name, tmp_path, file, right, wrong)


def test_without_a_mistake_all_is_well(tmp_path: Path) -> None:
    run("stm32f4-discovery", tmp_path, "chip.c", "", "")
