# SPDX-License-Identifier: Apache-2.0
"""Models of the RP2040 (datasheet): boot ROM, clocks, UART, flash by the ROM's functions."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import Any

import unicorn
from unicorn import arm_const as arm

from tests.boards.machine import PAGE, Block, Chip, Machine, PowerCut, Serial

_FLASH, _BOOT_COPY = 0x1000_0000, 0x2004_1F00
_ROM_TABLE, _ROM_CODE = 0x200, 0x400
_FUNCTIONS = ("IF", "EX", "RE", "RP", "FC", "CX")


def boot_crc(content: bytes) -> int:
    """CRC-32 with the usual polynomial, the highest bit first, not inverted at the end."""
    crc = 0xFFFF_FFFF
    for byte in content:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C1_1DB7 if crc >> 31 else 0)) & 0xFFFF_FFFF
    return crc


def assemble_boot(source: Path, folder: Path) -> bytes:
    """boot2.S as the first 256 bytes of flash, with its CRC."""
    made, binary = folder / "boot2.o", folder / "boot2.bin"
    subprocess.run(["arm-none-eabi-gcc", "-c", str(source), "-o", str(made)], check=True)
    command = ["arm-none-eabi-objcopy", "-O", "binary", "-j", ".text", str(made), str(binary)]
    subprocess.run(command, check=True)
    content = binary.read_bytes()
    assert len(content) <= 252
    content = content.ljust(252, b"\0")
    return content + struct.pack("<I", boot_crc(content))


class Aliased(Block):
    """Registers with the aliases that flip, set and clear bits."""

    def __init__(self, base: int, size: int = 0x4000) -> None:
        super().__init__(base, size)

    def write(self, offset: int, value: int) -> None:
        alias, inner = offset >> 12, offset & 0xFFF
        if alias:
            old = self.values[inner]
            value = (old ^ value, old | value, old & ~value)[alias - 1]
        super().write(inner, value)


class Resets(Aliased):
    def reset(self) -> None:
        self.values = {0x00: 0x01FF_FFFF}

    def read_8(self) -> int:
        return ~self.values[0] & 0x01FF_FFFF


class Xosc(Aliased):
    def reset(self) -> None:
        self.values = {0x00: 0, 0x0C: 0xC4}

    def read_4(self) -> int:
        return int(self.values[0] == 0xFABAA0) << 31


class Pll(Aliased):
    resets: Resets

    def reset(self) -> None:
        self.values = {0x00: 1, 0x04: 0x2D, 0x08: 0, 0x0C: 0x77000}

    def write(self, offset: int, value: int) -> None:
        assert not self.resets.values[0] >> 12 & 1, "PLL_SYS is in reset"
        super().write(offset, value)

    def read_0(self) -> int:
        return self.values[0] | int(not self.values[4] & 0x21) << 31

    @property
    def hertz(self) -> float:
        assert not self.values[4] & 0x29, "PLL, VCO or divider have no power"
        vco = 12e6 / (self.values[0] & 63) * self.values[8]
        assert 750e6 <= vco <= 1600e6
        return vco / (self.values[0xC] >> 16 & 7) / (self.values[0xC] >> 12 & 7)


class Clocks(Aliased):
    xosc: Xosc
    pll: Pll

    def reset(self) -> None:
        self.values = {0x30: 0, 0x3C: 0, 0x48: 0}

    def write_30(self, value: int) -> None:
        assert value == 2 and self.xosc.read_4(), "the crystal is not stable"
        self.values[0x30] = value

    def read_38(self) -> int:
        return 1 << (self.values[0x30] & 3)

    def write_3c(self, value: int) -> None:
        if value & 1:
            assert value == 1 and self.pll.read_0() >> 31, "the PLL is not locked"
        self.values[0x3C] = value

    def read_44(self) -> int:
        return 1 << (self.values[0x3C] & 1)

    @property
    def core_hz(self) -> float:
        assert self.values[0x30] == 2
        return self.pll.hertz if self.values[0x3C] else 12e6


class Pins(Aliased):
    def reset(self) -> None:
        self.values = {4 + 8 * pin: 31 for pin in range(30)}


class Pads(Aliased):
    def reset(self) -> None:
        self.values = {4 + 4 * pin: 0x56 for pin in range(30)}


class Uart(Serial):
    """PL011. The time-out of the receiver is over at once."""

    resets: Resets

    def reset(self) -> None:
        super().reset()
        self.values = {0x24: 0, 0x28: 0, 0x2C: 0, 0x30: 0x300, 0x34: 0x12, 0x38: 0}
        self._fifo = bytearray()

    def write(self, offset: int, value: int) -> None:
        assert not self.resets.values[0] >> 22 & 1, "UART0 is in reset"
        super().write(offset, value)

    def put(self, byte: int) -> None:
        assert self.values[0x30] & 0x201 == 0x201 and self.values[0x2C] & 0x70 == 0x70
        if len(self._fifo) < 32:
            self._fifo.append(byte)

    def interrupts(self) -> bool:
        return bool(self._fifo) and self.values[0x38] & 0x50 == 0x50

    def read_0(self) -> int:
        assert self._fifo
        return self._fifo.pop(0)

    def write_0(self, value: int) -> None:
        assert self.values[0x30] & 0x101 == 0x101, "the transmitter is off"
        self.transmit(value)

    def read_18(self) -> int:
        self.pass_time()
        return int(not self._fifo) << 4

    def write_44(self, value: int) -> None:
        pass


class Ssi(Block):
    """What makes flash readable."""

    def reset(self) -> None:
        self.values = {0x00: 0, 0x04: 0, 0x08: 0, 0x14: 0, 0xF4: 0}

    def write(self, offset: int, value: int) -> None:
        assert offset == 8 or not self.values[8], "the SSI is set up while it is on"
        super().write(offset, value)

    @property
    def reads(self) -> bool:
        wanted = {0x00: 0x001F_0300, 0x04: 0, 0x08: 1, 0xF4: 0x0300_0218}
        return all(self.values[offset] == value for offset, value in wanted.items())


class Rp2040(Chip):
    runs_from_ram = True

    def __init__(self) -> None:
        self.resets, self.xosc = Resets(0x4000_C000), Xosc(0x4002_4000)
        self.pll, self.clocks = Pll(0x4002_8000), Clocks(0x4000_8000)
        self.pins, self.pads = Pins(0x4001_4000), Pads(0x4001_C000)
        self.serial, self.ssi = Uart(0x4003_4000), Ssi(0x1800_0000)
        self.pll.resets = self.serial.resets = self.resets
        self.clocks.xosc, self.clocks.pll = self.xosc, self.pll
        self.blocks: list[Block] = [
            *(self.resets, self.xosc, self.pll, self.clocks),
            *(self.pins, self.pads, self.serial, self.ssi),
        ]
        self.storage, self.operations, self.cut_at = self, 0, 0
        self._steps: list[str] = []

    def attach(self, machine: Machine) -> None:
        self._machine, uc = machine, machine.uc
        storage = machine.board.storage
        assert storage is not None
        uc.mem_map(storage.origin, storage.size_bytes, unicorn.UC_PROT_READ)
        uc.mem_write(storage.origin, b"\xff" * storage.size_bytes)
        uc.mem_map(0, PAGE, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        uc.mem_write(0x14, struct.pack("<H", _ROM_TABLE))
        for index, code in enumerate(_FUNCTIONS):
            entry = code.encode() + struct.pack("<H", _ROM_CODE + 16 * index | 1)
            uc.mem_write(_ROM_TABLE + 4 * index, entry)
            uc.mem_write(_ROM_CODE + 16 * index, b"\x70\x47")  # bx lr
        last = _ROM_CODE + 16 * len(_FUNCTIONS)
        uc.hook_add(unicorn.UC_HOOK_CODE, self._on_rom, None, _ROM_CODE, last)

    def boot(self, machine: Machine) -> None:
        """The boot ROM: checks the second stage, copies it into SRAM and runs it."""
        uc = machine.uc
        self._steps.clear()
        stage = bytes(uc.mem_read(_FLASH, 256))
        (crc,) = struct.unpack_from("<I", stage, 252)
        assert crc == boot_crc(stage[:252]), "the boot ROM refuses the second stage"
        uc.mem_write(_BOOT_COPY, stage)
        uc.ctl_flush_tb()  # code that is translated already would run past the end
        uc.emu_start(_BOOT_COPY | 1, self._program() & ~1, count=100)
        assert machine.pc == self._program() & ~1, f"the second stage ended at {machine.pc:#x}"
        assert self.ssi.reads and machine.vectors == _FLASH + 0x100

    def _program(self) -> int:
        return int(struct.unpack("<I", self._machine.uc.mem_read(_FLASH + 0x104, 4))[0])

    def _on_rom(self, uc: Any, address: int, size: int, data: Any) -> None:
        code = _FUNCTIONS[(address - _ROM_CODE) // 16]
        caller = uc.reg_read(arm.UC_ARM_REG_LR)
        assert 0x2000_0000 <= caller < 0x2004_2000, f"{code} is called from flash"
        assert uc.reg_read(arm.UC_ARM_REG_PRIMASK) & 1, f"{code} with interrupts on"
        assert not self._machine.mpu_is_on, f"{code} with the MPU on: ROM is not executable"
        self._steps.append(code)
        kinds = (arm.UC_ARM_REG_R0, arm.UC_ARM_REG_R1, arm.UC_ARM_REG_R2, arm.UC_ARM_REG_R3)
        first, second, third, _ = (uc.reg_read(register) for register in kinds)
        if code == "RE":
            assert first % 4096 == second % 4096 == 0
            self._change(first, b"\xff" * second)
        elif code == "RP":
            assert first % 256 == third % 256 == 0 and 0x2000_0000 <= second < 0x2004_2000
            old, new = uc.mem_read(_FLASH + first, third), uc.mem_read(second, third)
            assert old == b"\xff" * third, f"{first:#x} is written twice"
            self._change(first, bytes(new))
        elif code == "EX":
            self.ssi.reset()
            self.ssi.values[8] = 0
        elif code == "CX":
            assert self._steps in [["IF", "EX", step, "FC", "CX"] for step in ("RE", "RP")]
            self._steps.clear()
            self.ssi.values |= {0x00: 0x001F_0300, 0x04: 0, 0x08: 1, 0x14: 6, 0xF4: 0x0300_0218}

    def _change(self, offset: int, content: bytes) -> None:
        storage, machine = self._machine.board.storage, self._machine
        assert storage is not None and self._steps[-3:-1] == ["IF", "EX"]
        assert storage.origin <= _FLASH + offset <= storage.origin + storage.size_bytes
        self.operations += 1
        if self.operations == self.cut_at:
            machine.uc.mem_write(_FLASH + offset, machine.rng.bytes(len(content)))
            raise PowerCut
        machine.uc.mem_write(_FLASH + offset, content)

    def power_on(self) -> None:
        """What is torn is torn at once."""

    def check_line(self, baud: int) -> None:
        assert self.clocks.core_hz == 125e6 and self.clocks.values[0x48] == 1 << 11
        assert self.ssi.reads and self.ssi.values[0x14] == 4
        assert self.pins.values[4] == self.pins.values[12] == 2
        divider = self.serial.values[0x24] + self.serial.values[0x28] / 64
        assert abs(125e6 / 16 / divider / baud - 1) < 0.015
