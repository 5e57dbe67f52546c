# SPDX-License-Identifier: Apache-2.0
"""A board in unicorn: the firmware as it goes into flash, against models of its peripherals.

unicorn has the core; the interrupt controller is modelled here as far as one interrupt needs it,
and each chip's clocks, serial line and flash in a module of their own. The models are strict: a
register that a chip does not have, a wrong order or a wrong baud rate ends the test.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import unicorn
from unicorn import arm_const as arm

from tte.artifacts import flash_image
from tte.board import Board, Limits

PAGE = 4096
_CPUS = {
    "cortex-m0plus": arm.UC_CPU_ARM_CORTEX_M0,
    "cortex-m4f": arm.UC_CPU_ARM_CORTEX_M4,
    "cortex-m7f": arm.UC_CPU_ARM_CORTEX_M7,
    "cortex-m33f": arm.UC_CPU_ARM_CORTEX_M33,
}
_RETURN = 0x9000_0000  # where interrupt handlers return to: no memory of any board
_SYSTEM = 0xE000_E000
_VTOR, _AIRCR, _CCSIDR, _MPU_CTRL, _MPU_RNR, _MPU_RBAR, _MPU_RASR = (
    0xD08, 0xD0C, 0xD80, 0xD94, 0xD98, 0xD9C, 0xDA0,
)  # fmt: skip
_RUN_LIMIT_US = 3_000_000
_FRAME = (
    *(arm.UC_ARM_REG_R0, arm.UC_ARM_REG_R1, arm.UC_ARM_REG_R2, arm.UC_ARM_REG_R3),
    *(arm.UC_ARM_REG_R12, arm.UC_ARM_REG_LR, arm.UC_ARM_REG_PC, arm.UC_ARM_REG_XPSR),
)


class PowerCut(Exception):
    """The supply failed in the middle of a flash operation."""


class Block:
    """Registers of 32 bits at a base address. `values`: those that only keep what is written; a
    subclass has `read_xx` and `write_xx` for offset 0xXX, which do more."""

    def __init__(self, base: int, size: int = 0x400, values: dict[int, int] | None = None) -> None:
        self.base, self.size = base, size
        self.values = dict(values or {})
        self.reset()

    def reset(self) -> None:
        """As after power-on."""

    def read(self, offset: int) -> int:
        method = getattr(self, f"read_{offset:x}", None)
        if method is not None:
            return int(method())
        assert offset in self.values, f"{type(self).__name__} has no register {offset:#x} to read"
        return self.values[offset]

    def write(self, offset: int, value: int) -> None:
        method = getattr(self, f"write_{offset:x}", None)
        if method is not None:
            method(value)
            return
        assert offset in self.values, f"{type(self).__name__} has no register {offset:#x} to write"
        self.values[offset] = value


class Serial(Block):
    """A chip's UART. A byte that was written is on its way, and lost in a reset, until the firmware
    asks for the status once more or sleeps."""

    def __init__(self, base: int, size: int = 0x400) -> None:
        self.sent = bytearray()
        self._leaving = bytearray()
        super().__init__(base, size)

    def reset(self) -> None:
        self._leaving.clear()

    def transmit(self, byte: int) -> None:
        self.pass_time()
        self._leaving.append(byte)

    def pass_time(self) -> None:
        self.sent += self._leaving
        self._leaving.clear()

    def put(self, byte: int) -> None:
        """A byte arrives."""
        raise NotImplementedError

    def interrupts(self) -> bool:
        raise NotImplementedError


class Chip:
    """The models of one kind of chip: its registers, of which `serial` is the line."""

    blocks: list[Block]
    serial: Serial
    storage: Any  # counts `operations`, has `cut_at` and power_on(): see Storage
    runs_from_ram = False

    def attach(self, machine: Machine) -> None:
        """Maps what is no register: storage with its ways, ROM."""
        raise NotImplementedError

    def boot(self, machine: Machine) -> None:
        """What the core does after reset, before the firmware's first instruction."""
        machine.boot(machine.board.flash.origin)

    def check_line(self, baud: int) -> None:
        """The clocks that were set up give this baud rate, and flash is slow enough for them."""
        raise NotImplementedError


