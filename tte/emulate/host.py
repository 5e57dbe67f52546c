# SPDX-License-Identifier: Apache-2.0
"""The firmware's C as a program of this machine, over its standard input and output."""

from __future__ import annotations

import os
import platform
import select
import signal
import subprocess
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path

from tte.emulate import faults
from tte.emulate.worker import OutOfTime, Worker
from tte.errors import FirmwareFault

_READ_BYTES = 65536


class HostTransport:
    """A child process. Counts and measures nothing."""

    name = "host"
    version = f"{platform.system()} {platform.machine()}"

    def __init__(self, program_path: Path, limit_s: float) -> None:
        self._limit_s = limit_s
        self._worker = Worker()
        self._program_path = program_path
        # Checkpoints outlive a restart, not the session.
        self._folder = tempfile.TemporaryDirectory(prefix="tte-")
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        storage = str(Path(self._folder.name) / "storage")
        process = subprocess.Popen(
            [str(self._program_path.resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            env={**os.environ, "TTE_STORAGE_FILE": storage},
        )
        weakref.finalize(self, process.kill)  # at the latest when Python ends
        return process

    def send(self, data: bytes) -> None:
        self._call(lambda: self._write(data))

    @property
    def bits_per_s(self) -> None:
        return None

    def receive(self, timeout_s: float | None) -> bytes:
        if timeout_s is not None and not self._is_ready(timeout_s):
            return b""
        return self._call(self._read)

    def count_ops(self, command: Callable[[], object]) -> dict[int, int] | None:
        return None

    @property
    def counted(self) -> None:
        return None

    def close(self) -> None:
        try:
            self._end()
        finally:
            self._worker.close()
            self._folder.cleanup()

    def _end(self) -> None:
        """Closing its input ends the program; one that hangs is killed."""
        process = self._process
        try:
            if process.stdin is not None:
                process.stdin.close()
            process.wait(timeout=1)
        except (OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()
        finally:
            if process.stdout is not None:
                process.stdout.close()

    def _call(self, function: Callable[[], bytes]) -> bytes:
        try:
            return self._worker.call(function, self._limit_s, lambda: self._process.kill())
        except OutOfTime:
            raise faults.timed_out(self._limit_s) from None

    def _write(self, data: bytes) -> bytes:
        assert self._process.stdin is not None
        view = memoryview(data)
        try:
            while view:
                view = view[self._process.stdin.write(view) :]
        except OSError:
            self._restart()
            return self._write(data)
        return b""

    def _restart(self) -> None:
        """Starts the firmware again where it asked for that."""
        if self._process.wait() != faults.RESTART_STATUS:
            raise self._ended()
        self._end()
        self._process = self._start()

    def _is_ready(self, timeout_s: float) -> bool:
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], timeout_s)[0])

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        data: bytes = self._process.stdout.read(_READ_BYTES)
        if not data:
            self._restart()
        return data

    def _ended(self) -> FirmwareFault:
        status = self._process.wait()
        if status < 0:
            name = signal.Signals(-status).name
            return FirmwareFault(
                "the host program crashed",
                where=str(self._program_path),
                why=f"it was ended by {name}",
                hint="run it under a debugger, or on unicorn, which names the op and the address",
            )
        return faults.ended(status)
