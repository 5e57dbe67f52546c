# SPDX-License-Identifier: Apache-2.0
"""Words for what a firmware did wrong: the running op, the function, the address, the limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tte.emulate.image import FirmwareImage
from tte.errors import FirmwareFault

IDLE_OP = 0xFFFF
# TTE_PORT_RESTART of tte_port.h: the firmware asks to be started again.
RESTART_STATUS = 64
# How far below the stack pointer an access may fall and still be a push.
_PUSH_BYTES = 512


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """What the firmware may touch: [origin, origin + limit), in bytes."""

    flash_origin: int
    flash_limit_bytes: int
    sram_origin: int
    sram_limit_bytes: int


@dataclass(frozen=True, slots=True)
class Fault:
    """The state at a fault; None where the emulator could not tell. `access`: "read of 4 bytes"
    and the like; `reason`: what the emulator calls it. Where `pc` is not exact, the culprit is
    one of the instructions that follow it without a branch."""

    reason: str
    access: str = "access"
    pc: int | None = None
    pc_is_exact: bool = True
    sp: int | None = None
    address: int | None = None
    op: int = IDLE_OP


def memory_fault(
    fault: Fault, image: FirmwareImage, memory: MemoryMap, program: dict[str, Any]
) -> FirmwareFault:
    """The error for a fault of the emulated processor."""
    where = location(fault.op, fault.pc, image, program)
    if fault.pc is not None and not fault.pc_is_exact:
        where += " or a few instructions on"
    if _stack_overflowed(fault, memory):
        return FirmwareFault(
            "stack overflow: the firmware's stack pointer left SRAM",
            where=where,
            why=f"sp is {_hex(fault.sp)}, below SRAM at {_hex(memory.sram_origin)}; the stack has"
            f" {image.stack_bytes} bytes" + (f" ({fault.reason})" if fault.reason else ""),
            hint="a larger stack_reserve_bytes in board.toml, or an endless recursion ends here",
        )
    if fault.address is None:
        return FirmwareFault("the firmware faulted", where=where, why=fault.reason)
    return FirmwareFault(
        "the firmware touched memory that it does not have",
        where=where,
        why=f"{fault.access} at {_hex(fault.address)}, {_place(fault.address, memory)}"
        + (f" ({fault.reason})" if fault.reason else ""),
        hint="this is a defect of a kernel or of the memory plan, or of --sram on another build",
    )


def location(op: int, pc: int | None, image: FirmwareImage, program: dict[str, Any]) -> str:
    """ "op 3, blocks.3.dw (tte_depthwise_conv2d_int8), in tte_requantize+0x12, pc 0x00000282"."""
    parts = [op_name(op, program)]
    if pc is not None:
        function = image.locate(pc)
        parts += [f"in {function}"] if function else []
        parts += [f"pc {_hex(pc)}"]
    return ", ".join(parts)


def op_name(op: int, program: dict[str, Any]) -> str:
    """The op that an index of tte_current_op stands for."""
    if op == IDLE_OP:
        return "between two ops"
    ops = program.get("ops", [])
    if op >= len(ops):
        return f"op {op}"
    return f"op {op}, {ops[op]['op']} ({ops[op]['kernel']})"


def ended(status: int | None, detail: str = "", where: str = "") -> FirmwareFault:
    """The error for a firmware that stopped by itself."""
    meaning = {
        3: "its channel was closed",
    }
    why = detail or (meaning.get(status, "") if status is not None else "")
    return FirmwareFault(
        f"the firmware ended with status {status} while an answer was due", where=where, why=why
    )


def timed_out(limit_s: float, where: str = "") -> FirmwareFault:
    """The error for a command without an answer."""
    return FirmwareFault(
        f"the firmware did not answer within {limit_s:g} s",
        where=where,
        why="it hangs, or the command needs longer than this",
        hint="open_session(command_limit_s=...) sets the limit",
    )


def _stack_overflowed(fault: Fault, memory: MemoryMap) -> bool:
    if fault.sp is None:
        return False
    if fault.sp < memory.sram_origin:
        return True
    return fault.address is not None and (
        fault.address < memory.sram_origin and 0 <= fault.sp - fault.address <= _PUSH_BYTES
    )


def _place(address: int, memory: MemoryMap) -> str:
    for name, origin, limit in (
        ("SRAM", memory.sram_origin, memory.sram_limit_bytes),
        ("flash", memory.flash_origin, memory.flash_limit_bytes),
    ):
        past = address - (origin + limit)
        if past == 0:
            return f"the first byte past the {name} limit of {limit} bytes"
        if 0 < past < 0x1000_0000:
            return f"{past} bytes past the {name} limit of {limit} bytes"
        if origin <= address < origin + limit:
            return f"which the {name} does not allow"
    return "which is no memory of this board"


def _hex(value: int | None) -> str:
    return "unknown" if value is None else f"{value:#010x}"
