# SPDX-License-Identifier: Apache-2.0
"""A firmware that runs in an emulator: the protocol of devices, and instruction counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tte.board import load_board
from tte.build import Firmware, build_firmware, build_host, find_compiler
from tte.device import Device, Link
from tte.errors import TteError

COMMAND_LIMIT_S = 120.0
EMULATORS = ("unicorn", "qemu", "renode", "host")


class Transport(Protocol):
    """A running firmware. It loses no byte and has no time-out of its own to obey."""

    name: str
    version: str

    def send(self, data: bytes) -> None: ...

    def receive(self, timeout_s: float | None) -> bytes:
        """What has come, at least a byte; b"" where nothing comes within `timeout_s`, or where the
        firmware waits for more. None: as long as a command may take; then FirmwareFault."""

    def count_ops(self, command: Callable[[], object]) -> dict[int, int] | None:
        """Runs `command`; op index -> executed instructions. None: it cannot count (not run)."""

    @property
    def counted(self) -> int | None:
        """Instructions of the last inference or step, where the emulator counts them and the
        firmware cannot."""

    @property
    def bits_per_s(self) -> None:
        """There is no line."""

    def close(self) -> None:
        """Ends the firmware and frees what it needed; may be called again."""


@dataclass(frozen=True, slots=True)
class OpCounts:
    """Exact instruction counts of one command. `total` spans the whole inference or training
    step, with the calls between the ops; `by_op[i]` belongs to program["ops"][i]. A basic block
    counts for the op that is running when it starts."""

    total: int
    by_op: tuple[int, ...]


class Session(Device):
    """A device that is emulated. Use as a context manager, or call close()."""

    def __init__(self, transport: Transport, program: dict[str, Any]) -> None:
        super().__init__(Link(transport), program)
        self._transport = transport
        self._op_count = len(program["ops"])

    @property
    def emulator_name(self) -> str:
        return self._transport.name

    @property
    def emulator_version(self) -> str:
        return self._transport.version

    def count_ops(self, command: Callable[[], object]) -> OpCounts | None:
        """Runs `command`, one infer() or train() of this session, and counts instructions per
        op; an order of magnitude slower. None, and nothing is run, where that is not possible."""
        counts = self._transport.count_ops(command)
        if counts is None:
            return None
        by_op = tuple(counts.get(index, 0) for index in range(self._op_count))
        return OpCounts(self.instructions() or 0, by_op)

    def instructions(self) -> int | None:
        return super().instructions() or self._transport.counted

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Session:
        return self


def open_session(
    emulator: str,
    project_dir: Path,
    program: dict[str, Any],
    firmware: Firmware | None = None,
    *,
    command_limit_s: float = COMMAND_LIMIT_S,
) -> Session:
    """Starts the firmware of a project and greets it. A command that takes longer than the limit
    ends as a FirmwareFault."""
    transport = start_transport(
        emulator, project_dir, program, firmware, command_limit_s=command_limit_s
    )
    session = Session(transport, program)
    try:
        session.hello()
    except BaseException:
        session.close()
        raise
    return session


def start_transport(
    emulator: str,
    project_dir: Path,
    program: dict[str, Any],
    firmware: Firmware | None = None,
    *,
    command_limit_s: float = COMMAND_LIMIT_S,
) -> Transport:
    """Starts the firmware of a project. `emulator`: unicorn, qemu, renode or host; the firmware,
    or the host's program, is built where it is not given."""
    if emulator not in EMULATORS:
        raise TteError(f"unknown emulator {emulator!r}", hint="one of " + ", ".join(EMULATORS))
    board = load_board(program["board"])
    if emulator not in board.emulators:
        raise TteError(
            f"{board.name} does not run on {emulator}",
            hint="it runs on " + ", ".join(board.emulators),
        )
    if emulator == "host":
        from tte.emulate.host import HostTransport

        return HostTransport(build_host(project_dir), command_limit_s)
    if emulator == "renode":
        from tte.emulate.renode import RenodeTransport, find_renode

        find_renode()
        if firmware is None or board.is_bare_in_renode:
            name = firmware.compiler_name if firmware else program.get("compiler")
            compiler = find_compiler(board, name)
            firmware = build_firmware(project_dir, board, compiler, for_renode=True)
        return RenodeTransport(firmware.elf_path, board, program, command_limit_s)
    firmware = firmware or build_for(emulator, project_dir, program)
    assert firmware is not None
    if emulator == "qemu":
        from tte.emulate.qemu import QemuTransport

        return QemuTransport(firmware.elf_path, board, program, command_limit_s)
    from tte.emulate.unicorn_backend import UnicornTransport

    return UnicornTransport(firmware.elf_path, board, program, command_limit_s)


def build_for(
    emulator: str, project_dir: Path, program: Mapping[str, Any], compiler: str | None = None
) -> Firmware | None:
    """Builds the firmware, by the project's compiler where none is named; None for the host, which
    runs another program."""
    if emulator == "host":
        return None
    board = load_board(program["board"])
    found = find_compiler(board, compiler or program.get("compiler"))
    return build_firmware(project_dir, board, found)