class Machine:
    """A transport (tte.emulate.Transport) to a board's firmware. With `interrupt_every`, bytes
    arrive after any so many instructions, else while the firmware sleeps."""

    name = "unicorn"
    version = str(unicorn.__version__)
    counted = None

    def __init__(
        self,
        elf_path: Path,
        board: Board,
        limits: Limits,
        chip: Chip,
        interrupt_every: int = 0,
        seed: int = 0,
    ) -> None:
        assert board.uart is not None
        self.board, self.chip, self.irq = board, chip, board.uart.irq
        self._limits = limits
        self._every = interrupt_every
        self.rng = np.random.default_rng(seed)
        self._origin, self._image = flash_image(elf_path)
        self._line = bytearray()
        self._stopped = ""  # why the firmware was stopped from inside of a model
        self.uc: Any = unicorn.Uc(
            unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS
        )
        self.uc.ctl_set_cpu_model(_CPUS[board.core])
        read, write, execute = unicorn.UC_PROT_READ, unicorn.UC_PROT_WRITE, unicorn.UC_PROT_EXEC
        self.uc.mem_map(board.flash.origin, _pages(limits.flash_bytes), read | execute)
        self._rams = [(board.sram.origin, limits.sram_bytes)]
        if board.fast is not None:
            self._rams.append((board.fast.origin, limits.fast_bytes))
        for origin, size in self._rams:
            code = execute if chip.runs_from_ram else 0
            self.uc.mem_map(origin, _pages(size), read | write | code)
        self.uc.mem_map(_RETURN, PAGE, read | execute)
        self.system = _System(self)
        self._map_blocks([self.system, *chip.blocks])
        chip.attach(self)
        self.uc.hook_add(unicorn.UC_HOOK_INTR, self._on_exception)
        self.uc.hook_add(unicorn.UC_HOOK_MEM_INVALID, self._on_bad_access)
        self.power_on()

    # ---- Transport ------------------------------------------------------------------------

    @property
    def bits_per_s(self) -> None:
        return None

    def send(self, data: bytes) -> None:
        self._line += data

    def receive(self, timeout_s: float | None) -> bytes:
        if not self.chip.serial.sent:
            self.run()
        data = bytes(self.chip.serial.sent)
        self.chip.serial.sent.clear()
        return data

    def count_ops(self, command: Callable[[], object]) -> None:
        return None

    def close(self) -> None:
        pass

    # ---- the machine ----------------------------------------------------------------------

    def power_on(self) -> None:
        """RAM holds anything, flash the firmware and the storage what it held."""
        for origin, size in self._rams:
            self.uc.mem_write(origin, self.rng.bytes(_pages(size)))
        self.uc.mem_write(self._origin, self._image)
        self.chip.storage.power_on()
        self._line.clear()
        for block in self.chip.blocks:
            block.reset()
        self.system.values.clear()
        self.enabled: set[int] = set()
        self.nmi_is_due = False
        self.mpu: dict[int, list[int]] = {}
        self.mpu_is_on = False
        self.uc.reg_write(arm.UC_ARM_REG_PRIMASK, 0)
        self.chip.boot(self)

    def boot(self, vectors: int) -> None:
        """Stack pointer and program counter from a vector table."""
        self.vectors = vectors
        stack, reset = struct.unpack("<2I", self.uc.mem_read(vectors, 8))
        self.uc.reg_write(arm.UC_ARM_REG_SP, stack)
        self.uc.reg_write(arm.UC_ARM_REG_PC, reset)

    def run(self) -> None:
        """Until the firmware sleeps and nothing is on the line."""
        while True:
            self._step(self._every)
            asleep = self.uc.mem_read(self.pc - 2, 2) == b"\x30\xbf"
            if self._stopped == "reset":
                self._stopped = ""
                self.power_on()
                continue
            assert not self._stopped, f"{self._stopped} at pc {self.pc:#x}"
            if self.nmi_is_due:
                self.nmi_is_due = False
                self._interrupt(2)
            if asleep and not self._line:
                self.chip.serial.pass_time()
                return
            if asleep:
                self._wake()
            if self._may_interrupt():
                self._deliver(int(self.rng.integers(1, 120)) if asleep else 3)

    def _wake(self) -> None:
        """An interrupt that is held off ends the sleep; the firmware lets it in: CPSIE I."""
        assert self.uc.mem_read(self.pc, 2) == b"\x62\xb6"
        self.uc.reg_write(arm.UC_ARM_REG_PRIMASK, 0)
        self.uc.reg_write(arm.UC_ARM_REG_PC, self.pc + 2 | 1)

    def _may_interrupt(self) -> bool:
        masked = self.uc.reg_read(arm.UC_ARM_REG_PRIMASK) & 1
        return not masked and self.irq in self.enabled

    def stop(self, reason: str) -> None:
        self._stopped = reason
        self.uc.emu_stop()

    @property
    def pc(self) -> int:
        return int(self.uc.reg_read(arm.UC_ARM_REG_PC))

    def _step(self, instructions: int, until: int = _RETURN) -> None:
        started = time.monotonic()
        self.uc.emu_start(self.pc | 1, until, timeout=_RUN_LIMIT_US, count=instructions)
        hangs = time.monotonic() - started > 0.9e-6 * _RUN_LIMIT_US
        assert not hangs, f"the firmware hangs at pc {self.pc:#x}"

    def _deliver(self, most: int) -> None:
        """Up to `most` bytes of the line, each with its interrupt."""
        for byte in self._line[:most]:
            self.chip.serial.put(byte)
            assert self.chip.serial.interrupts(), "a byte raises no interrupt"
            self._interrupt(16 + self.irq)
            assert not self.chip.serial.interrupts(), "the handler left the interrupt pending"
        del self._line[:most]

    def _interrupt(self, number: int) -> None:
        """Exception entry and return, as the core does them."""
        uc = self.uc
        frame = [uc.reg_read(register) for register in _FRAME]
        stack = uc.reg_read(arm.UC_ARM_REG_SP)
        lowered = (stack - 32) & ~7
        uc.mem_write(lowered, struct.pack("<8I", *frame))
        uc.reg_write(arm.UC_ARM_REG_SP, lowered)
        uc.reg_write(arm.UC_ARM_REG_LR, _RETURN | 1)
        (handler,) = struct.unpack("<I", uc.mem_read(self.vectors + 4 * number, 4))
        assert handler & 1, f"the vector of exception {number} is {handler:#x}"
        uc.reg_write(arm.UC_ARM_REG_PC, handler)
        self._step(0)
        assert self.pc == _RETURN and uc.reg_read(arm.UC_ARM_REG_SP) == lowered
        for register, value in zip(
            _FRAME, struct.unpack("<8I", uc.mem_read(lowered, 32)), strict=True
        ):
            uc.reg_write(register, value | 1 if register == arm.UC_ARM_REG_PC else value)
        uc.reg_write(arm.UC_ARM_REG_SP, stack)

    def _map_blocks(self, blocks: list[Block]) -> None:
        pages: dict[int, list[Block]] = {}
        for block in blocks:
            for page in range(block.base & -PAGE, block.base + block.size, PAGE):
                pages.setdefault(page, []).append(block)
        for page, inside in pages.items():
            self._map_page(page, inside)

    def _map_page(self, page: int, blocks: list[Block]) -> None:
        def place(offset: int, size: int) -> tuple[Block, int]:
            address = page + offset
            for block in blocks:
                if block.base <= address < block.base + block.size:
                    assert size == 4, f"an access of {size} bytes to {address:#x}"
                    return block, address - block.base
            raise AssertionError(f"no peripheral is at {address:#x}, pc {self.pc:#x}")

        def on_read(uc: Any, offset: int, size: int, data: Any) -> int:
            block, inner = place(offset, size)
            return block.read(inner)

        def on_write(uc: Any, offset: int, size: int, value: int, data: Any) -> None:
            block, inner = place(offset, size)
            block.write(inner, value)

        self.uc.mmio_map(page, PAGE, on_read, None, on_write, None)

    def _on_exception(self, uc: Any, number: int, data: Any) -> None:
        self.stop(f"exception {number}")

    def _on_bad_access(
        self, uc: Any, kind: int, address: int, size: int, value: int, data: Any
    ) -> bool:
        self._stopped = f"a bad access (kind {kind}) of {size} bytes to {address:#x}"
        return False


class _System(Block):
    """NVIC, SCB, MPU and the caches' registers."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(_SYSTEM, PAGE)
        self._machine = machine

    def read(self, offset: int) -> int:
        return 0xF01F_E019 if offset == _CCSIDR else self.values.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        machine = self._machine
        self.values[offset] = value
        if 0x100 <= offset < 0x140:
            machine.enabled |= {8 * (offset - 0x100) + bit for bit in range(32) if value >> bit & 1}
        elif offset == _VTOR:
            machine.vectors = value
        elif offset == _AIRCR and value == 0x05FA_0004:
            machine.stop("reset")
        elif offset in (_MPU_RBAR, _MPU_RASR):
            region = machine.mpu.setdefault(self.values[_MPU_RNR], [0, 0])
            region[offset == _MPU_RASR] = value
        elif offset == _MPU_CTRL:
            machine.mpu_is_on = bool(value & 1)


def _pages(size_bytes: int) -> int:
    return -(-size_bytes // PAGE) * PAGE
