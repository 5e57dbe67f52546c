# SPDX-License-Identifier: Apache-2.0
"""Models of the STM32H753 (RM0433) and STM32L552 (RM0438), whose flash has ECC."""

from __future__ import annotations

from unicorn import arm_const as arm

from tests.boards.machine import Block, Chip, Machine
from tests.boards.stm32 import KEYS, Gpio, UsartV2, check_baud
from tests.boards.storage import Storage


class Keys:
    """The lock of a flash controller."""

    def __init__(self) -> None:
        self.locked = True
        self._keys: list[int] = []

    def put(self, value: int) -> None:
        self._keys.append(value)
        assert self.locked and self._keys == KEYS[: len(self._keys)], "a wrong key"
        if self._keys == KEYS:
            self.locked, self._keys = False, []


# ---- STM32H753 ------------------------------------------------------------------------------


class FlashH7(Block):
    """Bank 2 and ACR. A flash word of 32 bytes is programmed when its last byte has come."""

    storage: Storage | None = None

    def reset(self) -> None:
        self.values = {0x00: 0x37}
        self._keys = Keys()
        self._control = self._status = 0
        self._word: list[int] = []

    def write_104(self, value: int) -> None:
        self._keys.put(value)

    def read_10c(self) -> int:
        return self._control | self._keys.locked

    def write_10c(self, value: int) -> None:
        assert not self._keys.locked, "CR2 is locked"
        assert not self._word, "a flash word is incomplete"
        if value & 1 << 7:
            assert value & 0xE == 4 and self._control & 0x70E == value & 0x70E
            assert self.storage is not None
            self.storage.erase(0x0810_0000 + (value >> 8 & 7) * 0x2_0000, 0x2_0000)
            value &= ~(1 << 7)
        self._control = value & ~1
        self._keys.locked = bool(value & 1)

    def read_110(self) -> int:
        return self._status | (2 if self._word else 0)

    def write_114(self, value: int) -> None:
        self._status &= ~value

    def program(self, address: int, size: int, old: int, value: int) -> None:
        assert self._control & 2 and not self._keys.locked, "PG2 is not set"
        assert size == 4 and old == 0xFFFF_FFFF, f"{address:#x} is written twice"
        assert address % 32 == 4 * len(self._word), "a flash word out of order"
        self._word.append(address)
        if len(self._word) == 8:
            self._word = []


class RccH7(Block):
    def reset(self) -> None:
        self.values = dict.fromkeys((24, 28, 32, 40, 44, 48, 80, 84, 224, 232), 0)
        self._control, self._config = 1, 0

    def read_0(self) -> int:
        return self._control | (self._control & (1 << 16 | 1 << 24)) << 1

    def write_0(self, value: int) -> None:
        if value & 1 << 16 and not self._control & 1 << 16:
            assert self._control & 1 << 18, "the clock of the ST-LINK needs HSEBYP before HSEON"
        self._control = value

    def read_10(self) -> int:
        return self._config | (self._config & 7) << 3

    def write_10(self, value: int) -> None:
        assert value == 3 and self.read_0() & 1 << 25, "the PLL is not ready"
        self._config = value

    @property
    def core_hz(self) -> float:
        if self._config != 3:
            return 64e6
        source, config, dividers = self.values[0x28], self.values[0x2C], self.values[0x30]
        assert source & 3 == 2 and config >> 16 & 1
        at_input = 8e6 / (source >> 4 & 63)
        low, high = ((1e6, 2e6), (2e6, 4e6), (4e6, 8e6), (8e6, 16e6))[config >> 2 & 3]
        assert low <= at_input <= high
        vco = at_input * ((dividers & 511) + 1)
        assert 192e6 <= vco <= 836e6 and not config >> 1 & 1
        assert self.values[0x18] >> 8 & 15 == 0
        return vco / ((dividers >> 9 & 127) + 1)

    @property
    def axi_hz(self) -> float:
        prescaler = self.values[0x18] & 15
        return self.core_hz / (1 << (prescaler & 7) + 1 if prescaler & 8 else 1)

    def bus_hz(self, register: int, shift: int) -> float:
        prescaler = self.values[register] >> shift & 7
        return self.axi_hz / (1 << (prescaler & 3) + 1 if prescaler & 4 else 1)


class PowerH7(Block):
    def reset(self) -> None:
        self.values = {0x0C: 0x46}
        self._supplied = False
        self._scale = 1 << 14

    def read_4(self) -> int:
        return int(self._supplied) << 13

    def write_c(self, value: int) -> None:
        assert not self._supplied and value & 7 == 2, "CR3: the LDO alone, once"
        self._supplied = True

    def read_18(self) -> int:
        return self._scale | 1 << 13

    def write_18(self, value: int) -> None:
        assert self._supplied, "the supply comes before the scale"
        self._scale = value & 3 << 14

    @property
    def is_full(self) -> bool:
        return self._scale == 3 << 14


