# SPDX-License-Identifier: Apache-2.0
"""QEMU: the firmware's channel is a pair of named pipes that it opens by semihosting.

Both pipes are opened here for reading and writing, so that no opening blocks and no end of file
has to be told from silence; whether QEMU still lives is asked of the process itself.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import select
import shutil
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tte.board import Board, enforced_flash_bytes, enforced_sram_bytes
from tte.emulate import faults
from tte.emulate.image import read_image
from tte.errors import FirmwareFault, TteError

_POLL_S = 0.05
# The machine's RAM, of which firmware uses the part that is its storage.
_PSRAM = "memory-backend-file,id=psram,size=16M,mem-path=psram,share=on"
_READ_BYTES = 65536


class QemuTransport:
    """A QEMU process that runs one firmware, one instruction every 64 ns of its time."""

    name = "qemu"

    def __init__(
        self, elf_path: Path, board: Board, program: dict[str, Any], limit_s: float
    ) -> None:
        executable = shutil.which("qemu-system-arm")
        if executable is None:
            raise TteError(
                "QEMU is not installed",
                why="there is no qemu-system-arm on the PATH",
                hint="sudo apt install qemu-system-arm, or use --emulator unicorn",
            )
        if not hasattr(os, "mkfifo"):
            raise TteError(
                "this system has no named pipes, which the QEMU back end needs",
                hint="use --emulator unicorn",
            )
        self.version = _version(executable)
        self._limit_s = limit_s
        self._program = program
        self._image = read_image(elf_path)
        limits = program["memory"]
        self._memory = faults.MemoryMap(
            board.flash.origin,
            enforced_flash_bytes(board, limits["flash_limit_bytes"]),
            board.sram.origin,
            enforced_sram_bytes(board, limits["sram_limit_bytes"]),
        )
        self._command = [
            executable,
            *("-display", "none", "-monitor", "none", "-serial", "none"),
            *("-semihosting-config", "enable=on,target=native"),
            *("-icount", "shift=6,sleep=off"),
            *("-kernel", str(elf_path.resolve())),
            *("-machine", f"{board.qemu_machine},memory-backend=psram"),
            *("-object", _PSRAM),
        ]
        self._undo = contextlib.ExitStack()
        weakref.finalize(self, self._undo.close)  # at the latest when Python ends
        try:
            self._folder = Path(
                self._undo.enter_context(tempfile.TemporaryDirectory(prefix="tte-"))
            )
            self._to_firmware = self._open_pipe(self._folder / "tte_in")
            self._from_firmware = self._open_pipe(self._folder / "tte_out")
            self._start()
        except BaseException:
            self._undo.close()
            raise

    def _start(self) -> None:
        """Like power-on: only the storage, which lies in the file behind PSRAM, is what it was."""
        self._messages = self._folder / "messages"
        messages = self._undo.enter_context(self._messages.open("wb"))
        self._process = process = subprocess.Popen(
            self._command,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=messages,
            stderr=messages,
            start_new_session=True,
        )
        self._undo.callback(process.wait)
        # Not terminate(): a QEMU that waits in a semihosting call does not look at signals.
        self._undo.callback(process.kill)

    def _open_pipe(self, path: Path) -> int:
        os.mkfifo(path)
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._undo.callback(os.close, descriptor)
        return descriptor

    def send(self, data: bytes) -> None:
        deadline = time.monotonic() + self._limit_s
        view = memoryview(data)
        while view:
            if not self._is_ready([], [self._to_firmware], deadline):
                raise self._hangs()
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(self._to_firmware, view) :]

    @property
    def bits_per_s(self) -> None:
        return None

    def receive(self, timeout_s: float | None) -> bytes:
        limit_s = self._limit_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + limit_s
        while True:
            if not self._is_ready([self._from_firmware], [], deadline):
                if timeout_s is not None:
                    return b""
                raise self._hangs()
            with contextlib.suppress(BlockingIOError):
                return os.read(self._from_firmware, _READ_BYTES)

    def count_ops(self, command: Callable[[], object]) -> dict[int, int] | None:
        return None

    @property
    def counted(self) -> None:
        return None

    def close(self) -> None:
        self._undo.close()

    def _is_ready(self, readable: list[int], writable: list[int], deadline: float) -> bool:
        """Waits for one of the pipes; raises where QEMU has ended. False: time is up."""
        while True:
            if self._process.poll() == faults.RESTART_STATUS:
                self._start()
            ended = self._process.poll() is not None
            left_s = 0 if ended else max(0, deadline - time.monotonic())
            ready = select.select(readable, writable, [], min(_POLL_S, left_s))
            if ready[0] or (ready[1] and not ended):
                return True
            if ended:
                raise self._fault()
            if time.monotonic() >= deadline:
                return False

    def _hangs(self) -> FirmwareFault:
        self.close()
        return faults.timed_out(self._limit_s)

    def _fault(self) -> FirmwareFault:
        status = self._process.returncode
        messages = self._messages.read_text(encoding="utf-8", errors="replace")
        fault = faults.find_report(messages)
        if fault is None:
            return faults.ended(status, messages.strip())
        return faults.memory_fault(fault, self._image, self._memory, self._program)


@functools.cache
def _version(executable: str) -> str:
    done = subprocess.run([executable, "--version"], capture_output=True, text=True)
    found = re.search(r"version (\S+)", done.stdout)
    return found.group(1) if found else "unknown"
