# SPDX-License-Identifier: Apache-2.0
"""Hostile bytes for the firmware: its fuzz target with libFuzzer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from unittest import mock

from tests.device.simulator import FUZZ, FUZZ_DEFINES, SOURCES, compile_sim

SEEDS = FUZZ / "seeds"
FLAGS = ("-O1", "-g", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")


def has_libfuzzer(folder: Path) -> bool:
    """Whether clang is there with its run-time library."""
    source = folder / "empty.c"
    source.write_text("int LLVMFuzzerTestOneInput(const char *d, int n) { return !d && n; }\n")
    command = ["clang", *FLAGS, str(source), "-o", str(folder / "empty")]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def build_fuzzer(program: Path) -> None:
    """The firmware, the fake network and the board in memory behind libFuzzer."""
    with mock.patch.dict(os.environ, CC="clang"):
        compile_sim(program, FUZZ_DEFINES, *FLAGS, *map(str, (*SOURCES, FUZZ / "fuzz_firmware.c")))
