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

# An Armv7-M MPU has eight regions: these, one for the storage and one for the peripherals. Fast
# memory takes one of those of SRAM.
SRAM_REGIONS = 4
FLASH_REGIONS = 2

# What initialised data take in fast memory besides the trained tensors, at most.
SMALL_DATA_BYTES = 512


# What can bring a firmware onto a board; "uf2" copies a file to the volume that the board shows.
FLASH_TOOLS = ("pyocd", "openocd", "st-flash", "nrfjprog", "nrfutil", "picotool", "uf2")


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
class Uart:
    """The serial line to the host: the port's name in the manuals, its interrupt's number, and how
    a host is connected to it."""

    name: str
    irq: int
    baud: int
    connection: str


@dataclass(frozen=True, slots=True)
class Probe:
    """How the board is flashed: the tools that fit it, the preferred one first, and what they call
    it. "" where a tool does not know the board."""

    tools: tuple[str, ...]
    pyocd_target: str
    openocd_config: str
    nrf_family: str
    uf2_volume: str


@dataclass(frozen=True, slots=True)
class PlatformIo:
    """What PlatformIO calls the board."""

    platform: str
    board: str


@dataclass(frozen=True, slots=True)
class Board:
    """What board.toml says. `sources` are relative to the boards folder. `fast` is memory closest
    to the core, for the stack and the trained tensors. A board that only exists in emulators has
    no `uart` and no `probe`."""

    name: str
    description: str
    core: str
    clock_hz: int
    flash: Memory
    sram: Memory
    fast: Memory | None
    peripherals: Memory
    storage: Storage | None
    uart: Uart | None
    probe: Probe | None
    uf2_family: int | None
    platformio: PlatformIo | None
    stack_reserve_bytes: int
    sources: tuple[str, ...]
    gcc_flags: tuple[str, ...]
    zig_flags: tuple[str, ...]
    clang_flags: tuple[str, ...]
    emulators: tuple[str, ...]
    qemu_machine: str
    unicorn_cpu: str
    renode_platform: str
    renode_uart: str
    # Memories of Renode's platform: name -> (origin, size in bytes).
    renode_memory: dict[str, tuple[int, int]]

    @property
    def is_bare_in_renode(self) -> bool:
        """Whether Renode runs this board as a bare core with a port of its own."""
        return "renode" in self.emulators and not self.renode_platform

    @property
    def has_dsp(self) -> bool:
        """Whether the core has the DSP extension (SMLAD and its kin), as src/armv7em/ needs."""
        return self.core.startswith(("cortex-m4", "cortex-m7", "cortex-m33"))

    @property
    def is_v6(self) -> bool:
        """Armv6-M: the MPU's regions have 256 bytes at least, and faults tell nothing."""
        return self.core.startswith("cortex-m0")

    @property
    def is_v8(self) -> bool:
        """Armv8-M: an MPU of another kind, whose regions end at any multiple of 32 bytes."""
        return self.core.startswith("cortex-m33")

    @property
    def has_caches(self) -> bool:
        """Whether the core has caches of its own, to be turned on at start-up."""
        return self.core.startswith("cortex-m7")

    @property
    def sram_bytes(self) -> int:
        """All SRAM that a program may be given: the default limit."""
        return self.sram.size_bytes + (self.fast.size_bytes if self.fast else 0)

    @property
    def largest_sram_bytes(self) -> int:
        return self.sram.largest_bytes + (self.fast.size_bytes if self.fast else 0)

    def storage_beside(self, flash_limit_bytes: int) -> Storage | None:
        """The storage, or None where a program of this size needs its flash."""
        end = self.flash.origin + flash_limit_bytes
        if self.storage and self.flash.origin <= self.storage.origin < end:
            return None
        return self.storage


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


@dataclass(frozen=True, slots=True)
class Limits:
    """What a firmware may use of each memory, in bytes: its linker script and its MPU say so."""

    flash_bytes: int
    sram_bytes: int
    fast_bytes: int = 0
    data_is_fast: bool = False


