# SPDX-License-Identifier: Apache-2.0
"""Every model of the zoo compiles, fits its board, agrees with onnxruntime, trains bit for bit
the same in numpy-free C on this machine and in an emulator, and learns."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.models.data import PRETRAINED, model_input, patterns
from tests.models.zoo import ZOO
from tests.onnx_models import run_onnx
from tte.board import load_board
from tte.codegen.emit import emit_project
from tte.data import Dataset, InputTransform
from tte.emulate.run import emulate
from tte.pipeline import CompileOptions, compile_model
from tte.program import Program
from tte.reference import Interpreter

BOARD = "mps2-an386"
FOLDER = Path(__file__).parent


def dataset_of(name: str) -> Dataset:
    """A small learnable data set in the model's shape."""
    entry = ZOO[name]
    if entry.classes:
        return patterns(entry.input_shape, entry.classes)
    found = patterns(entry.input_shape, 4)
    return replace(found, y_train=found.x_train, y_test=found.x_test, class_names=())


def compiled(name: str, folder: Path, dataset: Dataset) -> Program:
    """The program of a model with random weights, and its project in folder/project."""
    path = folder / f"{name}.onnx"
    path.write_bytes(ZOO[name].build().SerializeToString())
    options = CompileOptions(board=load_board(BOARD), update=ZOO[name].update)
    program = compile_model(path, dataset, options)
    (folder / "project").mkdir()
    emit_project(program, folder / "project")
    return program


def outputs(program: Program, x: np.ndarray) -> np.ndarray:
    """Real outputs of the integer network for raw samples, flat."""
    spec, graph = program.input, program.graph
    codes = InputTransform(spec.scale, spec.zero_point, spec.mean, spec.std).quantize(x)
    codes = codes.reshape(len(x), *graph[graph.inputs[0]].type.shape[1:])
    values = Interpreter(graph).run({graph.inputs[0]: codes}, program.schedule.backward_start)
    quant = graph[graph.outputs[0]].quant
    assert quant is not None
    return quant.dequantize(values[graph.outputs[0]]).reshape(len(x), -1)


@pytest.mark.parametrize("name", ZOO)
def test_a_model_compiles_agrees_and_trains(name: str, tmp_path: Path) -> None:
    dataset = dataset_of(name)
    program = compiled(name, tmp_path, dataset)
    assert program.memory.arena_bytes <= 1.02 * program.memory.lower_bound_bytes

    x = dataset.x_test[:8]
    found = outputs(program, x)
    rank = {"autoencoder": 2, "accelerometer_cnn": 3}.get(name, 4)
    real = run_onnx(tmp_path / f"{name}.onnx", model_input(x, rank))
    real = (real.transpose(0, 2, 3, 1) if real.ndim == 4 else real).reshape(len(x), -1)
    assert np.linalg.norm(found - real) < 0.1 * np.linalg.norm(real)

    project = tmp_path / "project"
    few = replace(dataset, x_test=dataset.x_test[:2], y_test=dataset.y_test[:2])
    here = emulate(project, few, "host", steps=2)
    there = emulate(project, few, "unicorn", steps=2)
    assert here["state_sha256"] == there["state_sha256"]
    assert here["training"]["loss"] == there["training"]["loss"]
    assert there["memory"]["sram_bytes"] <= 256 * 1024
    assert there["memory"]["flash_bytes"] <= 1024 * 1024
    state = b"".join(
        program.graph[tensor].data.tobytes()  # type: ignore[union-attr]
        for tensor in program.trained
    )
    assert here["state_sha256"] != hashlib.sha256(state).hexdigest()  # it did train

    losses = emulate(project, few, "host", steps=160)["training"]["loss"]
    assert np.mean(losses[-40:]) < np.mean(losses[:40])


@pytest.mark.parametrize("name", PRETRAINED)
def test_int8_is_as_good_as_float(name: str) -> None:
    """Within one point of onnxruntime's accuracy with the float model, which is what it was."""
    dataset = PRETRAINED[name].dataset()
    path = FOLDER / f"{name}.onnx"
    program = compile_model(path, dataset, CompileOptions(board=load_board(BOARD)))
    logits = run_onnx(path, model_input(dataset.x_test, PRETRAINED[name].input_rank))
    as_float = np.mean(logits.argmax(axis=1) == dataset.y_test)
    as_int8 = np.mean(outputs(program, dataset.x_test).argmax(axis=1) == dataset.y_test)
    assert as_float >= PRETRAINED[name].accuracy
    assert as_int8 >= as_float - 0.01
