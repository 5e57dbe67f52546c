# SPDX-License-Identifier: Apache-2.0
"""The commands of a device, whatever line leads to it. docs/protocol.md describes them."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from tte.device.frames import ANSWER_BYTES
from tte.device.link import Link
from tte.device.state import state_bytes
from tte.errors import TteError
from tte.training import SCHEDULES

PROTOCOL_VERSION = 2
_SETTINGS = struct.Struct("<2i3I")
READ, INFER, TRAIN, METRICS, SAVE, RESTART, STORE, CLEAR, RUN = range(3, 12)
INPUT, TARGET, SETTINGS, STATE, OUTPUT, SATURATIONS = range(1, 7)
_HELLO = struct.Struct("<BBH16s11I")
_METRICS = struct.Struct("<i6I")


@dataclass(frozen=True, slots=True)
class Hello:
    """What a device says about itself. `model_id` is "id" of program.json; `steps` were trained
    since the network's first state; `checkpoint` is the number of the last one, 0: none."""

    model_id: str
    input_bytes: int
    target_bytes: int
    output_bytes: int
    settings_bytes: int
    state_bytes: int
    saturation_count: int
    steps: int
    checkpoint_slots: int
    checkpoint: int
    sample_capacity: int
    samples: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """`instructions` of the last inference or step and `stack_bytes` are None where they are not
    measured; `run_steps` are still to come on stored samples."""

    loss: float
    steps: int
    instructions: int | None
    stack_bytes: int | None
    checkpoint: int
    samples: int
    run_steps: int


