# SPDX-License-Identifier: Apache-2.0
"""Real boards without one: their firmware against models of their peripherals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.boards.machine import Chip
from tests.boards.nrf52 import Nrf52840
from tests.boards.rp2040 import Rp2040
from tests.boards.stm32 import Stm32F4
from tests.boards.stm32_ecc import Stm32H753, Stm32L552

CHIPS: dict[str, Callable[[], Chip]] = {
    "stm32f4-discovery": Stm32F4,
    "stm32f746g-disco": partial(Stm32F4, f7=True),
    "nrf52840-dk": Nrf52840,
    "nucleo-h753zi": Stm32H753,
    "nucleo-l552ze-q": Stm32L552,
    "raspberry-pi-pico": Rp2040,
}
