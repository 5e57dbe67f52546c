# SPDX-License-Identifier: Apache-2.0
"""Platform descriptions and scripts for Renode.

A board that Renode models is its platform with the sizes changed; any other is a bare Cortex-M with
a serial line, for which board/renode/ of the project has a port. Every script writes absolute
paths without spaces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from tte.board import Board, Limits
from tte.codegen.project import render
from tte.errors import TteError

BARE_UART = "sysbus.uart"
_PAGE_BYTES = 4096
# How far behind the end of a memory an access is named by its tag.
_TAGGED_BYTES = 1 << 20
# Of its own time, without a request; then the script ends, for whoever started it is gone.
_IDLE_MS = 600_000
# For emulate.robot and emulate.resc: of the machine's own time, a TCP port, digits in a line.
_SESSION_LIMIT_MS = 600_000
_PORT = 29170
_LINE = 64
# What Renode calls a core where that is not our name.
_CPU_TYPES = {"cortex-m0plus": "cortex-m0+", "cortex-m7f": "cortex-m7", "cortex-m33f": "cortex-m33"}


@dataclass(frozen=True, slots=True)
class Session:
    """What to send to a firmware: a greeting, and a request for each training step. `loss`: of
    the last step, an integer and its unit."""

    requests: list[bytes]
    loss: int
    loss_scale: float


@dataclass(frozen=True, slots=True)
class Area:
    """Memory, in whole pages."""

    name: str
    origin: int
    size_bytes: int

    @property
    def end(self) -> int:
        return self.origin + self.size_bytes


def uart_of(board: Board) -> str:
    """The serial line's name in Renode."""
    return f"sysbus.{board.renode_uart}" if board.renode_platform else BARE_UART


def platform_text(board: Board, limits: Limits, flash_limit_bytes: int) -> str:
    """board.repl: the machine with exactly the memory that the limits allow."""
    resized, missing = _memories(board, limits, flash_limit_bytes)
    values: dict[str, object] = {
        "board": board,
        "resized": resized,
        "memories": missing,
        "cpu_type": _CPU_TYPES.get(board.core, board.core),
        "mips": max(1, board.clock_hz // 1_000_000),
    }
    return render("renode/board.repl.j2", values)


def run_script(
    board: Board,
    limits: Limits,
    flash_limit_bytes: int,
    folder: PurePosixPath,
    vectors: int,
    counter: int,
) -> str:
    """run.resc: runs folder/firmware.elf on folder/board.repl. `vectors`: where its vector table
    is, `counter`: the function whose calls delimit what is counted."""
    if not str(folder).isascii() or any(c in str(folder) for c in " \"'\\$`"):
        raise TteError(
            "Renode cannot work in this folder",
            where=str(folder),
            why="its scripts take no spaces, quotes or letters beyond ASCII in a path",
            hint="set TMPDIR to a plain path like /tmp",
        )
    values: dict[str, object] = {
        "folder": folder,
        "outside": list(outside(board, limits, flash_limit_bytes)),
        "uart": uart_of(board),
        "vectors": vectors,
        "counter": counter & ~1,
        "idle_ms": _IDLE_MS,
        "bytes_per_ms": _bytes_per_ms(board),
    }
    return render("renode/run.resc.j2", values)


def project_files(
    board: Board, limits: Limits, flash_limit_bytes: int, session: Session
) -> dict[str, str]:
    """What people run by hand: renode/emulate.resc, and emulate.robot with renode-test."""
    values: dict[str, object] = {
        "board": board,
        "uart": uart_of(board),
        "outside": list(outside(board, limits, flash_limit_bytes)),
        "elf": elf_of(board),
        "port": _PORT,
        "is_bare": board.is_bare_in_renode,
        "bytes_per_ms": _bytes_per_ms(board),
        "requests": [list(_lines(request.hex())) for request in session.requests],
        "steps": len(session.requests) - 1,
        "loss": session.loss,
        "loss_scale": session.loss_scale,
        "limit_ms": _SESSION_LIMIT_MS,
        "sram_end": board.sram.origin + limits.sram_bytes,
    }
    return {
        "renode/board.repl": platform_text(board, limits, flash_limit_bytes),
        "renode/emulate.resc": render("renode/emulate.resc.j2", values),
        "renode/session.resc": render("renode/session.resc.j2", values),
        "emulate.robot": render("renode/emulate.robot.j2", values),
    }


def _lines(digits: str) -> Iterator[str]:
    for start in range(0, len(digits), _LINE):
        yield digits[start : start + _LINE]


def elf_of(board: Board) -> str:
    """The firmware that Renode runs, in build/."""
    return "renode.elf" if board.is_bare_in_renode else "firmware.elf"


def _bytes_per_ms(board: Board) -> int:
    """How fast requests may come. The bare port polls a queue without end; a driver of a board
    loses what comes faster than its line."""
    if not board.renode_platform or board.uart is None:
        return 1 << 30
    return max(1, board.uart.baud // 10_000)


def _areas(board: Board, limits: Limits, flash_limit_bytes: int) -> list[Area]:
    areas = [
        Area("flash", board.flash.origin, _pages(limits.flash_bytes)),
        Area("sram", board.sram.origin, _pages(limits.sram_bytes)),
    ]
    if board.fast is not None:
        areas.append(Area("fast", board.fast.origin, _pages(limits.fast_bytes)))
    storage = board.storage_beside(flash_limit_bytes)
    if storage is not None:
        areas.append(Area("storage", storage.origin, _pages(storage.size_bytes)))
    return areas


def _memories(
    board: Board, limits: Limits, flash_limit_bytes: int
) -> tuple[list[Area], list[Area]]:
    """Memories of Renode's platform with the sizes that they get, and those that it lacks."""
    areas = _areas(board, limits, flash_limit_bytes)
    resized = []
    for name, (origin, size) in board.renode_memory.items():
        end = origin + size
        used = [min(a.end, end) for a in areas if a.origin < end and a.end > origin]
        if used:
            resized.append(Area(name, origin, max(used) - origin))
    missing = [
        area
        for area in areas
        if not any(memory.origin <= area.origin < memory.end for memory in resized)
    ]
    return resized, missing


def outside(board: Board, limits: Limits, flash_limit_bytes: int) -> Iterator[tuple[str, int, int]]:
    """(name, first, last) of what lies behind each memory, up to the next: tags, so that Renode's
    log names them. One memory may hold two areas; what lies between them is left to the MPU."""
    resized, missing = _memories(board, limits, flash_limit_bytes)
    memories = [*resized, *missing]
    starts = [memory.origin for memory in memories] + [board.peripherals.origin]
    for area in _areas(board, limits, flash_limit_bytes):
        if any(memory.origin <= area.end < memory.end for memory in memories):
            continue
        end = min([start for start in starts if start >= area.end], default=1 << 32)
        end = min(end, area.end + _TAGGED_BYTES)
        if end > area.end:
            yield f"OUTSIDE_{area.name.upper()}", area.end, end - 1


def _pages(size_bytes: int) -> int:
    return -(-size_bytes // _PAGE_BYTES) * _PAGE_BYTES
