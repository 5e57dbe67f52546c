# SPDX-License-Identifier: Apache-2.0
"""Real boards: their firmware starts, talks, trains, saves and restarts, in unicorn with models of
their peripherals; and lies in memory as the manuals demand."""

from __future__ import annotations

import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from tests.boards import CHIPS
from tests.boards.conftest import Build, Built
from tests.boards.machine import PowerCut
from tests.boards.mpu import access
from tests.boards.qemu_serial import QemuSerial
from tests.boards.rp2040 import assemble_boot
from tte.board import list_boards, load_board
from tte.device import ConversationLost, Device
from tte.emulate import Session
from tte.resources import boards_dir

REAL_BOARDS = [name for name in list_boards() if load_board(name).uart is not None]


def test_every_real_board_has_a_model() -> None:
    assert set(REAL_BOARDS) == set(CHIPS)
    assert len({load_board(name).probe for name in REAL_BOARDS}) == len(REAL_BOARDS)


@pytest.mark.parametrize("name", REAL_BOARDS)
def test_a_board_trains_like_the_host(
    name: str, build: Build, train: Callable[[Device], bytes], expected: bytes
) -> None:
    built = build(name)
    machine = built.machine()
    session = built.session(machine)
    assert built.board.uart is not None
    machine.chip.check_line(built.board.uart.baud)
    assert machine.mpu_is_on
    assert train(session) == expected
    assert session.stack_bytes() < built.board.stack_reserve_bytes
    assert session.save() == 1
    session.train(np.zeros(built.program["input"]["shape"], np.int8).ravel(), 0)
    assert session.state() != expected
    session.restart()
    with pytest.raises(ConversationLost):
        session.metrics()
    hello = session.hello()
    assert (hello.checkpoint, session.state()) == (1, expected)


