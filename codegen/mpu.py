# SPDX-License-Identifier: Apache-2.0
"""The MPU's registers for a board's memory: what board.h lists and startup.c writes.

Armv6-M and Armv7-M describe a region by RBAR and RASR (Armv7-M manual B3.5), Armv8-M by RBAR and
RLAR, which names one of the kinds of memory in MAIR0 (Armv8-M manual D1.2).
"""

from __future__ import annotations

from dataclasses import dataclass

from tte.board import FLASH_REGIONS, SRAM_REGIONS, Board, Limits, Storage, mpu_regions

# RASR: bit 28 never executed, 24-26 access, 19-21 TEX, 18 shareable, 17 cacheable, 16 bufferable.
_NO_EXECUTE, _READ_WRITE, _READ_ONLY = 1 << 28, 3 << 24, 6 << 24
_WRITE_THROUGH, _WRITE_BACK, _UNCACHED, _DEVICE = 1 << 17, 3 << 16, 1 << 19, 5 << 16

# Armv8-M: MAIR0 has these kinds of memory; RBAR: bit 0 never executed, bits 1-2 access.
MAIR0 = 0x00_44_04_FF
_V8_WRITE_BACK, _V8_DEVICE, _V8_UNCACHED = 0, 1, 2
_V8_NO_EXECUTE, _V8_READ_ONLY = 1, 3 << 1


@dataclass(frozen=True, slots=True)
class _Kind:
    rasr: int
    v8_rights: int
    v8_memory: int


_FLASH = _Kind(_READ_ONLY | _WRITE_THROUGH, _V8_READ_ONLY, _V8_WRITE_BACK)
_SRAM = _Kind(_NO_EXECUTE | _READ_WRITE | _WRITE_BACK, _V8_NO_EXECUTE, _V8_WRITE_BACK)
_PERIPHERALS = _Kind(_NO_EXECUTE | _READ_WRITE | _DEVICE, _V8_NO_EXECUTE, _V8_DEVICE)
# Normal memory, for it is read unaligned. Armv6-M has no TEX, and no caches either.
_STORAGE = _Kind(_NO_EXECUTE | _READ_WRITE | _UNCACHED, _V8_NO_EXECUTE, _V8_UNCACHED)
_STORAGE_V6 = _Kind(_NO_EXECUTE | _READ_WRITE | _WRITE_THROUGH, 0, 0)


def mpu_registers(board: Board, limits: Limits, storage: Storage | None) -> list[tuple[int, int]]:
    """(RBAR, RASR) or, for Armv8-M, (RBAR, RLAR) of each region."""
    areas = [
        (board.flash.origin, limits.flash_bytes, FLASH_REGIONS, _FLASH),
        (board.sram.origin, limits.sram_bytes, SRAM_REGIONS, _SRAM),
        (board.peripherals.origin, board.peripherals.size_bytes, 1, _PERIPHERALS),
    ]
    if board.fast is not None:
        areas.append((board.fast.origin, limits.fast_bytes, 1, _SRAM))
    if storage is not None:
        kind = _STORAGE_V6 if board.is_v6 else _STORAGE
        areas.append((storage.origin, storage.size_bytes, 1, kind))
    registers = []
    for origin, size, at_most, kind in areas:
        if board.is_v8:
            last = origin + size - 32
            registers.append((origin | kind.v8_rights, last | kind.v8_memory << 1 | 1))
            continue
        for region in mpu_regions(origin, size, at_most):
            size_log2 = region.size_bytes.bit_length() - 1
            size_bits = region.disabled_eighths << 8 | (size_log2 - 1) << 1 | 1
            registers.append((region.base, kind.rasr | size_bits))
    return registers
