# SPDX-License-Identifier: Apache-2.0
"""Renode: a process that a generated script drives, and numbered files between it and this one.

The machine stands still while nothing is asked of it: a request file names the bytes for its serial
line, then it runs until it has answered, and a reply file tells how it went. So a run takes the
same instructions every time, and nothing depends on a terminal, a port or a monitor.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from tte.board import Board, Limits, enforced_limits
from tte.codegen.renode import platform_text, run_script
from tte.device.state import state_bytes
from tte.emulate import faults
from tte.emulate.image import read_image
from tte.errors import FirmwareFault, TteError

OLDEST = (1, 15)
INSTALL = (
    "unpack a portable package of https://github.com/renode/renode/releases (1.15 or later) and put"
    " its folder on the PATH, or let RENODE name its executable"
)
# What a command may take of the machine's own time.
VIRTUAL_LIMIT_MS = 3_600_000
# What a start may take, beside what a command may.
_START_S = 60.0
_POLL_S = 0.001
_LOOK_AT_LOG_S = 0.25
_REPLY = re.compile(
    r"(ok|late) bytes=(\d+) ms=(\d+) instructions=(\d+) reads=(\d+) writes=(\d+) marks=([\d,]*)"
)
_ABORT = re.compile(r"CPU abort \[PC=0x([0-9A-Fa-f]+)\]: *(.*)")
_HALT = re.compile(r"PC does not lay in memory or PC and SP are equal to zero")
_UNEXPECTED = re.compile(
    r"\[[^\]]*?cpu[^\]]*?: 0x([0-9A-Fa-f]+)[^\]]*\].*?"
    r"(Read|Write)(Byte|Word|DoubleWord|QuadWord) (?:from|to) non existing peripheral at"
    r" 0x([0-9A-Fa-f]+)"
)
_BYTES = {"Byte": 1, "Word": 2, "DoubleWord": 4, "QuadWord": 8}
_SYSTEM_ORIGIN = 0xE000_0000
# pyrenode3 in a process of its own: it holds one emulation, and may hang with it.
_PYRENODE = """\
import sys
from pyrenode3.wrappers import Monitor
out, err = Monitor().execute("include @" + sys.argv[1])
print(out, err)
"""


class RenodeTransport:
    """A Renode process that runs one firmware."""

    name = "renode"

    def __init__(
        self, elf_path: Path, board: Board, program: dict[str, Any], limit_s: float
    ) -> None:
        command, self.version = find_renode()
        self._board = board
        self._program = program
        self._limit_s = limit_s
        self._image = read_image(elf_path)
        counter = self._image.symbols.get("tte_port_instructions")
        if counter is None:
            raise TteError("this is no tte firmware", why="it has no tte_port_instructions")
        memory = program["memory"]
        flash_limit = memory["flash_limit_bytes"]
        limits = enforced_limits(
            board,
            memory["sram_limit_bytes"],
            flash_limit,
            board.stack_reserve_bytes,
            state_bytes(program),
        )
        self._memory = _memory_map(board, limits)
        self._input = bytearray()
        self._marks: list[int] = []
        self._turn = self._taken = 0
        self._unexpected = (0, 0)
        self._tail = b""
        self.instructions_in_all = 0
        self._undo = contextlib.ExitStack()
        weakref.finalize(self, self._undo.close)  # at the latest when Python ends
        try:
            # Two levels: Renode's own files stay out of the way of ours.
            made = tempfile.TemporaryDirectory(prefix="tte-", ignore_cleanup_errors=True)
            self._folder = Path(self._undo.enter_context(made)).resolve() / "run"
            self._folder.mkdir()
            (self._folder / "board.repl").write_text(
                platform_text(board, limits, flash_limit), encoding="ascii"
            )
            script = run_script(
                board,
                limits,
                flash_limit,
                PurePosixPath(self._folder.as_posix()),
                self._vectors(),
                counter,
            )
            (self._folder / "run.resc").write_text(script, encoding="ascii")
            shutil.copyfile(elf_path, self._folder / "firmware.elf")
            self._start(command)
        except BaseException:
            self._undo.close()
            raise

    def _vectors(self) -> int:
        return self._image.symbols.get("tte_vectors", self._image.segments[0][0])

    def _start(self, command: tuple[str, ...]) -> None:
        script = str(self._folder / "run.resc")
        config = str(self._folder.parent / "config")
        arguments: tuple[str, ...] = (
            "--console",
            "--disable-xwt",
            "--plain",
            "--hide-log",
            "--config",
            config,
        )
        arguments += ("-e", f"include @{script}")
        if command[0] == sys.executable:
            arguments = (script,)
        messages = self._undo.enter_context((self._folder / "messages").open("wb"))
        self._process = subprocess.Popen(
            (*command, *arguments),
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=messages,
            stderr=messages,
            start_new_session=True,
        )
        self._undo.callback(_end, self._process)

    # ---- Transport ----------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        self._input += data

    @property
    def bits_per_s(self) -> None:
        return None

    def receive(self, timeout_s: float | None) -> bytes:
        limit_ms = VIRTUAL_LIMIT_MS if timeout_s is None else max(1, round(timeout_s * 1000))
        request = self._folder / "partial-request"
        request.write_text(f"{limit_ms}:{self._input.hex()}", encoding="ascii")
        self._input.clear()
        request.rename(self._folder / f"request{self._turn}")
        state, size = self._await_reply()
        with (self._folder / "answers").open("rb") as stream:
            stream.seek(self._taken)
            data = stream.read(size - self._taken)
        self._taken = size
        self._look_for_faults(data)
        if state == "late" and timeout_s is None:
            raise FirmwareFault(
                f"the firmware did not answer within {VIRTUAL_LIMIT_MS / 1000:g} s of its own time",
                why="it hangs, or sleeps for ever",
            )
        return data

    def count_ops(self, command: Callable[[], object]) -> dict[int, int] | None:
        return None

    @property
    def counted(self) -> int | None:
        return self._marks[1] - self._marks[0] if len(self._marks) == 2 else None

    def close(self) -> None:
        self._undo.close()

    # ---- one turn -----------------------------------------------------------------------

    def _await_reply(self) -> tuple[str, int]:
        reply = self._folder / f"reply{self._turn}"
        now = time.monotonic()
        deadline = now + self._limit_s + (0 if self._turn else _START_S)
        next_look = now + _LOOK_AT_LOG_S
        while not reply.exists():
            if self._process.poll() is not None and not reply.exists():
                raise self._ended()
            now = time.monotonic()
            if now > next_look:
                self._look_for_abort()
                next_look = now + _LOOK_AT_LOG_S
            if now > deadline:
                self.close()
                raise faults.timed_out(self._limit_s)
            time.sleep(_POLL_S)
        text = reply.read_text(encoding="utf-8").strip()
        reply.unlink()
        self._turn += 1
        found = _REPLY.fullmatch(text)
        if found is None:
            raise TteError("Renode's script answered something else", why=text)
        state, size, _, instructions, reads, writes, marks = found.groups()
        self._marks = [*self._marks, *map(int, filter(None, marks.split(",")))][-2:]
        self.instructions_in_all = int(instructions)
        unexpected = int(reads), int(writes)
        if unexpected != self._unexpected:
            self._unexpected = unexpected
            self._look_for_bad_access()
        return state, int(size)

    def _ended(self) -> TteError:
        messages = (self._folder / "messages").read_text(encoding="utf-8", errors="replace")
        lines = [line for line in messages.splitlines() if line.strip()]
        return TteError(
            "Renode could not run the firmware" if self._turn else "Renode could not be started",
            where=f"Renode {self.version}",
            why="\n".join(lines[-8:]) or f"it ended with status {self._process.returncode}",
            hint="docs/emulators.md shows how to run it by hand",
        )

    # ---- faults -------------------------------------------------------------------------

    def _log(self) -> str:
        with contextlib.suppress(OSError):
            return (self._folder / "log").read_text(encoding="utf-8", errors="replace")
        return ""

    def _look_for_abort(self) -> None:
        """After one, Renode hangs for ever."""
        log = self._log()
        found = _ABORT.search(log)
        if found is None and not _HALT.search(log):
            return
        self.close()
        pc, reason = (int(found[1], 16), found[2]) if found else (None, "the core was halted")
        fault = faults.Fault(reason=f"Renode gave up: {reason}", pc=pc, op=None)
        raise faults.memory_fault(fault, self._image, self._memory, self._program)

    def _look_for_bad_access(self) -> None:
        """Accesses where nothing is do not fault in Renode up to 1.16.1; its log names them. Those
        to peripherals that a board's platform leaves out are harmless."""
        peripherals = self._board.peripherals
        reads, writes = self._unexpected
        harmless = range(peripherals.origin, peripherals.origin + peripherals.size_bytes)
        found = False
        for pc, verb, width, place in _UNEXPECTED.findall(self._log()):
            found, address = True, int(place, 16)
            if address in harmless or address >= _SYSTEM_ORIGIN:
                continue
            self.close()
            access = f"{verb.lower()} of {_BYTES[width]} bytes"
            fault = faults.Fault("", access, int(pc, 16), address=address, op=None)
            raise faults.memory_fault(fault, self._image, self._memory, self._program)
        if not found and self._board.is_bare_in_renode:
            self.close()
            raise FirmwareFault(
                "the firmware touched memory that it does not have",
                where=f"Renode {self.version}",
                why=f"{reads} unexpected reads and {writes} unexpected writes",
            )

    def _look_for_faults(self, data: bytes) -> None:
        """The report that startup.c writes, wherever it begins among the answers."""
        self._tail = (self._tail + data)[-2 * faults.REPORT_BYTES :]
        fault = faults.find_report(self._tail.decode("latin-1"))
        if fault is not None:
            self.close()
            raise faults.memory_fault(fault, self._image, self._memory, self._program)


