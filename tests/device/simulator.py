# SPDX-License-Identifier: Apache-2.0
"""The firmware as a library of this process, on the board in memory of sim/port.c, and a line to
it that takes virtual time and has faults."""

from __future__ import annotations

import ctypes
import functools
import heapq
import random
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.kernel_library import host_compiler

ROOT = Path(__file__).resolve().parents[2]
SIM = Path(__file__).parent / "sim"
FAKE = ROOT / "tests" / "emulate" / "fake"
RUNTIME = ROOT / "runtime_c"
SOURCES = (
    *(path for path in sorted((RUNTIME / "firmware").glob("*.c")) if path.name != "main.c"),
    RUNTIME / "link" / "tte_frame.c",
    FAKE / "model.c",
    SIM / "port.c",
)
INCLUDE = (RUNTIME / "include", RUNTIME / "firmware", RUNTIME / "link", FAKE, SIM)
FUZZ = Path(__file__).parent / "fuzz"
FUZZ_DEFINES = (("TTE_LINK_PAYLOAD_BYTES", 512),)
POWER_CUT, RESTART, MISUSE = 1, 2, 3
FAULTS = ("lost", "doubled", "late", "spoilt")
_ANSWER_BYTES = 1 << 20


def compile_sim(output: Path, defines: tuple[tuple[str, int], ...], *flags: str) -> None:
    """A program or library of the firmware, the fake network and the board in memory."""
    command = [host_compiler(), "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", *flags]
    command += [f"-D{name}={value}" for name, value in (*defines, ("MISBEHAVES", 0))]
    command += [f"-I{folder}" for folder in INCLUDE]
    done = subprocess.run([*command, "-o", str(output)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@functools.cache
def _library(defines: tuple[tuple[str, int], ...]) -> Path:
    path = Path(tempfile.mkdtemp(prefix="tte-sim-")) / "firmware.so"
    flags = ("-O2", "-g", "-fsanitize=undefined", "-fno-sanitize-recover=all", "-shared", "-fPIC")
    compile_sim(path, defines, *flags, *map(str, SOURCES))
    return path


class Board:
    """A board that was just switched on; `flash` is what its flash holds (None: nothing)."""

    def __init__(self, flash: bytes | None = None, **defines: int) -> None:
        source = _library(tuple(sorted(defines.items())))
        with tempfile.TemporaryDirectory(prefix="tte-sim-") as folder:
            copy = Path(folder) / "firmware.so"  # a library of its own has variables of its own
            shutil.copy(source, copy)
            self.c: Any = ctypes.CDLL(str(copy))
        self._size = defines.get("SIM_SECTORS", 8) * defines.get("SIM_SECTOR_BYTES", 256)
        self._answer = ctypes.create_string_buffer(_ANSWER_BYTES)
        self.ended = 0
        self._sectors = defines.get("SIM_SECTORS", 8)
        self.c.sim_blank_flash()
        if flash is not None:
            self.flash = flash
        self.c.tte_command_init()

    def _array(self, name: str, kind: Any, count: int) -> Any:
        return (kind * count).in_dll(self.c, name)

    @property
    def flash(self) -> bytes:
        return bytes(self._array("sim_flash", ctypes.c_ubyte, self._size))

    @flash.setter
    def flash(self, content: bytes) -> None:
        ctypes.memmove(self._array("sim_flash", ctypes.c_ubyte, self._size), content, self._size)

    @property
    def erasures(self) -> list[int]:
        return list(self._array("sim_erasures", ctypes.c_uint32, self._sectors))

    def call(self, function: str, argument: int = 0) -> tuple[int, int]:
        """Why a function of one number did not return (0: it did), and its result."""
        result = ctypes.c_uint32()
        ended = self.c.sim_call(self.c[function], argument, ctypes.byref(result))
        assert ended != MISUSE
        return int(ended), result.value

    def serve(self, data: bytes) -> bytes:
        """Takes bytes, answers bytes; nothing any more once it has ended."""
        if self.ended:
            return b""
        count = ctypes.c_uint32()
        self.ended = self.c.sim_serve(
            data, len(data), self._answer, _ANSWER_BYTES, ctypes.byref(count)
        )
        assert self.ended != MISUSE
        return self._answer.raw[: count.value]


class Line:
    """A Stream of virtual time. Each direction carries `bits_per_s`, 10 bits a byte, and delays by
    `latency_s`; with the probability `faults` a frame meets one of `kinds`: it is lost, doubled,
    delayed past later ones or spoilt."""

    def __init__(
        self,
        board: Board,
        bits_per_s: int = 921_600,
        latency_s: float = 0.0,
        faults: float = 0.0,
        seed: int = 0,
        kinds: tuple[str, ...] = FAULTS,
    ) -> None:
        self.board = board
        self.bits_per_s: int | None = bits_per_s
        self.now_s = 0.0
        self.sent_bytes = 0
        self.received_bytes = 0
        self.faults = faults
        self.kinds = kinds
        self.carried = self.faults_met = 0  # frames
        self._latency_s = latency_s
        self._random = random.Random(seed)
        self._free_at_s = {"down": 0.0, "up": 0.0}
        self._down: list[tuple[float, int, bytes]] = []
        self._up: list[tuple[float, int, bytes]] = []
        self._count = 0

    def send(self, data: bytes) -> None:
        self.sent_bytes += len(data)
        for piece in _frames(data):
            self._carry("down", self._down, piece, self.now_s)

    def receive(self, timeout_s: float | None) -> bytes:
        assert timeout_s is not None
        deadline_s = self.now_s + timeout_s
        while True:
            down = self._down[0][0] if self._down else float("inf")
            up = self._up[0][0] if self._up else float("inf")
            if min(down, up) > deadline_s:
                self.now_s = deadline_s
                return b""
            if down <= up:
                at_s, _, piece = heapq.heappop(self._down)
                for answer in _frames(self.board.serve(piece)):
                    self.received_bytes += len(answer)
                    self._carry("up", self._up, answer, at_s)
            else:
                at_s, _, piece = heapq.heappop(self._up)
                self.now_s = max(self.now_s, at_s)
                return piece

    def _carry(self, way: str, queue: list[Any], piece: bytes, now_s: float) -> None:
        start_s = max(now_s, self._free_at_s[way])
        end_s = start_s + len(piece) * 10 / (self.bits_per_s or 1)
        self._free_at_s[way] = end_s
        arrivals = [end_s + self._latency_s]
        self.carried += 1
        if self._random.random() < self.faults:
            fault = self._random.choice(self.kinds)
            self.faults_met += 1
            if fault == "lost":
                return
            if fault == "doubled":
                arrivals *= 2
            elif fault == "late":
                arrivals[0] += self._random.random() * 0.1
            else:
                piece = _spoilt(piece, self._random)
        for at_s in arrivals:
            self._count += 1
            heapq.heappush(queue, (at_s, self._count, piece))


def _frames(data: bytes) -> list[bytes]:
    """Cut between frames: each is between two zero bytes."""
    return [b"\0" + part + b"\0" for part in data.split(b"\0") if part]


def _spoilt(piece: bytes, rng: random.Random) -> bytes:
    changed = bytearray(piece)
    for _ in range(rng.randint(1, 3)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    if rng.random() < 0.3:
        del changed[rng.randrange(len(changed)) :]
    return bytes(changed)