def enforced_limits(
    board: Board,
    sram_limit_bytes: int,
    flash_limit_bytes: int,
    stack_bytes: int = 0,
    trained_bytes: int = 0,
) -> Limits:
    """Divides the SRAM limit between fast memory and SRAM. Fast memory takes the stack and, where
    they fit, the trained tensors; more of it is used where the limit exceeds the SRAM."""
    flash = _enforced(board, board.flash.origin, flash_limit_bytes, FLASH_REGIONS)
    if board.fast is None:
        return Limits(flash, _enforced(board, board.sram.origin, sram_limit_bytes, SRAM_REGIONS))
    hot = stack_bytes + trained_bytes + SMALL_DATA_BYTES
    data_is_fast = hot <= board.fast.size_bytes
    if not data_is_fast:
        hot = stack_bytes
    fast = max(_in_eighths(hot), sram_limit_bytes - board.sram.largest_bytes)
    fast = min(fast, board.fast.size_bytes, sram_limit_bytes)
    fast = _enforced(board, board.fast.origin, fast, 1)
    sram = min(board.sram.largest_bytes, sram_limit_bytes - fast)
    sram = _enforced(board, board.sram.origin, sram, SRAM_REGIONS - 1)
    return Limits(flash, sram, fast, data_is_fast)


def enforced_sram_bytes(board: Board, limit_bytes: int) -> int:
    """The SRAM that firmware for this limit gets, in bytes, on a board without fast memory."""
    return enforced_limits(board, limit_bytes, board.flash.size_bytes).sram_bytes


def enforced_flash_bytes(board: Board, limit_bytes: int) -> int:
    """The flash that firmware for this limit gets, in bytes."""
    return enforced_limits(board, board.sram.size_bytes, limit_bytes).flash_bytes


def _enforced(board: Board, origin: int, limit_bytes: int, at_most: int) -> int:
    if board.is_v8:
        return limit_bytes & ~31
    return enforced_bytes(origin, limit_bytes & ~255 if board.is_v6 else limit_bytes, at_most)


def _in_eighths(size_bytes: int) -> int:
    """Rounded up to what one MPU region can enforce."""
    step = max(256, (1 << (size_bytes - 1).bit_length()) // 8)
    return -(-size_bytes // step) * step


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
        fast=_memory(memory["fast"]) if "fast" in memory else None,
        peripherals=_memory(memory["peripherals"]),
        storage=_storage(table["storage"]) if "storage" in table else None,
        uart=_uart(table["uart"]) if "uart" in table else None,
        probe=_probe(table["probe"]) if "probe" in table else None,
        platformio=PlatformIo(**table["platformio"]) if "platformio" in table else None,
        uf2_family=int(table["uf2_family"]) if "uf2_family" in table else None,
        stack_reserve_bytes=int(table["stack_reserve_bytes"]),
        sources=tuple(table["sources"]),
        gcc_flags=tuple(compiler["gcc"]),
        zig_flags=tuple(compiler["zig"]),
        clang_flags=tuple(compiler["clang"]),
        emulators=tuple(emulator["kinds"]),
        qemu_machine=str(emulator.get("qemu_machine", "")),
        unicorn_cpu=str(emulator.get("unicorn_cpu", "")),
        renode_platform=str(emulator.get("renode_platform", "")),
        renode_uart=str(emulator.get("renode_uart", "")),
        renode_memory={
            str(name): (int(origin), int(size))
            for name, (origin, size) in emulator.get("renode_memory", {}).items()
        },
    )


def _memory(table: dict[str, Any]) -> Memory:
    size_bytes = int(table["size_bytes"])
    return Memory(int(table["origin"]), size_bytes, int(table.get("largest_bytes", size_bytes)))


def _uart(table: dict[str, Any]) -> Uart:
    return Uart(
        name=str(table["name"]),
        irq=int(table["irq"]),
        baud=int(table["baud"]),
        connection=str(table["connection"]),
    )


def _probe(table: dict[str, Any]) -> Probe:
    tools = tuple(map(str, table["tools"]))
    for tool in tools:
        if tool not in FLASH_TOOLS:
            raise ValueError(f"[probe] has the tool {tool!r}, not one of {', '.join(FLASH_TOOLS)}")
    return Probe(
        tools=tools,
        pyocd_target=str(table.get("pyocd_target", "")),
        openocd_config=str(table.get("openocd_config", "")),
        nrf_family=str(table.get("nrf_family", "")),
        uf2_volume=str(table.get("uf2_volume", "")),
    )


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
