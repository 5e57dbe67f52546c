# SPDX-License-Identifier: Apache-2.0
"""Calls kernels from Python in an emulated Cortex-M, and counts the instructions they take.

The same interface as KernelLibrary: every array is copied into the machine's memory between
canaries, and back. Arrays begin at a multiple of 4, as in a firmware's arena.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import unicorn
from numpy.typing import NDArray
from unicorn import arm_const as arm

from tte.board import Board, load_board
from tte.build import find_compiler
from tte.codegen.project import COMPILE_FLAGS, OPTIMISE_FLAG
from tte.emulate.image import read_image
from tte.emulate.unicorn_backend import _CPUS, _thumb_instructions
from tte.ops import params as kernel_params
from tte.resources import boards_dir, runtime_dir

FLASH, SRAM, END = 0x0, 0x2000_0000, 0x0080_0000
FLASH_BYTES, SRAM_BYTES, STACK_BYTES = 1 << 20, 1 << 22, 1 << 16
CANARY = b"\xa5" * 64
LINK_SCRIPT = """
ENTRY(tte_conv2d_int8)
SECTIONS { . = 0x400; .text : { *(.text*) *(.rodata*) } .data : { *(.data*) *(.bss*) } }
"""


@dataclass(frozen=True)
class _Buffer:
    array: NDArray[Any]
    address: int
    name: str


class KernelMachine:
    """The kernels as a firmware for `board` has them, or all of them portable."""

    def __init__(self, board: Board, *, portable: bool = False, compiler: str = "gcc") -> None:
        image = read_image(_link(board, portable, compiler))
        self._symbols = image.symbols
        self._uc: Any = unicorn.Uc(
            unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS
        )
        self._uc.ctl_set_cpu_model(_CPUS[board.unicorn_cpu])
        read, write, execute = unicorn.UC_PROT_READ, unicorn.UC_PROT_WRITE, unicorn.UC_PROT_EXEC
        self._uc.mem_map(FLASH, FLASH_BYTES, read | execute)
        self._uc.mem_map(SRAM, SRAM_BYTES, read | write)
        self._uc.mem_map(END, 4096, read | execute)
        for address, content in image.segments:
            self._uc.mem_write(address, content)
        self._lengths: dict[tuple[int, int], int] = {}
        self._reached: set[int] = set()

    def call(self, symbol: str, params: kernel_params.Params | None, args: Sequence[Any]) -> None:
        """symbol(&params, args...), as KernelLibrary.call()."""
        self._call(symbol, params, args)

    def instructions(
        self, symbol: str, params: kernel_params.Params | None, args: Sequence[Any]
    ) -> int:
        """The same, counted."""
        count = [0]
        self._reached = set()

        def on_block(uc: Any, address: int, size: int, data: Any) -> None:
            block = (address, size)
            if block not in self._lengths:
                code = bytes(uc.mem_read(address, size))
                self._lengths[block] = _thumb_instructions(code)
            count[0] += self._lengths[block]
            self._reached.add(address)

        hook = self._uc.hook_add(unicorn.UC_HOOK_BLOCK, on_block, begin=FLASH, end=END - 1)
        self._uc.ctl_flush_tb()
        try:
            self._call(symbol, params, args)
        finally:
            self._uc.hook_del(hook)
            self._uc.ctl_flush_tb()
        return count[0]

    @property
    def reached(self) -> set[str]:
        """The functions that the last counted call entered."""
        places = self._symbols.items()
        return {name for name, address in places if address & ~1 in self._reached}

    def _call(self, symbol: str, params: kernel_params.Params | None, args: Sequence[Any]) -> None:
        place = SRAM
        buffers: dict[int, _Buffer] = {}
        words: list[int] = []

        def put(array: NDArray[Any], name: str) -> int:
            nonlocal place
            if id(array) not in buffers:
                data = np.ascontiguousarray(array).tobytes()
                address = place + len(CANARY)
                self._uc.mem_write(place, CANARY + data + CANARY)
                place = -(-(address + len(data) + len(CANARY)) // 8) * 8
                buffers[id(array)] = _Buffer(array, address, name)
            return buffers[id(array)].address

        structure = None if params is None else kernel_params.to_ctypes(params)
        if structure is not None:
            words.append(put(np.frombuffer(bytes(structure), np.uint8), f"{symbol}: params"))
        for position, arg in enumerate(args):
            if arg is None:
                words.append(0)
            elif isinstance(arg, np.ndarray):
                words.append(put(arg, f"{symbol}: argument {position} {arg.dtype}{arg.shape}"))
            else:
                assert isinstance(arg, ctypes._SimpleCData)
                words.append(int(arg.value))
        assert place < SRAM + SRAM_BYTES - STACK_BYTES
        stack = SRAM + SRAM_BYTES - STACK_BYTES // 2
        for register, word in zip(range(arm.UC_ARM_REG_R0, arm.UC_ARM_REG_R3 + 1), words,
                                  strict=False):  # fmt: skip
            self._uc.reg_write(register, word)
        rest = words[4:]
        self._uc.mem_write(stack, struct.pack(f"<{len(rest)}I", *rest))
        self._uc.reg_write(arm.UC_ARM_REG_SP, stack)
        self._uc.reg_write(arm.UC_ARM_REG_LR, END | 1)
        self._uc.emu_start(self._symbols[symbol] | 1, END)
        for buffer in buffers.values():
            self._finish(buffer)

    def _finish(self, buffer: _Buffer) -> None:
        array, size = buffer.array, buffer.array.nbytes
        memory = bytes(self._uc.mem_read(buffer.address - len(CANARY), size + 2 * len(CANARY)))
        assert memory.startswith(CANARY), f"{buffer.name} was written before its begin"
        assert memory.endswith(CANARY), f"{buffer.name} was written past its end"
        data = memory[len(CANARY) : len(CANARY) + size]
        found = np.frombuffer(data, array.dtype).reshape(array.shape)
        if array.flags.writeable:
            array[...] = found
        else:
            assert np.array_equal(array, found), f"{buffer.name} is an input and was written"


@functools.cache
def kernel_machine(board: str, *, portable: bool = False, compiler: str = "gcc") -> KernelMachine:
    """One machine per board and choice of kernels."""
    return KernelMachine(load_board(board), portable=portable, compiler=compiler)


def _link(board: Board, portable: bool, compiler_name: str) -> Path:
    """All kernels in one ELF file, built as a project builds them."""
    source = runtime_dir() / "src"
    fast = [] if portable or not board.has_dsp else sorted((source / "armv7em").glob("*.[cS]"))
    replaced = {path.name for path in fast}
    files = [*fast, *(path for path in sorted(source.glob("*.c")) if path.name not in replaced)]
    compiler = find_compiler(board, compiler_name)
    flags = (*COMPILE_FLAGS, OPTIMISE_FLAG, f"-I{runtime_dir() / 'include'}")
    if compiler_name != "gcc":
        flags += (f"-I{boards_dir() / 'common' / 'libc'}",)
    digest = hashlib.sha256(repr((compiler, flags)).encode())
    for path in (*files, *sorted(runtime_dir().rglob("*.h")), *sorted(source.glob("*.c"))):
        digest.update(path.name.encode() + path.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"tte-kernels-{digest.hexdigest()[:24]}"
    elf = folder / "kernels.elf"
    if elf.is_file():
        return elf
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as own:  # several processes may be here at once
        objects = []
        for path in files:
            objects.append(Path(own) / f"{path.stem}{path.suffix[1:]}.o")
            _run((*compiler.compile_command, *flags, "-c", path, "-o", objects[-1]))
        script, unfinished = Path(own) / "kernels.ld", Path(own) / "kernels.elf"
        script.write_text(LINK_SCRIPT)
        link = (*compiler.link_command, "-nostartfiles", "-Wl,--no-gc-sections", "-T", script)
        _run((*link, *objects, "-o", unfinished))
        unfinished.replace(elf)
    return elf


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr}")
