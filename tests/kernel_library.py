# SPDX-License-Identifier: Apache-2.0
"""Calls kernels from Python, in memory that shows what they touched.

Every array is copied into a malloc'ed buffer of exactly its size between two runs of canary
bytes. The library is built with UBSan, and with ASan too when the process was started with
libasan preloaded (see run_with_asan); then the redzones take the place of the canaries and also
catch reads.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.kernel_machine import KernelMachine, kernel_machine
from tte.ops import params as kernel_params

ROOT = Path(__file__).resolve().parents[1]
INCLUDE = ROOT / "runtime_c" / "include"
PORTABLE_SOURCES = tuple(sorted((ROOT / "runtime_c" / "src").glob("*.c")))
ARMV7EM = ROOT / "runtime_c" / "src" / "armv7em"
_REPLACED = {path.name for path in ARMV7EM.glob("*.c")}
# The kernels for the DSP extension on this machine; tests/shim/ has in C what they have in
# assembly.
ARMV7EM_SOURCES = (
    *sorted(ARMV7EM.glob("*.c")),
    *(path for path in PORTABLE_SOURCES if path.name not in _REPLACED),
    *sorted((ROOT / "tests" / "shim").glob("*.c")),
)
# "armv7em": the tests run with those; the name of a board: with its kernels, emulated.
SOURCES_VARIABLE = "TTE_TEST_KERNELS"
SOURCES = ARMV7EM_SOURCES if os.environ.get(SOURCES_VARIABLE) == "armv7em" else PORTABLE_SOURCES

SANITIZED = ("-O1", "-g", "-fno-sanitize-recover=all")
FAST = ("-O3", "-march=native")

CANARY = 0xA5
CANARY_BYTES = 64  # keeps the alignment of malloc

Array = NDArray[Any]
Argument = Array | ctypes._SimpleCData | None  # an array, ctypes.c_uint16(3), NULL

_process = ctypes.CDLL(None)
_process.malloc.restype = ctypes.c_void_p
_process.malloc.argtypes = [ctypes.c_size_t]
_process.free.argtypes = [ctypes.c_void_p]


def asan_is_loaded() -> bool:
    """Whether this process was started with libasan preloaded."""
    return hasattr(_process, "__asan_init")


def host_compiler() -> str:
    """The host's C compiler: $CC, else cc."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise RuntimeError("no host C compiler: install one or set CC")
    return compiler


def build(sources: Iterable[Path], flags: Sequence[str], suffix: str = ".so") -> Path:
    """Compiles sources with the runtime's headers; the same content is built once."""
    files = tuple(sources)
    command = [host_compiler(), "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", *flags]
    digest = hashlib.sha256("\0".join(command).encode())
    headers = (*sorted(INCLUDE.glob("*.h")), *sorted(ARMV7EM.glob("*.h")))
    # A fast kernel may include the portable one.
    for file in (*headers, *PORTABLE_SOURCES, *files):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"tte-tests-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / (digest.hexdigest()[:24] + suffix)
    if not target.exists():
        # Built beside and renamed: several test processes may want it at once.
        unfinished = folder / f"{target.name}.{os.getpid()}"
        environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
        result = subprocess.run(
            [*command, f"-I{INCLUDE}", *map(str, files), "-o", str(unfinished)],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        if result.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{result.stderr}")
        unfinished.rename(target)
    return target


class _Buffer:
    """A copy of an array in its own memory, between canaries."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.guard = 0 if asan_is_loaded() else CANARY_BYTES
        data = np.ascontiguousarray(array).tobytes()
        canary = bytes([CANARY]) * self.guard
        self.size_bytes = len(data)
        self.memory = _process.malloc(self.size_bytes + 2 * self.guard)
        ctypes.memmove(self.memory, canary + data + canary, self.size_bytes + 2 * self.guard)

    @property
    def address(self) -> int:
        return int(self.memory) + self.guard

    def finish(self, what: str) -> None:
        """Checks the canaries, copies the data back, frees the memory."""
        before = ctypes.string_at(self.memory, self.guard)
        data = ctypes.string_at(self.address, self.size_bytes)
        after = ctypes.string_at(self.address + self.size_bytes, self.guard)
        _process.free(self.memory)
        canary = bytes([CANARY]) * self.guard
        assert before == canary, f"{what} was written before its begin"
        assert after == canary, f"{what} was written past its end"
        result = np.frombuffer(data, self.array.dtype).reshape(self.array.shape)
        if self.array.flags.writeable:
            self.array[...] = result
        else:
            assert np.array_equal(self.array, result), f"{what} is an input and was written"


@dataclass(frozen=True)
class KernelLibrary:
    """A shared library of kernels."""

    path: Path

    @functools.cached_property
    def _library(self) -> ctypes.CDLL:
        return ctypes.CDLL(str(self.path))

    def call(
        self, symbol: str, params: kernel_params.Params | None, args: Sequence[Argument]
    ) -> None:
        """symbol(&params, args...). Arrays are updated in place, those that are not writeable
        must come back unchanged; the same array twice is the same buffer twice."""
        function = getattr(self._library, symbol)
        function.restype = None
        buffers: dict[int, _Buffer] = {}
        names: dict[int, str] = {}
        c_args: list[Any] = []
        structure = None if params is None else kernel_params.to_ctypes(params)
        if structure is not None:
            frozen = np.frombuffer(bytes(structure), np.uint8)  # read-only
            buffers[id(frozen)] = _Buffer(frozen)
            names[id(frozen)] = f"{symbol}: params"
            c_args.append(ctypes.c_void_p(buffers[id(frozen)].address))
        for position, arg in enumerate(args):
            if arg is None:
                c_args.append(ctypes.c_void_p())
            elif isinstance(arg, np.ndarray):
                if id(arg) not in buffers:
                    buffers[id(arg)] = _Buffer(arg)
                    names[id(arg)] = f"{symbol}: argument {position} {arg.dtype}{arg.shape}"
                c_args.append(ctypes.c_void_p(buffers[id(arg)].address))
            else:
                c_args.append(arg)
        function(*c_args)
        for key, buffer in buffers.items():
            buffer.finish(names[key])


def kernel_library(
    sources: Sequence[Path] = SOURCES, *, fast: bool = False
) -> KernelLibrary | KernelMachine:
    """The kernels, with every sanitizer that this process can hold, or as fast as they get."""
    board = os.environ.get(SOURCES_VARIABLE, "armv7em")
    if board != "armv7em" and not fast:
        return kernel_machine(board)
    common = ("-fPIC", "-shared")
    if fast:
        return KernelLibrary(build(sources, (*common, *FAST)))
    sanitizers = "address,undefined" if asan_is_loaded() else "undefined"
    try:
        return KernelLibrary(build(sources, (*common, *SANITIZED, f"-fsanitize={sanitizers}")))
    except RuntimeError as error:
        if "ubsan" not in str(error) and "asan" not in str(error):
            raise
    return KernelLibrary(build(sources, (*common, "-O1", "-g")))


def asan_runtime() -> Path | None:
    """The compiler's libasan, or None where it has none."""
    answer = subprocess.run(
        [host_compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    path = Path(answer.stdout.strip())
    return path.resolve() if path.is_absolute() and path.exists() else None


def run_with_asan(test_file: Path, runtime: Path) -> subprocess.CompletedProcess[str]:
    """Runs a test file once more, in a process that starts with libasan."""
    environment = os.environ | {
        "LD_PRELOAD": str(runtime),
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(
            os.pathsep
        ),
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(test_file)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