def find_renode() -> tuple[tuple[str, ...], str]:
    """(command, version): the executable that RENODE names, or else renode on the PATH, or else
    pyrenode3; an error that says how to install it where there is none."""
    named = os.environ.get("RENODE", "")
    executable = shutil.which(named or "renode")
    if executable is not None:
        return (executable,), _version(executable)
    if named:
        raise TteError("RENODE names no executable", where=named, hint="unset RENODE, or name one")
    if importlib.util.find_spec("pyrenode3") is not None:
        return (sys.executable, "-c", _PYRENODE), f"pyrenode3 {metadata.version('pyrenode3')}"
    raise TteError(
        "Renode is not installed",
        why="RENODE is not set, there is no renode on the PATH, and no pyrenode3",
        hint=INSTALL + "\nor use --emulator unicorn",
    )


@functools.cache
def _version(executable: str) -> str:
    """An error where it is too old; "unknown" where it does not tell."""
    try:
        done = subprocess.run(
            [executable, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TteError("Renode does not start", where=executable, why=str(error)) from error
    found = re.search(r"(\d+)\.(\d+)(?:\.\d+)*", done.stdout + done.stderr)
    if found is None:
        return "unknown"
    if (int(found[1]), int(found[2])) < OLDEST:
        raise TteError(
            f"Renode {found[0]} is too old",
            where=executable,
            why="tte needs Renode 1.15 or later",
            hint=INSTALL,
        )
    return found[0]


def _memory_map(board: Board, limits: Limits) -> faults.MemoryMap:
    return faults.MemoryMap(
        board.flash.origin, limits.flash_bytes, board.sram.origin, limits.sram_bytes
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """With all that it started: the executable of some packages is a script."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
