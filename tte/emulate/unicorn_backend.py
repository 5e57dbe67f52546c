# SPDX-License-Identifier: Apache-2.0
"""unicorn: the firmware in this process, with exactly the memory that it is allowed.

The memory map is the limit: what lies past it is not mapped and faults with its address. The
firmware runs whenever an answer is due and stops where it waits for input. Without hooks it
runs at full speed; only count_ops() puts a hook on every basic block.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import unicorn
from unicorn import arm_const as arm

from tte.board import Board, enforced_flash_bytes, enforced_sram_bytes
from tte.emulate import faults
from tte.emulate.image import read_image
from tte.emulate.worker import OutOfTime, Worker
from tte.errors import TteError

_CPUS = {
    "cortex-m0plus": arm.UC_CPU_ARM_CORTEX_M0,
    "cortex-m3": arm.UC_CPU_ARM_CORTEX_M3,
    "cortex-m4": arm.UC_CPU_ARM_CORTEX_M4,
    "cortex-m7": arm.UC_CPU_ARM_CORTEX_M7,
    "cortex-m33": arm.UC_CPU_ARM_CORTEX_M33,
}
_PAGE_BYTES = 4096
_SYSTEM_ORIGIN, _SYSTEM_BYTES = 0xE000_0000, 0x10_0000
_TIMER_VALUE = 4
_INSTRUCTION_NS = 64
_NOWHERE = 0xFFFF_FFFE  # never executed: the firmware ends by semihosting
_BREAKPOINT_EXCEPTION = 7
_SEMIHOSTING_BKPT = b"\xab\xbe"
_SYS_OPEN, _SYS_WRITE0, _SYS_WRITE, _SYS_READ = 0x01, 0x04, 0x05, 0x06
_SYS_FLEN, _SYS_EXIT_EXTENDED = 0x0C, 0x20
_MODE_WRITE_BINARY = 5
_INPUT_HANDLE, _OUTPUT_HANDLE = 1, 2
# Counting is slower than running; its limit grows by as much.
_COUNTING_SLOWDOWN = 30

_WRITES = (unicorn.UC_MEM_WRITE, unicorn.UC_MEM_WRITE_UNMAPPED, unicorn.UC_MEM_WRITE_PROT)
_FETCHES = (unicorn.UC_MEM_FETCH, unicorn.UC_MEM_FETCH_UNMAPPED, unicorn.UC_MEM_FETCH_PROT)


class UnicornTransport:
    """One emulated Cortex-M with flash, SRAM, a counting timer and semihosting."""

    name = "unicorn"
    version = str(unicorn.__version__)

    def __init__(
        self, elf_path: Path, board: Board, program: dict[str, Any], limit_s: float
    ) -> None:
        if board.unicorn_cpu not in _CPUS:
            raise TteError(f"unicorn has no core {board.unicorn_cpu!r}", where=board.name)
        self._program = program
        self._limit_s = limit_s
        self._storage = board.storage
        self._timer_origin = board.peripherals.origin
        self._tick_ns = 10**9 // board.clock_hz
        self._image = read_image(elf_path)
        limits = program["memory"]
        self._memory = faults.MemoryMap(
            board.flash.origin,
            enforced_flash_bytes(board, limits["flash_limit_bytes"]),
            board.sram.origin,
            enforced_sram_bytes(board, limits["sram_limit_bytes"]),
        )
        self._worker = Worker()
        self._input = bytearray()
        self._output = bytearray()
        self._waiting = False  # the firmware stopped in a read: it wants more input
        self._pausing = False  # it looked for input in vain, and its answers are due
        self._impatient = False  # it is left as soon as it looks for input in vain
        self._exit_status: int | None = None
        self._bad_access: tuple[int, int, int] | None = None  # kind, address, bytes
        self._guarded_pc: int | None = None
        self._bad_exception: int | None = None
        self._counts: dict[int, int] = defaultdict(int)  # op index -> instructions
        self._counting = False

        self._uc: Any = unicorn.Uc(
            unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS
        )
        self._uc.ctl_set_cpu_model(_CPUS[board.unicorn_cpu])
        self._map_memory()
        self._load()
        self._uc.hook_add(unicorn.UC_HOOK_INTR, self._on_exception)
        self._uc.hook_add(unicorn.UC_HOOK_MEM_INVALID, self._on_bad_access)

    # ---- Transport ----------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        self._input += data

    @property
    def bits_per_s(self) -> None:
        return None

    def receive(self, timeout_s: float | None) -> bytes:
        self._impatient = timeout_s is not None
        if not self._output and (self._input or not self._waiting):
            self._run()
        data = bytes(self._output)
        self._output.clear()
        return data

    def count_ops(self, command: Callable[[], object]) -> dict[int, int] | None:
        before = dict(self._counts)
        hook = self._uc.hook_add(unicorn.UC_HOOK_BLOCK, self._block_hook())
        self._uc.ctl_flush_tb()  # code that was translated without the hook would not call it
        self._counting = True
        try:
            command()
        finally:
            self._counting = False
            self._uc.hook_del(hook)
            self._uc.ctl_flush_tb()
        return {op: count - before.get(op, 0) for op, count in self._counts.items()}

    @property
    def counted(self) -> None:
        return None

    def close(self) -> None:
        self._worker.close()

    # ---- the machine --------------------------------------------------------------------

    def _map_memory(self) -> None:
        memory, uc = self._memory, self._uc
        read, write, execute = unicorn.UC_PROT_READ, unicorn.UC_PROT_WRITE, unicorn.UC_PROT_EXEC
        uc.mem_map(memory.flash_origin, _pages(memory.flash_limit_bytes), read | execute)
        # SRAM is memory of this process, so that the running op can be read without a call.
        sram = mmap.mmap(-1, _pages(memory.sram_limit_bytes))
        self._sram = sram
        address = ctypes.addressof(ctypes.c_char.from_buffer(sram))
        uc.mem_map_ptr(memory.sram_origin, len(sram), read | write, address)
        if self._storage is not None:
            uc.mem_map(self._storage.origin, _pages(self._storage.size_bytes), read | write)
        uc.mem_map(_SYSTEM_ORIGIN, _SYSTEM_BYTES, read | write)
        uc.mmio_map(self._timer_origin, _PAGE_BYTES, self._read_timer, None, lambda *_: None, None)
        self._guard(memory.flash_origin, memory.flash_limit_bytes)
        self._guard(memory.sram_origin, memory.sram_limit_bytes)

    def _guard(self, origin: int, limit_bytes: int) -> None:
        """unicorn maps whole pages: a limit inside a page costs a hook, and some speed."""
        if limit_bytes % _PAGE_BYTES:
            self._uc.hook_add(
                unicorn.UC_HOOK_MEM_READ | unicorn.UC_HOOK_MEM_WRITE,
                self._on_guarded_access,
                begin=origin + limit_bytes,
                end=origin + _pages(limit_bytes) - 1,
            )

    def _restart(self) -> None:
        """As after power-on: SRAM holds anything, the storage what it held."""
        self._exit_status = None
        self._input.clear()
        self._sram[:] = b"\xdb" * len(self._sram)
        self._load()

    def _load(self) -> None:
        for address, content in self._image.segments:
            self._uc.mem_write(address, content)
        stack, reset = struct.unpack("<2I", self._uc.mem_read(self._memory.flash_origin, 8))
        self._uc.reg_write(arm.UC_ARM_REG_SP, stack)
        self._uc.reg_write(arm.UC_ARM_REG_PC, reset | 1)
        if "tte_current_op" not in self._image.symbols:
            raise TteError("this is no tte firmware", why="it has no symbol tte_current_op")
        place = self._image.symbols["tte_current_op"] - self._memory.sram_origin
        self._current_op = memoryview(self._sram).cast("H")[place // 2 : place // 2 + 1]

    def _run(self) -> None:
        """Until the firmware waits for input that is not there, or looks for some in vain."""
        self._waiting = self._pausing = False
        limit_s = self._limit_s * (_COUNTING_SLOWDOWN if self._counting else 1)
        while not self._waiting and not self._pausing:
            try:
                self._worker.call(self._emulate, limit_s, self._uc.emu_stop)
            except OutOfTime:
                raise faults.timed_out(limit_s, self._where()) from None
            except unicorn.UcError as error:
                raise self._fault(str(error)) from None
            if self._bad_access is not None or self._bad_exception is not None:
                raise self._fault("")
            if self._exit_status == faults.RESTART_STATUS:
                self._restart()
            if self._exit_status is not None:
                raise faults.ended(self._exit_status)

    def _emulate(self) -> None:
        self._uc.emu_start(self._uc.reg_read(arm.UC_ARM_REG_PC) | 1, _NOWHERE)

    # ---- faults -------------------------------------------------------------------------

    def _on_bad_access(
        self, uc: Any, kind: int, address: int, size: int, value: int, data: Any
    ) -> bool:
        self._bad_access = (kind, address, size)
        return False

    def _on_guarded_access(
        self, uc: Any, kind: int, address: int, size: int, value: int, data: Any
    ) -> None:
        if self._bad_access is None:
            self._bad_access = (kind, address, size)
            self._guarded_pc = uc.reg_read(arm.UC_ARM_REG_PC)
        uc.emu_stop()

    def _fault(self, reason: str) -> Exception:
        if self._bad_exception is not None:
            reason = f"the processor took exception {self._bad_exception}"
        pc = self._uc.reg_read(arm.UC_ARM_REG_PC)
        access, address, exact = "access", None, True
        if self._bad_access is not None:
            kind, address, size = self._bad_access
            verb = "write" if kind in _WRITES else "fetch" if kind in _FETCHES else "read"
            access, reason = f"{verb} of {size} bytes", ""
            # At a refused store, and in a hook, unicorn's pc is the start of the basic block.
            exact = verb != "write" and self._guarded_pc is None
            pc = pc if self._guarded_pc is None else self._guarded_pc
        fault = faults.Fault(
            reason=reason,
            access=access,
            pc=pc,
            pc_is_exact=exact,
            sp=self._uc.reg_read(arm.UC_ARM_REG_SP),
            address=address,
            op=self._current_op[0],
        )
        return faults.memory_fault(fault, self._image, self._memory, self._program)

    def _where(self) -> str:
        pc = self._uc.reg_read(arm.UC_ARM_REG_PC)
        return faults.location(self._current_op[0], pc, self._image, self._program)

    # ---- counting -----------------------------------------------------------------------

    def _block_hook(self) -> Callable[[Any, int, int, Any], None]:
        lengths: dict[tuple[int, int], int] = {}
        counts, current_op = self._counts, self._current_op

        def on_block(uc: Any, address: int, size: int, data: Any) -> None:
            block = (address, size)
            length = lengths.get(block)
            if length is None:
                length = lengths[block] = _thumb_instructions(bytes(uc.mem_read(address, size)))
            counts[current_op[0]] += length

        return on_block

    def _read_timer(self, uc: Any, offset: int, size: int, data: Any) -> int:
        """CMSDK timer: counts down from 2^32 - 1, one instruction every 64 ns."""
        if offset != _TIMER_VALUE:
            return 0
        passed_ns = sum(self._counts.values()) * _INSTRUCTION_NS
        return (0xFFFF_FFFF - passed_ns // self._tick_ns) & 0xFFFF_FFFF

    # ---- semihosting --------------------------------------------------------------------

    def _on_exception(self, uc: Any, number: int, data: Any) -> None:
        pc = uc.reg_read(arm.UC_ARM_REG_PC)
        if number != _BREAKPOINT_EXCEPTION or uc.mem_read(pc, 2) != _SEMIHOSTING_BKPT:
            self._bad_exception = number
            uc.emu_stop()
            return
        result = self._semihosting(uc.reg_read(arm.UC_ARM_REG_R0), uc.reg_read(arm.UC_ARM_REG_R1))
        if result is None:
            uc.emu_stop()  # pc stays on the BKPT: the call is repeated when emulation goes on
            return
        uc.reg_write(arm.UC_ARM_REG_R0, result)
        uc.reg_write(arm.UC_ARM_REG_PC, (pc + 2) | 1)
        if self._pausing:
            uc.emu_stop()

    def _semihosting(self, operation: int, argument: int) -> int | None:
        """The result, or None where the firmware has to wait or has ended."""
        uc = self._uc
        if operation == _SYS_WRITE0:
            return 0
        _, second, third = struct.unpack("<3I", uc.mem_read(argument, 12))
        if operation == _SYS_OPEN:
            return _OUTPUT_HANDLE if second == _MODE_WRITE_BINARY else _INPUT_HANDLE
        if operation == _SYS_WRITE:
            self._output += uc.mem_read(second, third)
            return 0
        if operation == _SYS_READ:
            if not self._input:
                self._waiting = True
                return None
            count = min(third, len(self._input))
            uc.mem_write(second, bytes(self._input[:count]))
            del self._input[:count]
            return third - count
        if operation == _SYS_FLEN:
            self._pausing = not self._input and (self._impatient or bool(self._output))
            return len(self._input)
        if operation == _SYS_EXIT_EXTENDED:
            self._exit_status = second
            return None
        return 0xFFFF_FFFF


def _pages(size_bytes: int) -> int:
    return -(-size_bytes // _PAGE_BYTES) * _PAGE_BYTES


def _thumb_instructions(code: bytes) -> int:
    """How many Thumb instructions a basic block holds: those that start with 0b11101, 0b11110
    or 0b11111 have four bytes, all others two."""
    count = position = 0
    while position < len(code):
        position += 4 if code[position + 1] >= 0xE8 else 2
        count += 1
    return count
