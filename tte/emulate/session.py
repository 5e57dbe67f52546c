# SPDX-License-Identifier: Apache-2.0
"""The harness protocol, whatever runs the firmware: one byte of command, then its arguments.

The firmware's half is runtime_c/firmware/main.c. Numbers are little endian.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tte.board import Board, load_board
from tte.build import Firmware, build_firmware, build_host, find_compiler
from tte.errors import TteError

COMMAND_LIMIT_S = 120.0
SETTINGS_BYTES = 8


class Transport(Protocol):
    """A running firmware. `receive` raises FirmwareFault where no answer comes in time."""

    name: str
    version: str

    def send(self, data: bytes) -> None: ...

    def receive(self, count: int) -> bytes: ...

    def count_ops(self, command: Callable[[], object]) -> dict[int, int] | None:
        """Runs `command`; op index -> executed instructions. None: it cannot count (not run)."""

    def close(self) -> None:
        """Ends the firmware and frees what it needed; may be called again."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What the firmware says about itself."""

    settings_bytes: int
    input_bytes: int
    target_bytes: int
    output_bytes: int
    state_bytes: int
    saturation_count: int


@dataclass(frozen=True, slots=True)
class OpCounts:
    """Exact instruction counts of one command. `total` spans the whole inference or training
    step, with the calls between the ops; `by_op[i]` belongs to program["ops"][i]. A basic block
    counts for the op that is running when it starts."""

    total: int
    by_op: tuple[int, ...]


class Session:
    """Speaks with one running firmware. Use as a context manager, or call close()."""

    def __init__(self, transport: Transport, program: dict[str, Any]) -> None:
        self._transport = transport
        self._op_count = len(program["ops"])
        output, target = program["output"], program["target"]
        self._output_dtype = np.dtype(output["dtype"]).newbyteorder("<")
        self._classes = int(program["classes"]) if target["kind"] == "label" else None
        self._loss_scale = float(program["loss"]["scale"])
        self._expected = Hello(
            settings_bytes=SETTINGS_BYTES,
            input_bytes=math.prod(program["input"]["shape"]),
            target_bytes=int(target["bytes"]),
            output_bytes=math.prod(output["shape"]) * self._output_dtype.itemsize,
            state_bytes=sum(int(entry["bytes"]) for entry in program["state"]),
            saturation_count=len(program["saturations"]),
        )

    @property
    def emulator_name(self) -> str:
        return self._transport.name

    @property
    def emulator_version(self) -> str:
        return self._transport.version

    def hello(self) -> Hello:
        """Asks the firmware what it is; an error if it is not the one of program.json."""
        self._transport.send(b"H")
        magic = self._transport.receive(4)
        if magic != b"TTE1":
            raise TteError("this is no tte firmware", why=f"it says {magic!r}, not b'TTE1'")
        hello = Hello(*struct.unpack("<6I", self._transport.receive(24)))
        if hello != self._expected:
            raise TteError(
                "the firmware and its program.json disagree",
                why=f"firmware: {hello}\nprogram.json: {self._expected}",
                hint="compile the model again",
            )
        return hello

    def set_learning_rate(self, learning_rate: float) -> None:
        """Holds for all training steps to come."""
        self._transport.send(b"R" + struct.pack("<2i", *factor(learning_rate)))

    def infer(self, sample: npt.NDArray[np.int8]) -> npt.NDArray[Any]:
        """The output of one sample, flat: int32 accumulators or int8 codes."""
        self._transport.send(b"I" + self._bytes(sample))
        return np.frombuffer(
            self._transport.receive(self._expected.output_bytes), self._output_dtype
        )

    def train(self, sample: npt.NDArray[np.int8], target: int | npt.NDArray[np.int8]) -> float:
        """One training step; the loss before it. `target`: a label, or int8 codes."""
        self._transport.send(b"T" + self._target_bytes(target) + self._bytes(sample))
        return float(self._word("<i")) * self._loss_scale

    def state(self) -> bytes:
        """All trained tensors, in the order of program["state"]."""
        self._transport.send(b"S")
        return self._transport.receive(self._expected.state_bytes)

    def saturations(self) -> list[int]:
        """How often each gradient tensor saturated since reset."""
        self._transport.send(b"C")
        count = self._expected.saturation_count
        return list(struct.unpack(f"<{count}I", self._transport.receive(4 * count)))

    def stack_bytes(self) -> int:
        """The stack's high-water mark since reset; 0 where it is not measured."""
        self._transport.send(b"K")
        return self._word("<I")

    def instructions(self) -> int | None:
        """Instructions of the last infer() or train(); None where they were not counted (on the
        host always, on unicorn outside count_ops())."""
        self._transport.send(b"N")
        return self._word("<I") or None

    def count_ops(self, command: Callable[[], object]) -> OpCounts | None:
        """Runs `command`, one infer() or train() of this session, and counts instructions per
        op; an order of magnitude slower. None, and nothing is run, where that is not possible."""
        counts = self._transport.count_ops(command)
        if counts is None:
            return None
        by_op = tuple(counts.get(index, 0) for index in range(self._op_count))
        return OpCounts(self.instructions() or 0, by_op)

    def quit(self) -> None:
        """Lets the firmware end by itself and closes the session."""
        try:
            self._transport.send(b"Q")
        finally:
            self.close()

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _word(self, layout: str) -> int:
        return int(struct.unpack(layout, self._transport.receive(4))[0])

    def _target_bytes(self, target: int | npt.NDArray[np.int8]) -> bytes:
        if self._classes is not None:
            if not isinstance(target, int) or not 0 <= target < self._classes:
                raise TteError(
                    f"there is no class {target}", why=f"classes are 0 to {self._classes - 1}"
                )
            return struct.pack("<I", target)
        count = self._expected.target_bytes
        if isinstance(target, int) or target.dtype != np.int8 or target.size != count:
            raise TteError("the target does not fit the loss", why=f"it takes {count} int8 values")
        return target.tobytes()

    def _bytes(self, sample: npt.NDArray[np.int8]) -> bytes:
        if sample.dtype != np.int8 or sample.size != self._expected.input_bytes:
            raise TteError(
                "the sample does not fit the network's input",
                why=f"it is {sample.dtype} {list(sample.shape)},"
                f" the input takes {self._expected.input_bytes} int8 values",
            )
        return sample.tobytes()


