# SPDX-License-Identifier: Apache-2.0
"""The firmware project around the generated network: board files, kernels, build files.

    src/                  the firmware around the network (model.* and data.* come from the
                          emitter)
    kernels/              the kernels in use and their headers; kernels/armv7em/ the faster ones
                          and the assembly that they share
    board/                startup.c, port.c, board.h, link.ld; board/libc/ for zig and clang
    board/renode/         what takes the place of all of it but startup.c on Renode's bare core
    host/                 the port of the developer's machine
    client/               for programs that talk to the device: a library and an example
    Makefile; CMakeLists.txt and its toolchain; platformio.ini; zephyr/, a module of the network

Everything is copied, so a project outlives the Python package that wrote it. Same arguments,
same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from tte.board import Board, enforced_limits
from tte.codegen.mpu import MAIR0, mpu_registers
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
# The port for Renode's bare core, relative to the boards folder.
RENODE_SOURCES = ("common/emulated/flash.c", "common/cmsdk_uart/port.c")


# Each is a template of this name, but for the folder board/.
TEMPLATES = (
    "board/board.h",
    "board/link.ld",
    "Makefile",
    "CMakeLists.txt",
    "arm-none-eabi.cmake",
    "zephyr/module.yml",
    "zephyr/Kconfig",
    "zephyr/CMakeLists.txt",
)


def network_kernels(files: Iterable[str]) -> list[str]:
    """The kernels and their assembly in a project of these files: a portable one only where there
    is no faster one."""
    kernels = [name for name in files if re.fullmatch(r"kernels/.*\.[cS]", name)]
    fast = {PurePosixPath(name).name for name in kernels if "/armv7em/" in name}
    return sorted(
        name for name in kernels if "/armv7em/" in name or PurePosixPath(name).name not in fast
    )


def project_files(
    board: Board,
    sram_limit_bytes: int,
    flash_limit_bytes: int,
    stack_reserve_bytes: int,
    kernel_sources: list[str],
    trained_bytes: int = 0,
) -> dict[str, str]:
    """All of a project but src/model.*: relative path -> text.

    `trained_bytes` say whether the trained tensors fit into the board's fast memory.
    `kernel_sources` are paths below runtime_c/src: "tte_add_int8.c" is the portable kernel,
    "armv7em/tte_add_int8.c" the faster one for the board, with the portable one for the host.
    """
    _check_limits(board, sram_limit_bytes, flash_limit_bytes, stack_reserve_bytes)
    limits = enforced_limits(
        board, sram_limit_bytes, flash_limit_bytes, stack_reserve_bytes, trained_bytes
    )
    if stack_reserve_bytes >= (limits.fast_bytes or limits.sram_bytes):
        raise DoesNotFit(
            f"the stack of {stack_reserve_bytes} bytes alone exceeds the SRAM limit of"
            f" {sram_limit_bytes} bytes"
        )
    files = _copies(board) | _kernels(kernel_sources)
    storage = board.storage_beside(flash_limit_bytes)
    values: dict[str, object] = {
        "board": board,
        "limits": limits,
        "storage": storage,
        "stack_bytes": stack_reserve_bytes,
        "regions": mpu_registers(board, limits, storage),
        "mair0": MAIR0,
        "optimise": OPTIMISE_FLAG,
        "compile_flags": COMPILE_FLAGS,
        "link_flags": LINK_FLAGS,
    }
    network = ["src/data.c", "src/model.c", *network_kernels(files)]
    values["network_sources"] = sorted(network)
    firmware = [name for name in files if re.fullmatch(r"(src|board)/[^/]+\.c", name)]
    values["sources"] = sorted({*network, *firmware})
    for path in TEMPLATES + (("platformio.ini",) if board.platformio and board.uart else ()):
        files[path] = render(f"{path.removeprefix('board/')}.j2", values)
    return dict(sorted(files.items()))


def _check_limits(board: Board, sram: int, flash: int, stack: int) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", board.name):
        raise TteError(f"{board.name!r} is no name for a board", hint="letters, digits, '-'")
    for what, limit, largest in (
        ("SRAM", sram, board.largest_sram_bytes),
        ("flash", flash, board.flash.largest_bytes),
    ):
        if not 0 < limit <= largest:
            raise TteError(
                f"{board.name} has no {what} limit of {limit} bytes",
                why=f"its {what} has {largest} bytes",
                hint=f"--{what.lower()} takes 1 to {largest}",
            )
    if stack <= 0 or stack % 8:
        raise TteError(
            f"a stack of {stack} bytes is not possible", why="it must be a multiple of 8 bytes"
        )


def _copies(board: Board) -> dict[str, str]:
    boards, runtime = boards_dir(), runtime_dir()
    files = {
        "host/port.c": _read(boards / "common" / "host" / "port.c"),
        "board/libc/string.h": _read(boards / "common" / "libc" / "string.h"),
    }
    for folder, target in (("firmware", "src"), ("link", "src"), ("client", "client")):
        for path in (runtime / folder).glob("*.[ch]"):
            files[f"{target}/{path.name}"] = _read(path)
    for source in board.sources:
        files[f"board/{PurePosixPath(source).name}"] = _read(boards / source)
    for source in RENODE_SOURCES if board.is_bare_in_renode else ():
        files[f"board/renode/{PurePosixPath(source).name}"] = _read(boards / source)
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
