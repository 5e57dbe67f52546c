# SPDX-License-Identifier: Apache-2.0
"""One training run of a candidate: its C, compiled for this machine and called directly.

A trial is plain data, so that any process on any machine can run it. The kernels are the portable
ones of every emulator: a trial ends in the bits that the firmware would end in.
"""

from __future__ import annotations

import _ctypes
import ctypes
import hashlib
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tte.build import build_library
from tte.codegen.emit import render_project
from tte.ir import TensorType
from tte.program import Program

SOURCES = ("src/model.", "src/data.", "kernels/tte_")


@dataclass(frozen=True, slots=True)
class Samples:
    """int8 features and encoded targets of training samples, features of held-out ones."""

    x: NDArray[np.int8]
    targets: NDArray[Any]
    held_x: NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Trial:
    """C sources by path, the type of the network's output, how many arrays its state has, the
    order in which samples train, and how many times in its last third outputs are looked at."""

    files: Mapping[str, str]
    output: TensorType
    states: int
    order: NDArray[np.int64]
    looks: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """Raw outputs [N, elements] of the held-out samples at each look, the last one after training,
    and the state's hash."""

    looks: tuple[NDArray[Any], ...]
    state_sha256: str

    @property
    def outputs(self) -> NDArray[Any]:
        """After training."""
        return self.looks[-1]


def make_trial(program: Program, order: NDArray[np.int64], looks: int = 1) -> Trial:
    """The trial of a program, with its own learning rate."""
    files = {
        path: text
        for path, text in render_project(program, for_reading=False).items()
        if path.startswith(SOURCES) and not path.startswith("kernels/armv7em/")
    }
    output = program.graph[program.graph.outputs[0]].type
    return Trial(files, output, len(program.trained), order, looks)


def run_trial(trial: Trial, samples: Samples) -> Outcome:
    """Compiles, trains in the trial's order, and infers every held-out sample at each look."""
    root = _scratch_root()
    for folder in ("src", "kernels"):
        (root / folder).mkdir(exist_ok=True)
        for path in (root / folder).iterdir():
            if f"{folder}/{path.name}" not in trial.files:
                path.unlink()
    for name, text in trial.files.items():
        (root / name).write_text(text, encoding="utf-8")
    library = build_library(root)
    try:
        with _Network(library, trial) as network:
            looks = []
            for part in np.split(trial.order, _pauses(len(trial.order), trial.looks)):
                network.train(samples, part)
                looks.append(network.infer(samples.held_x))
            return Outcome(tuple(looks), network.state_sha256())
    finally:
        library.unlink()


def _pauses(steps: int, looks: int) -> list[int]:
    """Steps after which all looks but the last are taken, evenly over the last third."""
    return [steps - steps * left // (3 * looks) for left in range(looks - 1, 0, -1)]


_threads = threading.local()


def _scratch_root() -> Path:
    """One folder for all trials of a thread: a kernel is compiled once."""
    if not hasattr(_threads, "folder"):
        _threads.folder = tempfile.TemporaryDirectory(prefix="tte-")
    return Path(_threads.folder.name)


class _StateEntry(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("bytes", ctypes.c_uint32))


class _Network:
    """A generated network in this process."""

    def __init__(self, library: Path, trial: Trial) -> None:
        self._c = ctypes.CDLL(str(library))
        self._output, self._states = trial.output, trial.states
        for name in ("tte_input", "tte_target", "tte_output"):
            getattr(self._c, name).restype = ctypes.c_void_p

    def train(self, samples: Samples, order: NDArray[np.int64]) -> None:
        """One step for each sample in `order`."""
        y = samples.targets
        x, y = np.ascontiguousarray(samples.x), y.astype(np.int32) if y.ndim == 1 else y
        for index in order.tolist():
            ctypes.memmove(self._c.tte_input(), x[index].ctypes.data, x[index].nbytes)
            target = y[index : index + 1]
            ctypes.memmove(self._c.tte_target(), target.ctypes.data, target.nbytes)
            self._c.tte_train_step()

    def infer(self, x: NDArray[np.int8]) -> NDArray[Any]:
        """Raw outputs [N, elements]."""
        rows = []
        for sample in np.ascontiguousarray(x):
            ctypes.memmove(self._c.tte_input(), sample.ctypes.data, sample.nbytes)
            self._c.tte_infer()
            rows.append(ctypes.string_at(self._c.tte_output(), self._output.size_bytes))
        return np.frombuffer(b"".join(rows), self._output.dtype).reshape(len(x), -1)

    def state_sha256(self) -> str:
        """Of everything that was trained, as reports tell it."""
        table = _StateEntry.in_dll(self._c, "tte_state")
        digest = hashlib.sha256()
        entries = ctypes.cast(ctypes.addressof(table), ctypes.POINTER(_StateEntry))
        for i in range(self._states):
            digest.update(ctypes.string_at(entries[i].data, entries[i].bytes))
        return digest.hexdigest()

    def __enter__(self) -> _Network:
        return self

    def __exit__(self, *exception: object) -> None:
        _ctypes.dlclose(self._c._handle)