def factor(value: float) -> tuple[int, int]:
    """A positive number as tte_factor: mantissa in [2^30, 2^31), value = mantissa * 2^-exponent;
    0 is (0, 0)."""
    if not math.isfinite(value) or value < 0:
        raise TteError(f"{value!r} is no learning rate", hint="it is a positive number")
    fraction, exponent = math.frexp(value)
    mantissa = round(math.ldexp(fraction, 31))
    if mantissa == 1 << 31:
        mantissa, exponent = mantissa >> 1, exponent + 1
    return mantissa, 31 - exponent if mantissa else 0


def open_session(
    emulator: str,
    project_dir: Path,
    program: dict[str, Any],
    firmware: Firmware | None = None,
    *,
    command_limit_s: float = COMMAND_LIMIT_S,
) -> Session:
    """Starts the firmware of a project and greets it. `emulator`: unicorn, qemu or host; the
    firmware, or the host's program, is built where it is not given. A command that takes
    longer than the limit ends as a FirmwareFault."""
    if emulator not in _OPENERS:
        raise TteError(f"unknown emulator {emulator!r}", hint="one of " + ", ".join(_OPENERS))
    board = load_board(program["board"])
    if emulator not in board.emulators:
        raise TteError(
            f"{board.name} does not run on {emulator}",
            hint="it runs on " + ", ".join(board.emulators),
        )
    transport = _OPENERS[emulator](project_dir, program, board, firmware, command_limit_s)
    session = Session(transport, program)
    try:
        session.hello()
    except BaseException:
        session.close()
        raise
    return session


def _open_host(
    project_dir: Path,
    program: dict[str, Any],
    board: Board,
    firmware: Firmware | None,
    limit_s: float,
) -> Transport:
    from tte.emulate.host import HostTransport

    return HostTransport(build_host(project_dir), limit_s)


def _open_unicorn(
    project_dir: Path,
    program: dict[str, Any],
    board: Board,
    firmware: Firmware | None,
    limit_s: float,
) -> Transport:
    from tte.emulate.unicorn_backend import UnicornTransport

    firmware = firmware or _build(project_dir, program, board)
    return UnicornTransport(firmware.elf_path, board, program, limit_s)


def _open_qemu(
    project_dir: Path,
    program: dict[str, Any],
    board: Board,
    firmware: Firmware | None,
    limit_s: float,
) -> Transport:
    from tte.emulate.qemu import QemuTransport

    firmware = firmware or _build(project_dir, program, board)
    return QemuTransport(firmware.elf_path, board, program, limit_s)


def _build(project_dir: Path, program: dict[str, Any], board: Board) -> Firmware:
    return build_firmware(project_dir, board, find_compiler(board, program.get("compiler")))


_Opener = Callable[[Path, dict[str, Any], Board, Firmware | None, float], Transport]
_OPENERS: dict[str, _Opener] = {
    "unicorn": _open_unicorn,
    "qemu": _open_qemu,
    "host": _open_host,
}
