# SPDX-License-Identifier: Apache-2.0
"""A serial port as a stream of bytes: a board's UART, or a pseudo-terminal."""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from tte.board import load_board
from tte.errors import TteError

DEFAULT_BAUD = 921_600
_POLL_S = 0.02
_READ_BYTES = 65536
_WRITE_LIMIT_S = 20.0


def baud_of(program: Mapping[str, Any]) -> int:
    """The speed of a project's board; of an emulated one the usual speed of real ones."""
    uart = load_board(program["board"]).uart
    return DEFAULT_BAUD if uart is None else uart.baud


class SerialStream:
    """An open port, for this program alone. Use as a context manager, or call close()."""

    def __init__(self, port: str, baud: int = DEFAULT_BAUD) -> None:
        self.bits_per_s: int | None = baud
        self._name = port
        self._port = _open(port, baud)

    def send(self, data: bytes) -> None:
        import serial

        try:
            self._port.write(data)
        except serial.SerialTimeoutException as error:
            raise TteError(
                "the device takes no more data",
                where=self._name,
                why=f"the port was full for {_WRITE_LIMIT_S:.0f} s",
                hint="reset the board, then run the command again",
            ) from error
        except (serial.SerialException, OSError) as error:
            raise self._gone(error) from error

    def receive(self, timeout_s: float | None) -> bytes:
        import serial

        deadline = time.monotonic() + (_POLL_S if timeout_s is None else timeout_s)
        try:
            while True:
                data: bytes = self._port.read(1)
                if data:
                    return data + bytes(self._port.read(min(self._port.in_waiting, _READ_BYTES)))
                if time.monotonic() >= deadline:
                    return b""
        except (serial.SerialException, OSError, TypeError) as error:
            # pyserial fails with a TypeError where the port goes away in a read.
            raise self._gone(error) from error

    def close(self) -> None:
        self._port.close()

    def __enter__(self) -> SerialStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _gone(self, error: Exception) -> TteError:
        return TteError(
            "the connection to the board broke off",
            where=self._name,
            why=str(error),
            hint="plug it in again; what was saved is still on it",
        )


def _open(port: str, baud: int) -> Any:
    try:
        import serial
    except ImportError as error:
        raise TteError(
            "pyserial is not installed",
            why="serial ports need it",
            hint="pip install 'tiny-training-engine[device]'",
        ) from error
    try:
        # socket://HOST:PORT is the line of an emulator.
        opened = serial.serial_for_url(
            port, baud, timeout=_POLL_S, write_timeout=_WRITE_LIMIT_S, exclusive=True
        )
        opened.reset_input_buffer()
        return opened
    except (serial.SerialException, OSError, ValueError) as error:
        raise _not_opened(port, baud, error) from error


def _not_opened(port: str, baud: int, error: Exception) -> TteError:
    number = getattr(error, "errno", None)
    text = str(error)
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO) or "FileNotFoundError" in text:
        return TteError("there is no such port", where=port, hint=_ports())
    if number in (errno.EACCES, errno.EPERM) and "PermissionError" not in text:
        return TteError(
            "the port may not be used",
            where=port,
            why="this user has no right to it",
            hint="sudo usermod -aG dialout $USER, then log in again",
        )
    if number in (errno.EBUSY, errno.EAGAIN) or "lock" in text or "PermissionError" in text:
        return TteError(
            "the port is in use",
            where=port,
            hint="end the other program: a terminal, a serial monitor, another tte train",
        )
    if isinstance(error, ValueError):
        return TteError(
            f"the port cannot run at {baud} baud", where=port, why=text, hint="choose with --baud"
        )
    return TteError("the port cannot be opened", where=port, why=text, hint=_ports())


def _ports() -> str:
    from serial.tools.list_ports import comports

    found = [f"{p.device} ({p.description})" for p in comports()]
    return "ports that are there: " + (", ".join(found) if found else "none")
