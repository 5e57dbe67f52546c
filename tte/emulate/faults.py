# SPDX-License-Identifier: Apache-2.0
"""Words for what a firmware did wrong: the running op, the function, the address, the limit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tte.emulate.image import FirmwareImage
from tte.errors import FirmwareFault

IDLE_OP = 0xFFFF
# TTE_PORT_RESTART of tte_port.h: the firmware asks to be started again.
RESTART_STATUS = 64
# The longest report of startup.c, in bytes.
REPORT_BYTES = 128
_REPORT = re.compile(r"!FAULT ((?:\w+=0x[0-9a-f]{8} ?){7})\n")
_EXCEPTIONS = {
    2: "NMI",
    3: "hard fault",
    4: "memory management fault",
    5: "bus fault",
    6: "usage fault",
}
# Bits of the configurable fault status register, in the order in which they explain most.
_CAUSES = {
    4: "the exception frame could not be stored",
    12: "the exception frame could not be stored",
    0: "an instruction outside flash",
    1: "an access that the MPU refuses",
    8: "an instruction where there is no memory",
    9: "an access where there is no memory",
    16: "an undefined instruction",
    17: "a jump to Arm state",
    18: "a wrong exception return",
    19: "an instruction of a coprocessor that is off",
    24: "an unaligned access",
    25: "a division by zero",
}
_STACKING_FAILED = 1 << 4 | 1 << 12
_ADDRESS_VALID = 1 << 7 | 1 << 15

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
    op: int | None = IDLE_OP


def find_report(text: str) -> Fault | None:
    """What the fault handler of startup.c wrote, somewhere in `text`."""
    found = _REPORT.search(text)
    if found is None:
        return None
    values = {key: int(value, 16) for key, value in re.findall(r"(\w+)=0x(\w+)", found[1])}
    cfsr = values["cfsr"]
    causes = [cause for bit, cause in _CAUSES.items() if cfsr >> bit & 1]
    reason = _EXCEPTIONS.get(values["exc"], f"exception {values['exc']}")
    if causes:
        reason += f": {causes[0]}"
    stored = not cfsr & _STACKING_FAILED and values["pc"]
    return Fault(
        reason=reason,
        pc=values["pc"] if stored else None,
        sp=values["sp"],
        address=values["addr"] if cfsr & _ADDRESS_VALID else None,
        op=values["op"],
    )


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


def location(op: int | None, pc: int | None, image: FirmwareImage, program: dict[str, Any]) -> str:
    """ "op 3, blocks.3.dw (tte_depthwise_conv2d_int8), in tte_requantize+0x12, pc 0x00000282"."""
    parts = [] if op is None else [op_name(op, program)]
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