class Device:
    """One device, for one program. hello() comes first."""

    def __init__(self, link: Link, program: Mapping[str, Any]) -> None:
        self._link = link
        self._model_id = str(program["id"])
        output, target = program["output"], program["target"]
        self._output_dtype = np.dtype(output["dtype"]).newbyteorder("<")
        self._classes = int(program["classes"]) if target["kind"] == "label" else None
        self._loss_scale = float(program["loss"]["scale"])
        self._input_bytes = math.prod(program["input"]["shape"])
        self._target_bytes = int(target["bytes"])
        self._output_bytes = math.prod(output["shape"]) * self._output_dtype.itemsize
        self._state_bytes = state_bytes(program)
        self._saturation_count = len(program["saturations"])
        self._chunk_bytes = 0
        self.steps = 0  # that the device has trained

    @property
    def link(self) -> Link:
        return self._link

    def hello(self, limit_s: float | None = None) -> Hello:
        """Starts a conversation; an error if the device does not run the program's firmware, or
        does not answer within the limit (None: that of the link)."""
        payload = self._link.hello(limit_s)
        if payload[0] != PROTOCOL_VERSION or len(payload) != _HELLO.size:
            raise TteError(
                "the device speaks another version of the protocol",
                why=f"it speaks version {payload[0]}, this tte version {PROTOCOL_VERSION}",
                hint="compile and flash the project again",
            )
        _, _, frame_bytes, model_id, *numbers = _HELLO.unpack(payload)
        hello = Hello(model_id.hex(), *numbers)
        expected = {
            "model_id": self._model_id,
            "input_bytes": self._input_bytes,
            "target_bytes": self._target_bytes,
            "output_bytes": self._output_bytes,
            "settings_bytes": _SETTINGS.size,
            "state_bytes": self._state_bytes,
            "saturation_count": self._saturation_count,
        }
        found = {name: getattr(hello, name) for name in expected}
        if found != expected or frame_bytes < 64:
            raise TteError(
                "the firmware and its program.json disagree",
                why=f"firmware: {found}\nprogram.json: {expected}",
                hint="compile the model again, and flash it",
            )
        self._chunk_bytes = frame_bytes - 5
        self.steps = hello.steps
        return hello

    def skip_hello(self, frame_bytes: int) -> None:
        """Instead of hello(), where nobody answers: a conversation that is written down."""
        self._chunk_bytes = frame_bytes - 5

    # ---- samples --------------------------------------------------------------------------

    def set_learning_rate(
        self,
        learning_rate: float,
        schedule: str = "constant",
        steps: int = 0,
        first_step: int | None = None,
    ) -> None:
        """Holds for all training steps to come; with a schedule it falls over `steps` steps, from
        `first_step` (default: the next one) on."""
        first = self.steps if first_step is None else first_step
        shape = SCHEDULES.index(schedule)
        settings = _SETTINGS.pack(*factor(learning_rate), shape, first, min(steps, 2**32 - 1))
        self._write(SETTINGS, settings)

    def infer(self, sample: npt.NDArray[np.int8]) -> npt.NDArray[Any]:
        """The output of one sample, flat: int32 accumulators or int8 codes."""
        self._write(INPUT, self._bytes(sample))
        size = self._output_bytes
        output = self._link.call(INFER)[:size]
        return np.frombuffer(self._read(OUTPUT, size, output), self._output_dtype)

    def train(self, sample: npt.NDArray[np.int8], target: int | npt.NDArray[Any]) -> float:
        """One training step; the loss before it. `target`: a label, or int8 codes; where a sample
        is its own target it is not sent."""
        self._write(TARGET, self._target(target))
        self._write(INPUT, self._bytes(sample))
        answer = self._link.call(TRAIN, struct.pack("<I", self.steps))
        loss, self.steps = _unpacked("<iI", answer)
        return float(loss) * self._loss_scale

    # ---- state and metrics ----------------------------------------------------------------

    def state(self) -> bytes:
        """All trained tensors, in the order of program["state"]."""
        return self._read(STATE, self._state_bytes)

    def set_state(self, state: bytes) -> None:
        """Replaces all trained tensors; its steps go on being counted."""
        if len(state) != self._state_bytes:
            raise TteError(
                f"the state has {len(state)} bytes", why=f"the device has {self._state_bytes}"
            )
        self._write(STATE, state)
        self.metrics()

    def saturations(self) -> list[int]:
        """How often each gradient tensor saturated since the device started."""
        count = self._saturation_count
        return list(struct.unpack(f"<{count}I", self._read(SATURATIONS, 4 * count)))

    def metrics(self) -> Metrics:
        loss, steps, instructions, stack, *others = _unpacked(
            _METRICS.format, self._link.call(METRICS)
        )
        return Metrics(loss * self._loss_scale, steps, instructions or None, stack or None, *others)

    def stack_bytes(self) -> int:
        """The stack's high-water mark since the device started; 0 where it is not measured."""
        return self.metrics().stack_bytes or 0

    def instructions(self) -> int | None:
        """Instructions of the last infer() or train(); None where they were not counted (on the
        host always, on unicorn outside count_ops())."""
        return self.metrics().instructions

    # ---- what stays on the device ---------------------------------------------------------

    def save(self) -> int:
        """Saves a checkpoint, which the device loads when it starts; its number."""
        return int(_unpacked("<I", self._link.call(SAVE))[0])

    def store(self, sample: npt.NDArray[np.int8], target: int | npt.NDArray[Any]) -> int:
        """Keeps a sample on the device; how many it has now."""
        self._write(TARGET, self._target(target))
        self._write(INPUT, self._bytes(sample))
        return int(_unpacked("<I", self._link.call(STORE))[0])

    def clear(self) -> None:
        """Forgets all stored samples."""
        self._link.call(CLEAR)

    def run(self, steps: int) -> None:
        """Lets the device train `steps` steps on its stored samples, with nobody listening;
        metrics() tells how many are left, run(0) ends it."""
        self._link.call(RUN, struct.pack("<I", steps))

    def restart(self, *, forget: bool = False) -> None:
        """Starts the firmware again, from its last checkpoint or, with `forget`, from the
        network's first state. hello() comes next, when it is up."""
        self._link.call(RESTART, bytes([forget]))

    # ---- parts ----------------------------------------------------------------------------

    def _write(self, region: int, data: bytes) -> None:
        for offset in range(0, len(data), self._chunk_bytes):
            chunk = data[offset : offset + self._chunk_bytes]
            self._link.post(struct.pack("<BI", region, offset) + chunk)

    def _read(self, region: int, size: int, known: bytes = b"") -> bytes:
        data = bytearray(known)
        while len(data) < size:
            wanted = min(ANSWER_BYTES, size - len(data))
            part = self._link.call(READ, struct.pack("<BIH", region, len(data), wanted))
            if not 0 < len(part) <= wanted:
                raise _nonsense()
            data += part
        return bytes(data)

    def _target(self, target: int | npt.NDArray[Any]) -> bytes:
        values = np.asarray(target)
        if self._classes is not None:
            if values.size != 1 or not 0 <= int(values.item()) < self._classes:
                raise TteError(
                    f"there is no class {target}", why=f"classes are 0 to {self._classes - 1}"
                )
            return struct.pack("<I", int(values.item()))
        count = self._target_bytes
        if count == 0:
            return b""
        if values.dtype != np.int8 or values.size != count:
            raise TteError("the target does not fit the loss", why=f"it takes {count} int8 values")
        return values.tobytes()

    def _bytes(self, sample: npt.NDArray[np.int8]) -> bytes:
        if sample.dtype != np.int8 or sample.size != self._input_bytes:
            raise TteError(
                "the sample does not fit the network's input",
                why=f"it is {sample.dtype} {list(sample.shape)},"
                f" the input takes {self._input_bytes} int8 values",
            )
        return sample.tobytes()

    def close(self) -> None:
        """Frees the line."""

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


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


def _unpacked(layout: str, answer: bytes) -> tuple[Any, ...]:
    if len(answer) != struct.calcsize(layout):
        raise _nonsense()
    return struct.unpack(layout, answer)


def _nonsense() -> TteError:
    return TteError(
        "the device's answer has a wrong size", hint="compile and flash the project again"
    )
