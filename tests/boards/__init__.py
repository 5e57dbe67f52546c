# SPDX-License-Identifier: Apache-2.0
"""Real boards without one: their firmware against models of their peripherals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.boards.machine import Chip
from tests.boards.stm32 import Stm32F4

CHIPS: dict[str, Callable[[], Chip]] = {
    "stm32f4-discovery": Stm32F4,
    "stm32f746g-disco": partial(Stm32F4, f7=True),
}
