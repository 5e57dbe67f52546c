# SPDX-License-Identifier: Apache-2.0
"""Every model of the zoo compiles, fits its board, agrees with onnxruntime, trains bit for bit
the same in numpy-free C on this machine and in an emulator, and learns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.models.data import PRETRAINED, patterns, recorded_motions, spoken_digits
from tests.models.measure import float_outputs, int8_outputs, score
from tests.models.zoo import ZOO
from tte.board import load_board
from tte.codegen.emit import emit_project
from tte.data import Dataset, load_dataset
from tte.emulate.run import emulate
from tte.passes.update import plan_update
from tte.pipeline import CompileOptions, Prepared, check_fit, compile_model, lower, prepare
from tte.program import Program

BOARD = "mps2-an386"
FOLDER = Path(__file__).parent


def dataset_of(name: str) -> Dataset:
    """A small learnable data set in the model's shape."""
    entry = ZOO[name]
    if entry.classes:
        return patterns(entry.input_shape, entry.classes)
    found = patterns(entry.input_shape, 4)
    return replace(found, y_train=found.x_train, y_test=found.x_test, class_names=())


def compiled(name: str, folder: Path, dataset: Dataset) -> tuple[Program, Prepared]:
    """A model with random weights, whose project is in folder/project."""
    path = folder / f"{name}.onnx"
    path.write_bytes(ZOO[name].build().SerializeToString())
    options = CompileOptions(board=load_board(BOARD), update=ZOO[name].update)
    prepared = prepare(path, dataset, options)
    program = lower(prepared, plan_update(prepared.forward, options.update), options)
    check_fit(program)
    (folder / "project").mkdir()
    emit_project(program, folder / "project")
    return program, prepared


def check_training(project: Path, program: Program, dataset: Dataset, steps: int) -> None:
    """The same in C here and in an emulator, within the board's memory; it does change weights."""
    here = emulate(project, dataset, "host", steps=steps)
    there = emulate(project, dataset, "unicorn", steps=steps)
    assert here["state_sha256"] == there["state_sha256"]
    assert here["training"]["loss"] == there["training"]["loss"]
    assert there["memory"]["sram_bytes"] <= 256 * 1024
    assert there["memory"]["flash_bytes"] <= 1024 * 1024
    state = b"".join(
        program.graph[tensor].data.tobytes()  # type: ignore[union-attr]
        for tensor in program.trained
    )
    assert here["state_sha256"] != hashlib.sha256(state).hexdigest()


@pytest.mark.parametrize("name", ZOO)
def test_a_model_compiles_agrees_and_trains(name: str, tmp_path: Path) -> None:
    dataset = dataset_of(name)
    program, prepared = compiled(name, tmp_path, dataset)
    assert program.memory.arena_bytes <= 1.02 * program.memory.lower_bound_bytes

    x = dataset.x_test[:8]
    found = int8_outputs(prepared, x)
    real = float_outputs(tmp_path / f"{name}.onnx", x)
    assert np.linalg.norm(found - real) < 0.1 * np.linalg.norm(real)

    project = tmp_path / "project"
    few = replace(dataset, x_test=dataset.x_test[:2], y_test=dataset.y_test[:2])
    check_training(project, program, few, 2)
    losses = emulate(project, few, "host", steps=160)["training"]["loss"]
    assert np.mean(losses[-40:]) < np.mean(losses[:40])


@pytest.mark.parametrize("name", PRETRAINED)
def test_int8_is_as_good_as_float(name: str, request: pytest.FixtureRequest) -> None:
    """Within one point of onnxruntime's score with the float model, which is what it was."""
    if name == "resnet_8":
        request.getfixturevalue("shared_data")
    found = PRETRAINED[name].dataset()
    dataset = replace(found, x_test=found.x_test[:500], y_test=found.y_test[:500])
    path = FOLDER / f"{name}.onnx"
    prepared = prepare(path, dataset, CompileOptions(board=load_board(BOARD)))
    as_float = score(float_outputs(path, dataset.x_test), dataset)
    as_int8 = score(int8_outputs(prepared, dataset.x_test), dataset)
    assert as_float >= PRETRAINED[name].score
    assert as_int8 >= as_float - 0.01


@pytest.mark.parametrize(
    ("name", "data", "rate", "before", "after"),
    [
        ("accelerometer_cnn", recorded_motions, 0.002, 0.5, 0.9),
        ("spectrogram_cnn", spoken_digits, 0.01, 0.2, 0.25),
    ],
)
def test_learns_real_recordings(
    name: str,
    data: Callable[[], Dataset],
    rate: float,
    before: float,
    after: float,
    shared_data: Path,
    tmp_path: Path,
) -> None:
    """What was trained on signals made here learns other classes, of real signals."""
    dataset = data()
    options = CompileOptions(board=load_board(BOARD), update="full")
    emit_project(compile_model(FOLDER / f"{name}.onnx", dataset, options), tmp_path)
    found = emulate(tmp_path, dataset, "host", steps=800, learning_rate=rate)["training"]
    assert found["accuracy_before"] < before
    assert found["accuracy_after"] > after


@pytest.mark.parametrize("net", ["mcunet-5fps", "mbv2-w0.35", "proxyless-w0.3"])
def test_an_imagenet_network_trains(
    net: str, photos: Dataset, shared_models: Path, tmp_path: Path
) -> None:
    """The float networks, quantised here, with a published update scheme and a fresh head."""
    update = str(shared_models / "updates" / f"{net}-49kb.json")
    options = CompileOptions(board=load_board(BOARD), classes=5, update=update)
    program = compile_model(shared_models / f"{net}-fp32.onnx", photos, options)
    emit_project(program, tmp_path)
    check_training(tmp_path, program, photos, 1)


@pytest.fixture(scope="module")
def photos(shared_data: Path) -> Dataset:
    """Forty photos of flowers to train on, and one more."""
    found = load_dataset(shared_data / "flowers5_128")
    return replace(
        found,
        x_train=found.x_train[::12],
        y_train=found.y_train[::12],
        x_test=found.x_test[:1],
        y_test=found.y_test[:1],
    )
