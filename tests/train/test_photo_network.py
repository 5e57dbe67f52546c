# SPDX-License-Identifier: Apache-2.0
"""Training steps of a network of real size, streamed and with its published update: firmware equals
the oracle on every kind of core."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.train.test_steps import firmware_run, oracle
from tte.board import load_board
from tte.codegen.emit import emit_project
from tte.data import InputTransform, load_dataset
from tte.pipeline import CompileOptions, compile_model

SAMPLES = [0, 333]  # of two classes


@pytest.mark.parametrize(
    ("board", "emulator", "compiler"),
    [
        ("mps2-an386", "unicorn", "gcc"),
        ("mps2-an500", "unicorn", "zig"),
        ("mps2-an500", "qemu", "gcc"),
        ("mps2-an385", "qemu", "gcc"),
        ("generic-m0plus", "unicorn", "gcc"),
        ("mps2-an386", "host", "gcc"),
    ],
)
def test_steps_equal_the_oracle(
    board: str, emulator: str, compiler: str, tmp_path: Path, shared_models: Path, shared_data: Path
) -> None:
    pytest.importorskip("PIL")
    photos = load_dataset(shared_data / "flowers5_128")
    options = CompileOptions(
        load_board(board),
        classes=photos.classes,
        update=str(shared_models / "updates" / "mcunet-5fps-99kb.json"),
        sram_bytes=512 << 10,
        flash_bytes=2 << 20,
    )
    program = compile_model(shared_models / "mcunet-5fps-int8-qdq.onnx", photos, options)
    entry = program.input
    transform = InputTransform(entry.scale, entry.zero_point, entry.mean, entry.std)
    codes = transform.quantize(photos.x_train[SAMPLES])
    labels = photos.y_train[SAMPLES].astype(np.int64)
    emit_project(program, tmp_path)
    assert firmware_run(tmp_path, emulator, compiler, codes, labels) == oracle(
        program, codes, labels
    )
