# SPDX-License-Identifier: Apache-2.0
"""Boards: one folder each under boards/, described by its board.toml.

Also the one place that turns a memory limit into MPU regions, so that the firmware, the linker
script and the emulators enforce the same number of bytes.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tte.errors import TteError
from tte.resources import boards_dir

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# An Armv7-M MPU has eight regions: these, one for the storage and one for the peripherals.
SRAM_REGIONS = 4
FLASH_REGIONS = 2


@dataclass(frozen=True, slots=True)
class Memory:
    """An address range. `size_bytes` is the default limit, `largest_bytes` what is really there."""

    origin: int
    size_bytes: int
    largest_bytes: int


@dataclass(frozen=True, slots=True)
class Storage:
    """Flash that the firmware rewrites, like tte_port_flash of tte_port.h: sectors of one size,
    the first `checkpoint_sectors` for checkpoints, the others for stored samples; `unit_bytes` are
    written at once, and only once between two erasures."""

    origin: int
    sector_bytes: int
    sectors: int
    unit_bytes: int
    checkpoint_sectors: int

    @property
    def size_bytes(self) -> int:
        return self.sectors * self.sector_bytes


@dataclass(frozen=True, slots=True)
class Board:
    """What board.toml says. `sources` are relative to the boards folder."""

    name: str
    description: str
    core: str
    clock_hz: int
    flash: Memory
    sram: Memory
    peripherals: Memory
    storage: Storage | None
    stack_reserve_bytes: int
    sources: tuple[str, ...]
    gcc_flags: tuple[str, ...]
    zig_flags: tuple[str, ...]
    clang_flags: tuple[str, ...]
    emulators: tuple[str, ...]
    qemu_machine: str
    unicorn_cpu: str

    @property
    def has_dsp(self) -> bool:
        """Whether the core has the DSP extension (SMLAD and its kin), as src/armv7em/ needs."""
        return self.core.startswith(("cortex-m4", "cortex-m7"))


@dataclass(frozen=True, slots=True)
class MpuRegion:
    """An Armv7-M MPU region: `size_bytes` a power of two >= 32, `base` a multiple of it. From
    256 bytes on, bit i of `disabled_eighths` takes the i-th eighth out of the region."""

    base: int
    size_bytes: int
    disabled_eighths: int

    @property
    def covered_bytes(self) -> int:
        return self.size_bytes * (8 - self.disabled_eighths.bit_count()) // 8


def mpu_regions(origin: int, limit_bytes: int, at_most: int) -> tuple[MpuRegion, ...]:
    """Regions that cover [origin, origin + limit) without a gap, from the largest to the smallest.

    Each takes the leading base-8 digit of what is left, so three regions reach 1/512 of the
    limit's power of two and four 1/4096; the rest, less than 32 bytes for limits up to 128 KiB
    and less than 64 for 256 KiB, is not covered.
    """
    regions: list[MpuRegion] = []
    base, left = origin, limit_bytes
    while left >= 32 and len(regions) < at_most:
        size = 1 << (left - 1).bit_length()
        if base:
            size = min(size, base & -base)
        if size >= 256:
            eighths = min(8, left // (size // 8))
        else:
            eighths = 8
            size = min(size, 1 << (left.bit_length() - 1))
        region = MpuRegion(base, size, 0xFF & ~((1 << eighths) - 1))
        regions.append(region)
        base += region.covered_bytes
        left -= region.covered_bytes
    return tuple(regions)


def enforced_bytes(origin: int, limit_bytes: int, at_most: int) -> int:
    """The part of a limit that `at_most` MPU regions can enforce: at most the limit."""
    return sum(region.covered_bytes for region in mpu_regions(origin, limit_bytes, at_most))


def enforced_sram_bytes(board: Board, limit_bytes: int) -> int:
    """The SRAM that firmware for this limit gets, in bytes."""
    return enforced_bytes(board.sram.origin, limit_bytes, SRAM_REGIONS)


def enforced_flash_bytes(board: Board, limit_bytes: int) -> int:
    """The flash that firmware for this limit gets, in bytes."""
    return enforced_bytes(board.flash.origin, limit_bytes, FLASH_REGIONS)


def list_boards() -> list[str]:
    """The names of all boards, sorted."""
    return sorted(path.parent.name for path in boards_dir().glob("*/board.toml"))


def load_board(name: str) -> Board:
    """The board of that name; a `TteError` that lists the boards where there is none."""
    names = list_boards()
    if name not in names:
        raise TteError(f"there is no board {name!r}", hint="boards: " + ", ".join(names))
    return read_board(boards_dir() / name / "board.toml")


def read_board(path: Path) -> Board:
    """Reads one board.toml and checks what later stages rely on."""
    try:
        text = path.read_text(encoding="utf-8")
        table: dict[str, Any] = tomllib.loads(text)
        return _board(table)
    except KeyError as error:
        raise TteError("the board file lacks a key", where=str(path), why=f"no {error}") from error
    except (OSError, TypeError, ValueError) as error:
        raise TteError("the board file cannot be read", where=str(path), why=str(error)) from error


def _board(table: dict[str, Any]) -> Board:
    memory, compiler, emulator = table["memory"], table["compiler"], table["emulator"]
    return Board(
        name=str(table["name"]),
        description=str(table["description"]),
        core=str(table["core"]),
        clock_hz=int(table["clock_hz"]),
        flash=_memory(memory["flash"]),
        sram=_memory(memory["sram"]),
        peripherals=_memory(memory["peripherals"]),
        storage=_storage(table["storage"]) if "storage" in table else None,
        stack_reserve_bytes=int(table["stack_reserve_bytes"]),
        sources=tuple(table["sources"]),
        gcc_flags=tuple(compiler["gcc"]),
        zig_flags=tuple(compiler["zig"]),
        clang_flags=tuple(compiler["clang"]),
        emulators=tuple(emulator["kinds"]),
        qemu_machine=str(emulator.get("qemu_machine", "")),
        unicorn_cpu=str(emulator.get("unicorn_cpu", "")),
    )


def _memory(table: dict[str, Any]) -> Memory:
    size_bytes = int(table["size_bytes"])
    return Memory(int(table["origin"]), size_bytes, int(table.get("largest_bytes", size_bytes)))


def _storage(table: dict[str, Any]) -> Storage:
    storage = Storage(
        origin=int(table["origin"]),
        sector_bytes=int(table["sector_bytes"]),
        sectors=int(table["sectors"]),
        unit_bytes=int(table["unit_bytes"]),
        checkpoint_sectors=int(table.get("checkpoint_sectors", table["sectors"])),
    )
    if storage.unit_bytes not in (4, 8, 16, 32, 64, 128, 256):
        raise ValueError(f"[storage] unit_bytes is {storage.unit_bytes}, not 4, 8, .. 256")
    if storage.sector_bytes <= 0 or storage.sector_bytes % storage.unit_bytes:
        raise ValueError("[storage] sector_bytes is no multiple of unit_bytes")
    if not 0 <= storage.checkpoint_sectors <= storage.sectors:
        raise ValueError("[storage] checkpoint_sectors is more than sectors")
    if enforced_bytes(storage.origin, storage.size_bytes, 1) != storage.size_bytes:
        raise ValueError(
            f"[storage] {storage.size_bytes} bytes at {storage.origin:#x} are not one MPU region: "
            "1 to 8 eighths of a power of two, at a multiple of it"
        )
    return storage
