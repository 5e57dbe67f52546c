# SPDX-License-Identifier: Apache-2.0
"""Trained weights become an ONNX file that onnxruntime runs as the device does, and come back bit
for bit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from tests.device.served import board
from tests.exported import check_export, in_file
from tests.graphs import quantized, sample_graph, small_network
from tests.ops.test_contract import IDS, SAMPLES
from tests.tflite_models import RELU, TfNet
from tte.board import load_board
from tte.codegen.emit import emit_project
from tte.data import Dataset, InputTransform
from tte.device.port import SerialStream
from tte.device.run import read_program
from tte.device.state import STATE_NAME, State, read_state, write_state
from tte.device.train import TrainOptions, open_board, train_on_board
from tte.device.weights import MODEL_NAME, STATE_KEY, pull, push
from tte.emulate.run import emulate
from tte.errors import TteError
from tte.export import to_onnx
from tte.ir import Graph
from tte.ops import INTEGER_OPS
from tte.pipeline import CompileOptions, compile_model
from tte.program import Program
from tte.training import Optimizer

# ---- files compute what devices do --------------------------------------------------------


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_every_operator_computes_the_device_s_codes(sample: Any) -> None:
    forward, codes = quantized(sample_graph(sample))
    assert check_export(forward, codes, to_onnx(forward)) < 0.01


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_onnxruntime_optimises_what_is_written(sample: Any) -> None:
    forward, _ = quantized(sample_graph(sample))
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(to_onnx(forward), options)
    entry = session.get_inputs()[0]
    session.run(None, {entry.name: np.zeros((1, *entry.shape[1:]), np.float32)})


def test_every_forward_operator_can_be_written() -> None:
    from tte.export import _RULES

    forward = {op.kind for s in SAMPLES for op in quantized(sample_graph(s))[0].ops}
    assert forward | {"widen_int32"} == set(_RULES)
    assert set(_RULES) <= set(INTEGER_OPS)


def test_a_network_computes_the_device_s_codes() -> None:
    forward, codes = quantized(small_network())
    assert check_export(forward, codes, to_onnx(forward, "softmax")) < 0.01
    model = onnx.load_from_string(to_onnx(forward, "softmax"))
    assert model.graph.node[-1].op_type == "Softmax"


# ---- projects -----------------------------------------------------------------------------


def digits(root: Path, folder: Path) -> Path:
    return root / "examples" / "digits" / "digits_cnn.onnx"


def tflite(root: Path, folder: Path) -> Path:
    net = TfNet((1, 16, 16, 1))
    y = net.conv(net.x, 8, stride=2, activation=RELU)
    y = net.mean(net.conv(y, 12, kernel=1, activation=RELU))
    return Path(net.save(folder, net.dense(y, 10)))


SLICED = {"bias": True, "weight": 0.5}
MOMENTUM = Optimizer(0.9, 4, 1e-4)
PROJECTS: dict[str, tuple[Callable[[Path, Path], Path], int | None, Any]] = {
    "float ONNX, last:4": (digits, None, "last:4"),
    "float ONNX, fresh head": (digits, 7, "last:2"),
    "float ONNX, sliced": (digits, None, {
        "down2.pointwise": SLICED, "down2.depthwise": SLICED, "residual.project": SLICED,
        "head": {"bias": True, "weight": 1.0},
    }),
    "tflite, full": (tflite, None, "full"),
    "tflite, momentum": (tflite, None, "last:1"),
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    x = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 1)).astype(np.uint8)
    y = np.arange(60) % 7
    return Dataset(x, y, x[:20], y[:20], tuple(map(str, range(7))))


class Made:
    """A compiled project that has trained in an emulator."""

    def __init__(self, folder: Path, program: Program, report: dict[str, Any]) -> None:
        self.folder, self.program, self.report = folder, program, report
        self.manifest = read_program(folder)
        self.state = read_state(folder, self.manifest)


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, root: Path, dataset: Dataset
) -> Callable[[str], Made]:
    known: dict[str, Made] = {}

    def make(name: str) -> Made:
        if name not in known:
            folder = tmp_path_factory.mktemp("weights")
            build, classes, update = PROJECTS[name]
            model = build(root, folder)
            if not isinstance(update, str):
                scheme = {"schema": "tte-update/1", "channel_choice": "first", "layers": update}
                (folder / "update.json").write_text(json.dumps(scheme))
                update = str(folder / "update.json")
            optimizer = MOMENTUM if name.endswith("momentum") else Optimizer()
            options = CompileOptions(
                load_board("mps2-an386"), classes=classes, update=update, optimizer=optimizer
            )
            program = compile_model(model, dataset, options)
            (folder / "project").mkdir()
            emit_project(program, folder / "project")
            report = emulate(folder / "project", dataset, "host", steps=60, learning_rate=0.02)
            known[name] = Made(folder / "project", program, report)
        return known[name]

    return make


@pytest.mark.parametrize("name", PROJECTS)
def test_a_pulled_file_computes_what_the_device_does(
    name: str, made: Callable[[str], Made], dataset: Dataset, tmp_path: Path
) -> None:
    project = made(name)
    content = pull(project.folder, project.manifest, project.state)
    spec, forward = project.program.input, project.program.forward
    assert forward is not None
    codes = InputTransform(spec.scale, spec.zero_point, spec.mean, spec.std).quantize(
        dataset.x_test
    )
    trained = trained_constants(project, forward)
    assert any((value != forward[name].data).any() for name, value in trained.items())
    tensors = [replace(forward[name], data=value) for name, value in trained.items()]
    assert check_export(forward.with_changes(tensors=tensors), codes, content) < 0.01
    session = onnxruntime.InferenceSession(content)  # as people run it, optimised
    real = in_file((dataset.x_test.astype(np.float32) - 128) / 127.5)
    (scores,) = session.run(None, {session.get_inputs()[0].name: real})
    accuracy = (scores.argmax(axis=1) == dataset.y_test).mean()
    assert abs(accuracy - project.report["training"]["accuracy_after"]) <= 1 / 20
    # And back: compiled again, the file's network has the trained codes.
    (tmp_path / "pulled.onnx").write_bytes(content)
    options = CompileOptions(load_board("mps2-an386"), update="head")
    again = compile_model(tmp_path / "pulled.onnx", dataset, options).forward
    assert again is not None
    data = [tensor.data for tensor in again.tensors.values() if tensor.data is not None]
    for value in trained.values():
        assert any(
            one.size == value.size and (one.reshape(-1) == value.reshape(-1)).all() for one in data
        )


def trained_constants(project: Made, forward: Graph) -> dict[str, np.ndarray]:
    """Trained weights from the state's bytes, in the graph's shapes, read independently."""
    found, offset = {}, 0
    for entry in project.manifest["state"]:
        part = project.state.data[offset : offset + entry["bytes"]]
        offset += entry["bytes"]
        name = entry["name"].removesuffix(".trained")
        tensor = forward.tensors.get(name)
        if tensor is None:
            continue
        assert tensor.data is not None
        values = np.frombuffer(part, tensor.data.dtype)
        whole = tensor.data.copy()
        if name == entry["name"]:
            whole[...] = values.reshape(whole.shape)
        elif whole.shape[-1] == 1:  # depthwise: the first channels
            whole[: whole.shape[0] // 2] = values.reshape(-1, *whole.shape[1:])
        else:
            whole[..., : whole.shape[-1] // 2] = values.reshape(*whole.shape[:-1], -1)
        found[name] = whole
    return found


@pytest.mark.parametrize("name", PROJECTS)
def test_pushing_restores_every_bit(name: str, made: Callable[[str], Made], tmp_path: Path) -> None:
    project = made(name)
    content = pull(project.folder, project.manifest, project.state)
    (tmp_path / "new.onnx").write_bytes(content)
    assert push(project.folder, project.manifest, tmp_path / "new.onnx") == project.state
    # Without the metadata the weights are the same, and the residuals 0.
    model = onnx.load_from_string(content)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    bare = push(project.folder, project.manifest, tmp_path / "bare.onnx")
    write_state(tmp_path, bare)
    assert bare.steps == 0
    offset = 0
    for entry in project.manifest["state"]:
        part = slice(offset, offset + entry["bytes"])
        offset += entry["bytes"]
        if entry["name"] not in {weight["state"] for weight in project.manifest["weights"]}:
            assert not any(bare.data[part])
        else:
            assert bare.data[part] == project.state.data[part], entry["name"]


def test_an_emulation_goes_on_from_a_state(made: Callable[[str], Made], dataset: Dataset) -> None:
    project = made("tflite, full")
    whole = emulate(project.folder, dataset, "host", steps=50, learning_rate=0.02)
    emulate(project.folder, dataset, "host", steps=20, learning_rate=0.02)
    first = read_state(project.folder, project.manifest)
    rest = emulate(project.folder, dataset, "host", steps=30, learning_rate=0.02, resume=True)
    assert first.steps == 20 and read_state(project.folder, project.manifest).steps == 50
    assert rest["state_sha256"] == whole["state_sha256"]
    write_state(project.folder, project.state)


def test_from_one_board_to_another(
    made: Callable[[str], Made], dataset: Dataset, tmp_path: Path
) -> None:
    """Through the command line; both boards go on alike."""
    project = made("tflite, full")
    options = TrainOptions(steps=5, test=False)
    shas = []
    with board(project.folder) as one, board(project.folder) as other:
        with SerialStream(one) as stream:
            train_on_board(project.folder, dataset, stream, replace(options, steps=20))
        tte("weights", "pull", project.folder, "-o", tmp_path / "new.onnx", "--port", one)
        tte("weights", "push", project.folder, tmp_path / "new.onnx", "--port", other)
        with SerialStream(other) as stream:
            device, hello = open_board(stream, project.manifest)
            assert hello.checkpoint == 1
            state = device.state()
        for port in (one, other):
            with SerialStream(port) as stream:
                device, _ = open_board(stream, project.manifest)
                assert device.state() == state
                for i in range(5):
                    x = np.full(256, 7 * i, np.int8)
                    device.set_learning_rate(0.02)
                    device.train(x, i)
                shas.append(device.state())
    assert shas[0] == shas[1] != state
    write_state(project.folder, project.state)


def tte(*arguments: object) -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "tte", *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


# ---- errors -------------------------------------------------------------------------------


def changed(content: bytes, name: str, change: Callable[[np.ndarray], None]) -> bytes:
    model = onnx.load_from_string(content)
    for entry in model.graph.initializer:
        if entry.name == name:
            array = numpy_helper.to_array(entry).copy()
            change(array)
            entry.CopyFrom(numpy_helper.from_array(array, name))
    return bytes(model.SerializeToString())


def without(content: bytes, name: str) -> bytes:
    model = onnx.load_from_string(content)
    kept = [entry for entry in model.graph.initializer if entry.name != name]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return bytes(model.SerializeToString())


def with_state(content: bytes, state: str) -> bytes:
    model = onnx.load_from_string(content)
    for entry in model.metadata_props:
        if entry.key == STATE_KEY:
            entry.value = state
    return bytes(model.SerializeToString())


def set_all(value: int) -> Callable[[np.ndarray], None]:
    return lambda array: array.fill(value)


BAD_FILES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no ONNX": (lambda content: b"\x00rubbish" * 9, "no ONNX model"),
    "cut off": (lambda content: content[: len(content) // 2], "ONNX|weights|project's"),
    "no weights": (lambda content: without(content, "head.weight"), "no weights"),
    "frozen": (lambda c: changed(c, "stem.weight", set_all(1)), "not the project's"),
    "scale": (lambda c: changed(c, "input.scale", set_all(2)), "not the project's"),
    "range": (lambda c: changed(c, "head.weight", set_all(-128)), "out of range"),
    "bias": (lambda c: changed(c, "head.bias", set_all(-(2**31))), "out of range"),
    "other channels": (
        lambda c: changed(c, "residual.project.weight", lambda a: a[:, -1].fill(1)), "other chann",
    ),
    "base64": (lambda content: with_state(content, "%%%"), "damaged"),
    "zlib": (lambda content: with_state(content, "AAAA"), "damaged"),
    "bomb": (lambda content: with_state(content, bomb()), "no trained state"),
}  # fmt: skip


def bomb() -> str:
    import base64
    import zlib

    return base64.b64encode(zlib.compress(bytes(1 << 24))).decode()


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_file_that_does_not_fit(kind: str, made: Callable[[str], Made], tmp_path: Path) -> None:
    project = made("float ONNX, sliced")
    damage, message = BAD_FILES[kind]
    content = pull(project.folder, project.manifest, project.state)
    (tmp_path / "bad.onnx").write_bytes(damage(content))
    with pytest.raises(TteError, match=message):
        push(project.folder, project.manifest, tmp_path / "bad.onnx")


def test_changed_weights_have_no_residuals(made: Callable[[str], Made], tmp_path: Path) -> None:
    project = made("tflite, full")
    name = project.manifest["weights"][0]["initializer"]
    content = changed(
        pull(project.folder, project.manifest, project.state), name, lambda a: a.fill(3)
    )
    (tmp_path / "edited.onnx").write_bytes(content)
    state = push(project.folder, project.manifest, tmp_path / "edited.onnx")
    offset = 0
    for entry in project.manifest["state"]:
        part = slice(offset, offset + entry["bytes"])
        offset += entry["bytes"]
        if entry["name"] == name:
            assert set(state.data[part]) == {3}
        elif entry["name"] == f"{name}.residual":
            assert not any(state.data[part])
        else:
            assert state.data[part] == project.state.data[part]


def test_states_that_are_none(made: Callable[[str], Made], tmp_path: Path) -> None:
    project = made("tflite, full")
    with pytest.raises(TteError, match="no trained state yet"):
        read_state(tmp_path, project.manifest)
    good = project.state.encode()
    for content, message in (
        (b"", "no trained state"),
        (good[:-1], "no trained state"),
        (bytes([good[0] ^ 1]) + good[1:], "no trained state"),
        (good[:40] + bytes([good[40] ^ 1]) + good[41:], "no trained state"),
        (State(bytes(16).hex(), 1, project.state.data).encode(), "another program"),
        (State(project.state.model_id, 1, b"12").encode(), "another program"),
    ):
        (tmp_path / STATE_NAME).write_bytes(content)
        with pytest.raises(TteError, match=message):
            read_state(tmp_path, project.manifest)
    with pytest.raises(TteError, match="cannot be read"):
        pull(tmp_path, project.manifest, project.state)
    assert (project.folder / MODEL_NAME).is_file() and os.listdir(tmp_path) == [STATE_NAME]
