# SPDX-License-Identifier: Apache-2.0
"""The firmware project around the generated network: board files, kernels, build files.

    src/                  the firmware around the network (model.* and data.* come from the
                          emitter)
    kernels/              the kernels in use and their headers; kernels/armv7em/ the faster ones
                          and the assembly that they share
    board/                startup.c, port.c, board.h, link.ld; board/libc/ for zig and clang
    host/                 the port of the developer's machine
    Makefile, CMakeLists.txt

Everything is copied, so a project outlives the Python package that wrote it. Same arguments,
same bytes.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from tte.board import (
    FLASH_REGIONS,
    SRAM_REGIONS,
    Board,
    MpuRegion,
    enforced_flash_bytes,
    enforced_sram_bytes,
    mpu_regions,
)
from tte.errors import DoesNotFit, TteError
from tte.resources import boards_dir, runtime_dir

OPTIMISE_FLAG = "-O3"
COMPILE_FLAGS = (
    "-std=c99",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-pedantic",
    "-ffunction-sections",
    "-fdata-sections",
)
LINK_FLAGS = (
    "-nostartfiles",
    "-Wl,--gc-sections",
    "-Wl,--entry=tte_reset",
    "-Wl,-z,noexecstack",
)

# Region attributes (RASR): never executed, access rights, memory type; Armv7-M manual B3.5.9.
_FLASH_ATTRIBUTES = 6 << 24 | 1 << 17  # read-only, normal write-through
_SRAM_ATTRIBUTES = 1 << 28 | 3 << 24 | 1 << 18 | 1 << 17  # read-write, the same, shareable
_STORAGE_ATTRIBUTES = 1 << 28 | 3 << 24 | 1 << 18  # read-write, strongly ordered
_PERIPHERAL_ATTRIBUTES = 1 << 28 | 3 << 24 | 1 << 18 | 1 << 16  # read-write, device


def project_files(
    board: Board,
    sram_limit_bytes: int,
    flash_limit_bytes: int,
    stack_reserve_bytes: int,
    kernel_sources: list[str],
) -> dict[str, str]:
    """All of a project but src/model.*: relative path -> text.

    `kernel_sources` are paths below runtime_c/src: "tte_add_int8.c" is the portable kernel,
    "armv7em/tte_add_int8.c" the faster one for the board, with the portable one for the host.
    """
    _check_limits(board, sram_limit_bytes, flash_limit_bytes, stack_reserve_bytes)
    files = _copies(board) | _kernels(kernel_sources)
    values: dict[str, object] = {
        "board": board,
        "sram_bytes": enforced_sram_bytes(board, sram_limit_bytes),
        "flash_bytes": enforced_flash_bytes(board, flash_limit_bytes),
        "stack_bytes": stack_reserve_bytes,
        "regions": _region_registers(board, sram_limit_bytes, flash_limit_bytes),
        "optimise": OPTIMISE_FLAG,
        "compile_flags": COMPILE_FLAGS,
        "link_flags": LINK_FLAGS,
    }
    for path, template in (
        ("board/board.h", "board.h.j2"),
        ("board/link.ld", "link.ld.j2"),
        ("Makefile", "Makefile.j2"),
        ("CMakeLists.txt", "CMakeLists.txt.j2"),
    ):
        files[path] = render(template, values)
    return dict(sorted(files.items()))


def _check_limits(board: Board, sram: int, flash: int, stack: int) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", board.name):
        raise TteError(f"{board.name!r} is no name for a board", hint="letters, digits, '-'")
    for what, limit, memory in (("SRAM", sram, board.sram), ("flash", flash, board.flash)):
        if not 0 < limit <= memory.largest_bytes:
            raise TteError(
                f"{board.name} has no {what} limit of {limit} bytes",
                why=f"its {what} has {memory.largest_bytes} bytes",
                hint=f"--{what.lower()} takes 1 to {memory.largest_bytes}",
            )
    if stack <= 0 or stack % 8:
        raise TteError(
            f"a stack of {stack} bytes is not possible", why="it must be a multiple of 8 bytes"
        )
    if stack >= enforced_sram_bytes(board, sram):
        raise DoesNotFit(f"the stack of {stack} bytes alone exceeds the SRAM limit of {sram} bytes")


def _region_registers(board: Board, sram_limit: int, flash_limit: int) -> list[tuple[int, int]]:
    peripherals = mpu_regions(board.peripherals.origin, board.peripherals.size_bytes, 1)
    flash = mpu_regions(board.flash.origin, flash_limit, FLASH_REGIONS)
    sram = mpu_regions(board.sram.origin, sram_limit, SRAM_REGIONS)
    storage: tuple[MpuRegion, ...] = ()
    if board.storage is not None:
        storage = mpu_regions(board.storage.origin, board.storage.size_bytes, 1)
    return [
        (region.base, attributes | _size_bits(region))
        for regions, attributes in (
            (flash, _FLASH_ATTRIBUTES),
            (sram, _SRAM_ATTRIBUTES),
            (storage, _STORAGE_ATTRIBUTES),
            (peripherals, _PERIPHERAL_ATTRIBUTES),
        )
        for region in regions
    ]


def _size_bits(region: MpuRegion) -> int:
    size_log2 = region.size_bytes.bit_length() - 1
    return region.disabled_eighths << 8 | (size_log2 - 1) << 1 | 1


def _copies(board: Board) -> dict[str, str]:
    boards, runtime = boards_dir(), runtime_dir()
    files = {
        "host/port.c": _read(boards / "common" / "host" / "port.c"),
        "board/libc/string.h": _read(boards / "common" / "libc" / "string.h"),
    }
    for folder in ("firmware", "link"):
        for path in (runtime / folder).glob("*.[ch]"):
            files[f"src/{path.name}"] = _read(path)
    for source in board.sources:
        files[f"board/{PurePosixPath(source).name}"] = _read(boards / source)
    return files


def _kernels(kernel_sources: list[str]) -> dict[str, str]:
    runtime = runtime_dir()
    files = {f"kernels/{path.name}": _read(path) for path in (runtime / "include").glob("*.h")}
    wanted = set(kernel_sources) | {PurePosixPath(source).name for source in kernel_sources}
    for source in wanted:
        if not re.fullmatch(r"(armv7em/)?[a-z0-9_]+\.c", source):
            raise TteError(f"{source!r} is no kernel source", where="kernel_sources")
        files[f"kernels/{source}"] = _read(runtime / "src" / source)
        folder = PurePosixPath(source).parent
        for shared in (runtime / "src" / folder).glob("*.[hS]"):
            files[str("kernels" / folder / shared.name)] = _read(shared)
    return files


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise TteError("a source file of the runtime is missing", where=str(path)) from error


def render(template: str, values: dict[str, object]) -> str:
    """A template of this folder, with strict undefined names and no escaping."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)
