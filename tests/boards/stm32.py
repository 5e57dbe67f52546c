# SPDX-License-Identifier: Apache-2.0
"""Models of STM32: clocks, USARTs, flash controllers."""

from __future__ import annotations

from typing import Any

from tests.boards.machine import Block, Chip, Machine, Serial
from tests.boards.storage import Storage

KEYS = [0x4567_0123, 0xCDEF_89AB]


class Gpio(Block):
    def __init__(self, base: int, rcc: Any, enabled: tuple[int, int]) -> None:
        super().__init__(base)
        self._rcc, self._enabled = rcc, enabled

    def reset(self) -> None:
        self.values = dict.fromkeys(range(0, 0x2C, 4), 0)

    def write(self, offset: int, value: int) -> None:
        register, bit = self._enabled
        assert self._rcc.values[register] >> bit & 1, "this port has no clock"
        super().write(offset, value)

    def function(self, pin: int) -> int | None:
        """The alternate function that a pin has, or None where it has none."""
        if self.values[0] >> 2 * pin & 3 != 2:
            return None
        return self.values[0x20 + pin // 8 * 4] >> pin % 8 * 4 & 15


class UsartV1(Serial):
    """RM0090 chapter 30."""

    def reset(self) -> None:
        super().reset()
        self.values = {0x04: 0, 0x08: 0, 0x0C: 0, 0x10: 0, 0x14: 0}
        self._status = 0xC0

    def put(self, byte: int) -> None:
        assert self.values[0x0C] & 0x2004 == 0x2004, "the receiver is off"
        if self._status & 1 << 5:
            self._status |= 1 << 3
        else:
            self.values[0x04] = byte
            self._status |= 1 << 5

    def interrupts(self) -> bool:
        return bool(self.values[0x0C] & 1 << 5 and self._status & (1 << 5 | 1 << 3))

    def read_0(self) -> int:
        self.pass_time()
        return self._status

    def read_4(self) -> int:
        self._status &= ~(1 << 5 | 1 << 3)
        return self.values[0x04]

    def write_4(self, value: int) -> None:
        assert self.values[0x0C] & 0x2008 == 0x2008, "the transmitter is off"
        self.transmit(value)


class UsartV2(Serial):
    """RM0385 chapter 31, RM0433 chapter 48, RM0438 chapters 47 and 48."""

    def reset(self) -> None:
        super().reset()
        self.values = {0x00: 0, 0x04: 0, 0x08: 0, 0x0C: 0, 0x24: 0}
        self._status = 0xC0

    def put(self, byte: int) -> None:
        assert self.values[0x00] & 5 == 5, "the receiver is off"
        if self._status & 1 << 5:
            self._status |= 1 << 3
        else:
            self.values[0x24] = byte
            self._status |= 1 << 5

    def interrupts(self) -> bool:
        return bool(self.values[0x00] & 1 << 5 and self._status & (1 << 5 | 1 << 3))

    def write_c(self, value: int) -> None:
        assert not self.values[0x00] & 1, "BRR is written while the USART is on"
        self.values[0x0C] = value

    def read_1c(self) -> int:
        self.pass_time()
        return self._status

    def write_20(self, value: int) -> None:
        self._status &= ~(value & 1 << 3)

    def read_24(self) -> int:
        self._status &= ~(1 << 5)
        return self.values[0x24]

    def write_28(self, value: int) -> None:
        assert self.values[0x00] & 9 == 9, "the transmitter is off"
        self.transmit(value)


class FlashF4(Block):
    """RM0090 chapter 3, RM0385 chapter 3. `sectors`: their sizes from 0x08000000 on."""

    storage: Storage | None = None

    def __init__(self, sectors: list[int]) -> None:
        super().__init__(0x4002_3C00)
        self._sectors = sectors

    def reset(self) -> None:
        self.values = {0x00: 0}
        self._keys: list[int] = []
        self._control, self._errors = 1 << 31, 0

    def write_4(self, value: int) -> None:
        self._keys.append(value)
        assert self._keys == KEYS[: len(self._keys)], "a wrong key: locked until reset"
        if self._keys == KEYS:
            self._control &= ~(1 << 31)
            self._keys = []

    def read_c(self) -> int:
        return self._errors

    def write_c(self, value: int) -> None:
        self._errors &= ~value

    def read_10(self) -> int:
        return self._control

    def write_10(self, value: int) -> None:
        assert not self._control & 1 << 31, "CR is locked"
        if value & 1 << 16:
            assert value & 7 == 2 and not value & 1 << 31, f"STRT with CR {value:#x}"
            sector = value >> 3 & 15
            assert self._control & 0xFF == value & 0xFF, "SER and SNB come before STRT"
            address = 0x0800_0000 + sum(self._sectors[:sector])
            assert self.storage is not None
            self.storage.erase(address, self._sectors[sector])
            value &= ~(1 << 16)
        self._control = value

    def program(self, address: int, size: int, old: int, value: int) -> None:
        assert self._control & 1 and not self._control >> 31, "PG is not set"
        assert size == 4 and self._control >> 8 & 3 == 2, "an access of another size than PSIZE"
        assert old == 0xFFFF_FFFF, f"{address:#x} is written twice"


class RccF4(Block):
    """The clocks of F4 (RM0090 chapter 7) and F7 (RM0385 chapter 5) from a crystal."""

    def __init__(self, crystal_hz: int, most_hz: int) -> None:
        super().__init__(0x4002_3800)
        self._crystal_hz, self._most_hz = crystal_hz, most_hz

    def reset(self) -> None:
        self.values = {0x04: 0x2400_3010, 0x30: 0, 0x40: 0, 0x44: 0}
        self._control, self._config = 0x83, 0

    def read_0(self) -> int:
        ready = (self._control & (1 << 16 | 1 << 24)) << 1
        return self._control | (ready if self._crystal_hz else 0)

    def write_0(self, value: int) -> None:
        if value & 1 << 24 and not self._control & 1 << 24:
            assert self.read_0() & 1 << 17, "the PLL starts without its source"
        self._control = value

    def write_4(self, value: int) -> None:
        assert not self._control & 1 << 24, "PLLCFGR is written while the PLL runs"
        self.values[0x04] = value

    def read_8(self) -> int:
        return self._config | (self._config & 3) << 2

    def write_8(self, value: int) -> None:
        if value & 3:
            assert value & 3 == 2 and self.read_0() & 1 << 25, "the PLL is not ready"
        self._config = value

    @property
    def core_hz(self) -> float:
        if not self._config & 3:
            return 16e6
        config = self.values[0x04]
        assert config >> 22 & 1, "the PLL's source is not the crystal"
        at_input = self._crystal_hz / (config & 63)
        vco = at_input * (config >> 6 & 511)
        assert 0.95e6 <= at_input <= 2.1e6 and 100e6 <= vco <= 432e6
        hertz = vco / (2, 4, 6, 8)[config >> 16 & 3]
        assert hertz <= self._most_hz
        assert self._config >> 4 & 15 == 0
        return hertz

    def bus_hz(self, bus: int) -> float:
        prescaler = self._config >> (10, 13)[bus - 1] & 7
        hertz = self.core_hz / (1 << (prescaler & 3) + 1 if prescaler & 4 else 1)
        assert hertz <= self._most_hz / (4, 2)[bus - 1]
        return hertz


class PowerF4(Block):
    """PWR of the F4; with `overdrive`, of the F7."""

    def __init__(self, rcc: RccF4, overdrive: bool) -> None:
        super().__init__(0x4000_7000)
        self._rcc, self._overdrive = rcc, overdrive

    def reset(self) -> None:
        self._control = 0xC000

    def read_0(self) -> int:
        return self._control

    def write_0(self, value: int) -> None:
        assert self._rcc.values[0x40] >> 28 & 1, "PWR has no clock"
        self._control = value

    def read_4(self) -> int:
        assert self._overdrive
        return 1 << 14 | self._control & (1 << 16 | 1 << 17)

    def check(self, core_hz: float) -> None:
        assert self._control >> 14 & 1, "voltage scale 1"
        if core_hz > 180e6:
            assert self._control >> 16 & 3 == 3, "more than 180 MHz need over-drive"


def check_baud(clock_hz: float, divider: float, baud: int) -> None:
    assert abs(clock_hz / divider / baud - 1) < 0.015, f"{clock_hz / divider:.0f} baud"


class Stm32F4(Chip):
    """STM32F407 (`f7` false) or STM32F746."""

    def __init__(self, f7: bool = False) -> None:
        kib = 1024
        self._f7 = f7
        self.rcc = RccF4(25_000_000 if f7 else 8_000_000, 216_000_000 if f7 else 168_000_000)
        self._power = PowerF4(self.rcc, f7)
        self.flash = FlashF4(
            [32 * kib] * 4 + [128 * kib] + [256 * kib] * 3
            if f7
            else [16 * kib] * 4 + [64 * kib] + [128 * kib] * 7
        )
        self.serial: Any = UsartV2(0x4001_1000) if f7 else UsartV1(0x4000_4400)
        self.ports = [Gpio(0x4002_0000 + 0x400 * i, self.rcc, (0x30, i)) for i in range(2)]
        self.blocks = [self.rcc, self._power, self.flash, self.serial, *self.ports]

    def attach(self, machine: Machine) -> None:
        self.storage = self.flash.storage = Storage(machine, self.flash.program)

    def check_line(self, baud: int) -> None:
        wait_states = self.flash.values[0] & 15
        assert wait_states >= -(-self.rcc.core_hz // 30e6) - 1, "flash is read too fast"
        self._power.check(self.rcc.core_hz)
        a, b = self.ports
        if self._f7:
            assert self.rcc.values[0x44] >> 4 & 1 and a.function(9) == b.function(7) == 7
            check_baud(self.rcc.bus_hz(2), self.serial.values[0x0C], baud)
        else:
            assert self.rcc.values[0x40] >> 17 & 1 and a.function(2) == a.function(3) == 7
            check_baud(self.rcc.bus_hz(1), self.serial.values[0x08], baud)
