# SPDX-License-Identifier: Apache-2.0
"""An emulated board behind a pseudo-terminal, as if it were plugged in: a serial line at its real
speed, which any program may open.

Bytes pass at baud / 10 a second in each direction. What the firmware has not read yet waits in
the terminal's buffer, so that a sender is slowed down and nothing is lost.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tte.emulate.session import Transport
from tte.errors import TteError

_TURN_S = 0.002  # how long the line carries what is moved at once
_LATE_S = 0.02  # how much a turn that came late may make up for
_IDLE_S = 0.02


class Pace:
    """One direction of a line."""

    def __init__(self, bytes_per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._free_at = clock()

    @property
    def budget_bytes(self) -> int:
        """How many bytes may pass now; 0 while the line is busy."""
        free_s = self._clock() - self._free_at
        return int((min(free_s, _LATE_S) + _TURN_S) * self._bytes_per_s) if free_s >= 0 else 0

    def passed(self, count: int) -> None:
        start = max(self._free_at, self._clock() - _LATE_S)
        self._free_at = start + count / self._bytes_per_s


@contextlib.contextmanager
def pseudo_terminal() -> Iterator[tuple[int, str]]:
    """A terminal that changes no byte: the descriptor of our end, the path of the other one."""
    try:
        import tty

        ours, theirs = os.openpty()
    except (ImportError, AttributeError, OSError) as error:
        raise TteError(
            "this system has no pseudo-terminals", why=str(error), hint="use tte emulate"
        ) from error
    try:
        tty.setraw(theirs)  # kept open, so that clients may come and go
        os.set_blocking(ours, False)
        yield ours, os.ttyname(theirs)
    finally:
        os.close(ours)
        os.close(theirs)


def serve(transport: Transport, terminal: int, baud: int, stop: Callable[[], bool]) -> None:
    """Carries bytes between a firmware and a terminal until `stop()`; FirmwareFault where the
    firmware faults."""
    down, up = Pace(baud / 10), Pace(baud / 10)
    answers = bytearray()
    quiet_since = time.monotonic()
    while not stop():
        moved = _to_firmware(transport, terminal, down)
        if len(answers) < 65536:
            answers += transport.receive(0.0)
        moved += _to_terminal(terminal, answers, up)
        if moved:
            quiet_since = time.monotonic()
        elif not answers:
            idle = time.monotonic() - quiet_since > 1.0
            select.select([terminal], [], [], _IDLE_S if idle else _TURN_S / 2)
        else:
            time.sleep(_TURN_S / 2)


def _to_firmware(transport: Transport, terminal: int, pace: Pace) -> int:
    budget = pace.budget_bytes
    if not budget:
        time.sleep(_TURN_S / 4)
        return 0
    try:
        data = os.read(terminal, budget)
    except (BlockingIOError, OSError):
        return 0
    if data:
        pace.passed(len(data))
        transport.send(data)
    return len(data)


def _to_terminal(terminal: int, answers: bytearray, pace: Pace) -> int:
    budget = pace.budget_bytes
    if not answers or not budget:
        return 0
    try:
        count = os.write(terminal, answers[:budget])
    except BlockingIOError:  # nobody reads
        return 0
    pace.passed(count)
    del answers[:count]
    return count


def open_transport(
    emulator: str, project_dir: Path, program: dict[str, Any], compiler: str | None = None
) -> Transport:
    """A running firmware of a project, without a conversation."""
    from tte.emulate.session import build_for, start_transport

    firmware = build_for(emulator, project_dir, program, compiler)
    return start_transport(emulator, project_dir, program, firmware)