class Stm32H753(Chip):
    def __init__(self) -> None:
        self.rcc, self.power = RccH7(0x5802_4400), PowerH7(0x5802_4800)
        self.flash, self.serial = FlashH7(0x5200_2000), UsartV2(0x4000_4800)
        self.port = Gpio(0x5802_0C00, self.rcc, (0xE0, 3))
        self.blocks: list[Block] = [self.rcc, self.power, self.flash, self.serial, self.port]

    def attach(self, machine: Machine) -> None:
        storage = self.storage = self.flash.storage = Storage(machine, self.flash.program, 32)

        def on_torn(address: int) -> None:
            """Two wrong bits: a flag, and a bus fault unless the firmware has turned those off."""
            self.flash._status |= 1 << 26
            ignores = machine.system.values.get(0xD14, 0) >> 8 & 1
            if not (ignores and machine.uc.reg_read(arm.UC_ARM_REG_FAULTMASK)):
                machine.stop(f"a bus fault: {address:#x} has two wrong bits")

        storage.on_torn = on_torn

    def check_line(self, baud: int) -> None:
        assert self.rcc.core_hz == 400e6 and self.power.is_full
        assert self.rcc.axi_hz == 200e6 and self.flash.values[0] == 0x22
        for register, shift in ((0x18, 4), (0x1C, 4), (0x1C, 8), (0x20, 4)):
            assert self.rcc.bus_hz(register, shift) <= 100e6
        assert self.rcc.values[0xE8] >> 18 & 1 and self.rcc.values[0x54] & 7 == 0
        assert self.port.function(8) == self.port.function(9) == 7
        check_baud(self.rcc.bus_hz(0x1C, 4), self.serial.values[0x0C], baud)


# ---- STM32L552 ------------------------------------------------------------------------------


class FlashL5(Block):
    """A double word is programmed when its second word has come."""

    storage: Storage | None = None

    def reset(self) -> None:
        self.values = {0x00: 0, 0x40: 1 << 22}
        self._keys = Keys()
        self._control = self._errors = self._ecc = 0
        self._first: int | None = None

    def write_8(self, value: int) -> None:
        self._keys.put(value)

    def read_20(self) -> int:
        return self._errors

    def write_20(self, value: int) -> None:
        self._errors &= ~value

    def read_28(self) -> int:
        return self._control | self._keys.locked << 31

    def write_28(self, value: int) -> None:
        assert not self._keys.locked, "NSCR is locked"
        assert self._first is None, "a double word is incomplete"
        if value & 1 << 16:
            assert value & 7 == 2 and self._control & 0xBFF == value & 0xBFF and value & 1 << 11
            assert self.storage is not None
            self.storage.erase(0x0804_0000 + (value >> 3 & 127) * 2048, 2048)
            value &= ~(1 << 16)
        self._control = value & ~(1 << 31)
        self._keys.locked = bool(value >> 31)

    def read_30(self) -> int:
        return self._ecc

    def write_30(self, value: int) -> None:
        self._ecc &= ~(value & 0xF << 28)

    def program(self, address: int, size: int, old: int, value: int) -> None:
        assert self._control & 1 and not self._keys.locked, "NSPG is not set"
        assert size == 4 and old == 0xFFFF_FFFF, f"{address:#x} is written twice"
        if self._first is None:
            assert address % 8 == 0
            self._first = address
        else:
            assert address == self._first + 4, "not the second word of a double word"
            self._first = None


class RccL5(Block):
    def reset(self) -> None:
        self.values = {0x0C: 0x1000, 0x4C: 0, 0x58: 0, 0x5C: 0, 0x88: 0}
        self._control, self._config = 0x63, 0

    def read_0(self) -> int:
        return self._control | (self._control & 1 << 24) << 1

    def write_0(self, value: int) -> None:
        self._control = value

    def read_8(self) -> int:
        return self._config | (self._config & 3) << 2

    def write_8(self, value: int) -> None:
        assert value == 3 and self.read_0() & 1 << 25, "the PLL is not ready"
        self._config = value

    @property
    def core_hz(self) -> float:
        if not self._config:
            return 4e6
        config = self.values[0x0C]
        assert config & 3 == 1 and config >> 24 & 1, "not from MSI, or the output is off"
        vco = 4e6 / ((config >> 4 & 15) + 1) * (config >> 8 & 127)
        assert 64e6 <= vco <= 344e6
        return vco / (2, 4, 6, 8)[config >> 25 & 3]


class PowerL5(Block):
    def reset(self) -> None:
        self.values = {0x00: 0x400, 0x04: 0, 0x14: 0}


class Icache(Block):
    def reset(self) -> None:
        self.values = {0x00: 4}


class Stm32L552(Chip):
    def __init__(self) -> None:
        self.rcc, self.power = RccL5(0x4002_1000), PowerL5(0x4000_7000)
        self.flash, self.serial = FlashL5(0x4002_2000), UsartV2(0x4000_8000)
        self.port, self.cache = Gpio(0x4202_1800, self.rcc, (0x4C, 6)), Icache(0x4003_0400)
        self.blocks: list[Block] = [
            *(self.rcc, self.power, self.flash, self.serial, self.port, self.cache)
        ]

    def attach(self, machine: Machine) -> None:
        storage = self.storage = self.flash.storage = Storage(machine, self.flash.program, 8)

        def on_torn(address: int) -> None:
            """Two wrong bits: the address is kept, and an NMI comes, here a little late."""
            self.flash._ecc |= 1 << 31 | 1 << 21 | address - 0x0804_0000
            machine.nmi_is_due = True

        storage.on_torn = on_torn

    def check_line(self, baud: int) -> None:
        assert self.rcc.core_hz == 110e6 and self.power.values[0] >> 9 & 3 == 0
        assert self.flash.values[0] & 15 >= 5 and self.cache.values[0] & 1
        assert self.power.values[4] >> 9 & 1, "port G has no supply"
        assert self.rcc.values[0x5C] & 1 and self.rcc.values[0x88] >> 10 & 3 == 0
        assert self.port.function(7) == self.port.function(8) == 8
        check_baud(256 * self.rcc.core_hz, self.serial.values[0x0C], baud)
