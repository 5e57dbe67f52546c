# SPDX-License-Identifier: Apache-2.0
"""Models of the nRF52840 (product specification): CLOCK, GPIO, UART, NVMC."""

from __future__ import annotations

from tests.boards.machine import Block, Chip, Machine, Serial
from tests.boards.storage import Storage

FIFO_BYTES = 6


class Clock(Block):
    def reset(self) -> None:
        self.values = {0x100: 0}

    def write_0(self, value: int) -> None:
        self.values[0x100] = value


class Pins(Block):
    def reset(self) -> None:
        self.high = 0
        self.values = {0x700 + 4 * pin: 2 for pin in range(32)}

    def write_508(self, value: int) -> None:
        self.high |= value


class Uart(Serial):
    def reset(self) -> None:
        super().reset()
        self.values = {0x500: 0, 0x50C: 0xFFFF_FFFF, 0x514: 0xFFFF_FFFF, 0x524: 0x0400_0000}
        self._fifo = bytearray()
        self._ready = self._receives = self._transmits = False
        self._enabled = 0
        self._done = 0

    def put(self, byte: int) -> None:
        assert self._receives and self.values[0x500] == 4, "the receiver is off"
        if len(self._fifo) < FIFO_BYTES:
            self._fifo.append(byte)
        self._ready = True

    def interrupts(self) -> bool:
        return self._ready and bool(self._enabled & 1 << 2)

    def write_0(self, value: int) -> None:
        assert self.values[0x500] == 4 and self.values[0x514] == 8
        self._receives = bool(value)

    def write_8(self, value: int) -> None:
        assert self.values[0x500] == 4 and self.values[0x50C] == 6
        self._transmits = bool(value)

    def read_108(self) -> int:
        return int(self._ready)

    def write_108(self, value: int) -> None:
        assert value == 0
        self._ready = False

    def read_11c(self) -> int:
        self.pass_time()
        return self._done

    def write_11c(self, value: int) -> None:
        self._done = value

    def write_304(self, value: int) -> None:
        self._enabled |= value

    def read_518(self) -> int:
        assert self._fifo, "RXD is read while nothing has come"
        byte = self._fifo.pop(0)
        self._ready = bool(self._fifo)
        return byte

    def write_51c(self, value: int) -> None:
        assert self._transmits and not self._leaving, "TXD is written before TXDRDY"
        self.transmit(value)
        self._done = 1


class Nvmc(Block):
    storage: Storage | None = None

    def reset(self) -> None:
        self.values = {0x504: 0, 0x540: 0}

    def read_400(self) -> int:
        return 1

    def write_508(self, value: int) -> None:
        assert self.values[0x504] == 2, "ERASEPAGE while CONFIG does not allow it"
        assert self.storage is not None and value % 4096 == 0
        self.storage.erase(value, 4096)

    def program(self, address: int, size: int, old: int, value: int) -> None:
        assert self.values[0x504] == 1, "a write while CONFIG does not allow it"
        assert size == 4 and old == 0xFFFF_FFFF, f"{address:#x} is written twice"


class Nrf52840(Chip):
    def __init__(self) -> None:
        self.clock, self.pins = Clock(0x4000_0000, 0x1000), Pins(0x5000_0000, 0x1000)
        self.serial, self.flash = Uart(0x4000_2000, 0x1000), Nvmc(0x4001_E000, 0x1000)
        self.blocks: list[Block] = [self.clock, self.pins, self.serial, self.flash]

    def attach(self, machine: Machine) -> None:
        self.storage = self.flash.storage = Storage(machine, self.flash.program)

    def check_line(self, baud: int) -> None:
        assert self.clock.values[0x100] == 1, "the crystal was not started"
        assert abs(self.serial.values[0x524] * 16e6 / 2**32 / baud - 1) < 0.015
        assert self.pins.values[0x700 + 4 * 6] & 1 and self.pins.high >> 6 & 1
        assert self.pins.values[0x700 + 4 * 8] & 3 == 0