@pytest.mark.parametrize("name", REAL_BOARDS)
def test_power_fails_in_a_save(
    name: str, build: Build, train: Callable[[Device], bytes], expected: bytes
) -> None:
    """In the first and the last operations, and in the middle: the next start finds the state
    before or the state after, and nothing that was left half written faults."""
    built = build(name)
    machine = built.machine()
    session, storage = built.session(machine), machine.chip.storage
    train(session)
    assert session.save() == 1
    operations, saved, number = storage.operations, expected, 1
    sample = np.ones(built.program["input"]["shape"], np.int8).ravel()
    for cut_at in (1, 2, operations // 2, operations):
        session.train(sample, cut_at % 10)
        state = session.state()
        assert state != saved
        storage.operations, storage.cut_at = 0, cut_at
        with pytest.raises(PowerCut):
            session.save()
        storage.cut_at = 0
        machine.power_on()
        hello = session.hello()
        assert hello.checkpoint == number and session.state() == saved
        session.train(sample, cut_at % 10)
        saved, number = session.state(), number + 1
        assert session.save() == number


@pytest.mark.parametrize("name", REAL_BOARDS)
def test_the_mpu_admits_what_the_limits_say(name: str, build: Build) -> None:
    built = build(name)
    board, limits = built.board, built.limits
    machine = built.machine()
    built.session(machine)
    assert machine.mpu_is_on and len(machine.mpu) <= 8
    storage = board.storage
    assert storage is not None
    areas = [
        (board.flash.origin, limits.flash_bytes, "rx"),
        (board.sram.origin, limits.sram_bytes, "rw"),
        (board.peripherals.origin, board.peripherals.size_bytes, "rw"),
        (storage.origin, storage.size_bytes, "rw"),
    ]
    if board.fast is not None:
        areas.append((board.fast.origin, limits.fast_bytes, "rw"))
    for start, size, rights in areas:
        for address in range(start, start + size, max(32, size // 64 & ~31)):
            assert access(machine.mpu, board.is_v8, address) == rights
        assert access(machine.mpu, board.is_v8, start + size - 4) == rights
        for outside in (start - 4, start + size):
            if not any(a <= outside < a + n for a, n, _ in areas):
                assert access(machine.mpu, board.is_v8, outside) == "", hex(outside)


def test_interrupts_come_at_any_instruction(
    build: Build, train: Callable[[Device], bytes], expected: bytes
) -> None:
    built = build("stm32f4-discovery")
    machine = built.machine(interrupt_every=10007)
    assert train(built.session(machine)) == expected


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
@pytest.mark.parametrize("name", REAL_BOARDS)
def test_firmware_lies_where_the_board_has_memory(name: str, compiler: str, build: Build) -> None:
    built = build(name, compiler)
    board, limits = built.board, built.limits
    flash = range(board.flash.origin, board.flash.origin + limits.flash_bytes)
    sram = range(board.sram.origin, board.sram.origin + limits.sram_bytes)
    fast = range(0)
    if board.fast is not None:
        fast = range(board.fast.origin, board.fast.origin + limits.fast_bytes)
    assert limits.fast_bytes + limits.sram_bytes <= board.sram_bytes
    with built.firmware.elf_path.open("rb") as stream:
        elf = ELFFile(stream)
        symbols = {s.name: s["st_value"] for s in elf.get_section_by_name(".symtab").iter_symbols()}
        for section in elf.iter_sections():
            if not section["sh_flags"] & 2 or not section["sh_size"]:
                continue
            start, last = section["sh_addr"], section["sh_addr"] + section["sh_size"] - 1
            places = [flash] if section.name in (".text", ".rodata") else [sram, fast]
            assert any(start in place and last in place for place in places), section.name
            if section.name == ".stack":
                assert (start in fast) == (board.fast is not None)
            if section.name == ".data":
                assert (start in fast) == limits.data_is_fast
        for segment in elf.iter_segments("PT_LOAD"):
            assert not segment["p_filesz"] or segment["p_paddr"] in flash
    vectors = _vectors(built, symbols["tte_stack_top"])
    assert vectors[1] == symbols["tte_reset"] | 1
    assert board.uart is not None
    handler = vectors[16 + board.uart.irq]
    assert handler == symbols["tte_port_interrupt"] | 1
    for index, vector in enumerate(vectors[1:], 1):
        used = index in (1, 2, 3, 4, 5, 6, 11, 12, 14, 15, 16 + board.uart.irq)
        assert (vector & 1 and vector in flash) if used else vector == 0, index


def _vectors(built: Built, stack_top: int) -> list[int]:
    """The vector table: it begins with the initial stack pointer."""
    image = (built.folder / "build" / "firmware.bin").read_bytes()
    uart = built.board.uart
    assert uart is not None
    offset = 0x100 if built.board.uf2_family is not None else 0
    vectors = struct.unpack_from(f"<{17 + uart.irq}I", image, offset)
    assert vectors[0] == stack_top
    return list(vectors)


def test_the_second_stage_is_what_its_source_assembles_to(build: Build, tmp_path: Path) -> None:
    built = build("raspberry-pi-pico")
    expected = assemble_boot(boards_dir() / "common" / "rp2040" / "boot2.S", tmp_path)
    assert (built.folder / "build" / "firmware.bin").read_bytes()[:256] == expected


@pytest.mark.parametrize("name", REAL_BOARDS)
def test_artifacts_hold_what_the_elf_loads(name: str, build: Build) -> None:
    built = build(name)
    elf_path = built.firmware.elf_path
    loaded: dict[int, int] = {}
    with elf_path.open("rb") as stream:
        for segment in ELFFile(stream).iter_segments("PT_LOAD"):
            loaded |= dict(enumerate(segment.data(), segment["p_paddr"]))
    origin = min(loaded)
    assert origin == built.board.flash.origin
    image = dict(enumerate(elf_path.with_suffix(".bin").read_bytes(), origin))
    assert _without_gaps(image, loaded) == loaded
    assert _without_gaps(_read_hex(elf_path.with_suffix(".hex").read_text()), loaded) == loaded
    uf2_path = elf_path.with_suffix(".uf2")
    assert uf2_path.exists() == (built.board.uf2_family is not None)
    if built.board.uf2_family is not None:
        blocks = _read_uf2(uf2_path.read_bytes(), built.board.uf2_family)
        assert _without_gaps(blocks, loaded) == loaded


def _without_gaps(content: dict[int, int], loaded: dict[int, int]) -> dict[int, int]:
    """Without what is erased flash between the segments and after them."""
    return {place: byte for place, byte in content.items() if byte != 0xFF or place in loaded}


def _read_hex(text: str) -> dict[int, int]:
    """Intel HEX."""
    content: dict[int, int] = {}
    upper = 0
    lines = text.splitlines()
    assert lines[-1] == ":00000001FF"
    for line in lines[:-1]:
        record = bytes.fromhex(line.removeprefix(":"))
        assert sum(record) & 0xFF == 0 and len(record) == record[0] + 5
        address, kind, data = int.from_bytes(record[1:3], "big"), record[3], record[4:-1]
        if kind == 4:
            upper = int.from_bytes(data, "big") << 16
            continue
        assert kind == 0
        content |= dict(enumerate(data, upper + address))
    return content


def _read_uf2(data: bytes, family: int) -> dict[int, int]:
    content: dict[int, int] = {}
    assert len(data) % 512 == 0
    for index in range(len(data) // 512):
        block = data[512 * index : 512 * index + 512]
        words = struct.unpack_from("<8I", block)
        assert words[:3] == (0x0A324655, 0x9E5D5157, 0x2000)
        assert words[4:] == (256, index, len(data) // 512, family)
        assert words[3] % 256 == 0 and block[-4:] == struct.pack("<I", 0x0AB16F30)
        content |= dict(enumerate(block[32:288], words[3]))
    return content


@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="QEMU is not installed")
def test_qemu_runs_the_firmware_of_the_stm32f4(
    build: Build, train: Callable[[Device], bytes], expected: bytes
) -> None:
    """On an STM32F405: its own vector table, MPU, interrupt controller and USART2. It has no CCM
    and no clocks, so the stack is in SRAM and the internal oscillator stays."""
    built = build("stm32f4-discovery", without_fast=True)
    with Session(QemuSerial(built.firmware.elf_path, "netduinoplus2", 1), built.program) as session:
        session.hello()
        assert train(session) == expected
        session.restart()
        time.sleep(0.5)  # what comes while it starts is lost
        with pytest.raises(ConversationLost):
            session.metrics()
        assert session.hello().steps == 0
