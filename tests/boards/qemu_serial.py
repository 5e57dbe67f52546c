# SPDX-License-Identifier: Apache-2.0
"""A board's firmware in QEMU, through a UART that QEMU models."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

LIMIT_S = 60.0


class QemuSerial:
    """A transport (tte.emulate.Transport) to the `uart`-th UART, counted from 0, of a machine."""

    name = "qemu"
    version = ""
    bits_per_s = None

    def __init__(self, elf_path: Path, machine: str, uart: int) -> None:
        serial = ["-serial", "null"] * uart + ["-serial", "stdio"]
        self._process = subprocess.Popen(
            [
                *("qemu-system-arm", "-M", machine, "-display", "none", "-monitor", "none"),
                *(*serial, "-kernel", str(elf_path)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(0.5)  # until the receiver is on; what comes before is lost, as on a board

    def send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def receive(self, timeout_s: float | None) -> bytes:
        assert self._process.stdout is not None
        limit_s = LIMIT_S if timeout_s is None else timeout_s
        ready, _, _ = select.select([self._process.stdout], [], [], limit_s)
        assert ready or timeout_s is not None, "the firmware does not answer"
        return os.read(self._process.stdout.fileno(), 65536) if ready else b""

    def count_ops(self, command: Callable[[], object]) -> None:
        return None

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
