# SPDX-License-Identifier: Apache-2.0
"""Flash that the firmware rewrites: RAM to unicorn, but each write is the controller's model's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import unicorn

from tests.boards.machine import Machine, PowerCut


class Storage:
    """The board's storage. `program(address, size, old, value)` fails where the controller does not
    accept a write. `cut_at`: the power fails at the so-many-th operation, counted from 1, which
    leaves anything in the unit or sector; with ECC, something that cannot be read: `torn`."""

    def __init__(
        self, machine: Machine, program: Callable[[int, int, int, int], None], ecc_bytes: int = 0
    ) -> None:
        storage = machine.board.storage
        assert storage is not None
        self.origin, self.size = storage.origin, storage.size_bytes
        self._machine, self._program, self._ecc_bytes = machine, program, ecc_bytes
        self.torn: set[int] = set()
        self.on_torn: Callable[[int], None] = lambda address: None
        self._on_read_hook: Any = None
        self.operations = self.cut_at = 0
        self._spoilt: tuple[int, bytes] | None = None
        uc, last = machine.uc, self.origin + self.size - 1
        uc.mem_map(self.origin, self.size, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
        uc.mem_write(self.origin, b"\xff" * self.size)
        uc.hook_add(unicorn.UC_HOOK_MEM_WRITE, self._on_write, None, self.origin, last)

    def erase(self, address: int, size: int) -> None:
        assert self.origin <= address and address + size <= self.origin + self.size
        if self._fails():
            self._tear(address, size // 2)
        self._machine.uc.mem_write(address, b"\xff" * size)
        self.torn -= set(range(address, address + size))

    def power_on(self) -> None:
        """What the power failed in holds anything. (The store itself was carried out.)"""
        if self._spoilt is not None:
            self._machine.uc.mem_write(*self._spoilt)
            self._spoilt = None

    def _fails(self) -> bool:
        self.operations += 1
        return self.operations == self.cut_at

    def _tear(self, address: int, size: int) -> None:
        self._spoilt = address, self._machine.rng.bytes(size)
        if self._ecc_bytes:
            first = address - address % self._ecc_bytes
            self.torn.update(range(first, address + size, self._ecc_bytes))
            self._machine.uc.hook_add(
                unicorn.UC_HOOK_MEM_READ, self._on_read, None, first, address + size - 1
            )
        raise PowerCut

    def _on_write(self, uc: Any, kind: int, address: int, size: int, value: int, data: Any) -> None:
        old = int.from_bytes(uc.mem_read(address, size), "little")
        self._program(address, size, old, value & (1 << 8 * size) - 1)
        if self._fails():
            self._tear(address, size)

    def _on_read(self, uc: Any, kind: int, address: int, size: int, value: int, data: Any) -> None:
        for unit in {
            address - address % self._ecc_bytes,
            (address + size - 1) // self._ecc_bytes * self._ecc_bytes,
        }:
            if unit in self.torn:
                self.on_torn(unit)
