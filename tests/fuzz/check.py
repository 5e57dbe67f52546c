# SPDX-License-Identifier: Apache-2.0
"""What has to be true of any network: four implementations of it agree.

- The imported and folded float graph computes what onnxruntime computes.
- The integer graph is no farther from onnxruntime than rounding explains.
- The file that the integer graph is exported to computes its codes, layer by layer, in onnxruntime.
- The integer graph in numpy, the generated C on this machine and the firmware in an emulated
  Cortex-M4 (with its fast kernels) give the same bits: outputs, losses, trained state,
  saturations.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.exported import check_export
from tests.fuzz.networks import CLASSES, Network
from tests.onnx_models import run_onnx, save
from tte.board import load_board
from tte.build import build_firmware, find_compiler
from tte.codegen.emit import emit_project
from tte.data import Dataset
from tte.emulate.session import open_session
from tte.export import to_onnx
from tte.frontend.load import load_model
from tte.ir import Graph, Tensor
from tte.ops import FLOAT_OPS
from tte.ops.arith import to_factor
from tte.passes.fold import fold
from tte.passes.update import plan_update
from tte.pipeline import CompileOptions, Prepared, lower, prepare
from tte.program import Program
from tte.reference import Interpreter, real_constant, run_float, run_op

Array = NDArray[Any]

SAMPLES, STEPS, INFERENCES = 24, 3, 2
LEARNING_RATE = 0.02
BOARD = "mps2-an386"
FLOAT_TOLERANCE = 1e-3  # of the largest score
NOISES = 1.5  # the error that is tolerated, in what rounding alone makes


@dataclass(frozen=True)
class Run:
    """What inferences and training steps leave behind."""

    outputs: list[list[int]]
    losses: list[float]
    state: bytes
    saturations: list[int]


def check(network: Network, folder: Path, objects: Path) -> None:
    """AssertionError where anything disagrees. `objects`: compiled files of other projects, too."""
    path = save(network.model, folder)
    graph = load_model(path)
    rng = np.random.default_rng(network.seed)
    x = rng.normal(0, 1, (SAMPLES, *graph[graph.inputs[0]].type.shape[1:])).astype(np.float32)
    check_float(graph, path, x)
    prepared = prepare(path, dataset(x, rng), CompileOptions(load_board(BOARD), std=(1.0,)))
    check_integers(fold(graph), prepared, path)
    forward = prepared.forward
    codes = prepared.codes.reshape(-1, *forward[forward.inputs[0]].type.shape[1:])
    check_export(forward, codes, to_onnx(forward, prepared.ending))
    update = narrow(prepared.forward, folder, rng) if network.update == "narrow" else network.update
    layers = len(plan_update(prepared.forward, "full").updates)
    if ":" in update:
        update = f"{update.split(':')[0]}:{min(int(update.split(':')[1]), layers - 1)}"
    options = CompileOptions(load_board(BOARD), update=update)
    program = lower(prepared, plan_update(prepared.forward, update), options)
    check_runs(program, prepared, folder / "project", objects)


def dataset(x: Array, rng: np.random.Generator) -> Dataset:
    y = rng.integers(0, CLASSES, len(x))
    maps = x if x.ndim == 4 else x[:, None, None]
    return Dataset(maps, y, maps, y, tuple("abcd"))


def file_order(path: Path, graph: Graph, x: Array) -> list[Array]:
    """x as the file's input takes it: channel first, or as it is, whichever fits."""
    import onnx

    dims = onnx.load(path).graph.input[0].type.tensor_type.shape.dim
    shape = tuple(dim.dim_value for dim in dims)[1:]
    found = []
    for moved in (np.moveaxis(x, -1, 1), x):
        if tuple(s for s in moved.shape[1:] if s > 1) == tuple(s for s in shape if s > 1):
            found.append(np.ascontiguousarray(moved).reshape(len(x), *shape))
    return found


def scores(path: Path, graph: Graph, x: Array, like: Array) -> Array:
    """onnxruntime's; an input of which both orders fit is tried in both."""
    found = [run_onnx(path, one).reshape(len(x), -1) for one in file_order(path, graph, x)]
    return min(found, key=lambda one: float(np.abs(one - like).max()))


def check_float(graph: Graph, path: Path, x: Array) -> None:
    found = run_float(graph, x)[graph.outputs[0]].reshape(len(x), -1)
    expected = scores(path, graph, x, found)
    largest = max(1.0, float(np.abs(expected).max()))
    assert np.abs(found - expected).max() <= FLOAT_TOLERANCE * largest, "imported"
    folded = fold(graph)
    if not ends_in_softmax(graph):
        found = run_float(folded, x)[folded.outputs[0]].reshape(len(x), -1)
        assert np.abs(found - expected).max() <= FLOAT_TOLERANCE * largest, "folded"


def ends_in_softmax(graph: Graph) -> bool:
    return graph.producers[graph.outputs[0]].kind == "softmax"


def check_integers(graph: Graph, prepared: Prepared, path: Path) -> None:
    """Scores, on the samples that were used to calibrate."""
    forward = prepared.forward
    quant, logits = forward[forward.inputs[0]].quant, forward[forward.outputs[0]].quant
    assert quant is not None and logits is not None
    codes = prepared.codes.reshape(len(prepared.codes), *forward[forward.inputs[0]].type.shape[1:])
    values: dict[str, Array] = {forward.inputs[0]: codes}
    for op in forward.ops:
        results = run_op(forward, op, values)
        values.update((n, r) for n, r in zip(op.outputs, results, strict=False) if n)
    found = logits.dequantize(values[forward.outputs[0]])
    x = quant.dequantize(codes).astype(np.float32)
    exact = run_float(graph, x)[graph.outputs[0]]
    expected = exact
    if not ends_in_softmax(load_model(path)):  # which is left to the loss
        expected = scores(path, graph, x, exact).reshape(exact.shape)
    noise = expected_noise(graph, forward, x, exact)
    error = float(np.sqrt(((found - expected) ** 2).mean()))
    limit = NOISES * noise + 2e-3 * float(expected.std())
    assert error <= limit, f"error {error:.4f}, rounding explains {noise:.4f}"


def expected_noise(graph: Graph, forward: Graph, x: Array, exact: Array) -> float:
    """RMS error of the scores of the float graph with rounded weights and activations."""
    values: dict[str, Array] = {graph.inputs[0]: x}
    for op in graph.ops:
        inputs = [rounded(graph[n]) if n not in values else values[n] for n in op.reads]
        result = FLOAT_OPS[op.kind].reference(op, inputs).astype(np.float32)
        output = op.outputs[0]
        quant = forward[output].quant if output in forward.tensors else None
        if quant is not None and len(quant.scale) == 1:
            result = quant.dequantize(quant.quantize(result)).astype(np.float32)
        values[output] = result
    return float(np.sqrt(((values[graph.outputs[0]] - exact) ** 2).mean()))


def rounded(tensor: Tensor) -> Array:
    """Weights as int8 per output channel."""
    data = real_constant(tensor)
    if data.ndim < 2:
        return data
    largest = np.abs(data).reshape(len(data), -1).max(axis=1)
    step = np.maximum(largest / 127, 1e-30).reshape(-1, *(1,) * (data.ndim - 1))
    return (np.rint(data / step) * step).astype(np.float32)


def narrow(forward: Graph, folder: Path, rng: np.random.Generator) -> str:
    """An update file: some channels of some layers."""
    names = [update.layer for update in plan_update(forward, "full").updates]
    picked = [name for name in names[:-1] if rng.random() < 0.6] + names[-1:]
    shares = [0.0, 0.3, 0.5, 1.0]
    layers = {
        name: {"bias": bool(rng.integers(2)), "weight": float(rng.choice(shares))}
        for name in picked
    }
    layers[names[-1]] = {"bias": True, "weight": 1.0}
    path = folder / "update.json"
    path.write_text(json.dumps({"schema": "tte-update/1", "layers": layers}), encoding="utf-8")
    return str(path)


def check_runs(program: Program, prepared: Prepared, project: Path, objects: Path) -> None:
    """numpy, this machine, Cortex-M4."""
    project.mkdir()
    emit_project(program, project)
    (project / "build").mkdir()
    (project / "build" / "objects").symlink_to(objects)
    expected = oracle(program, prepared)
    for emulator in ("host", "unicorn"):
        found = firmware(project, emulator, prepared)
        for name in ("outputs", "losses", "saturations", "state"):
            assert getattr(found, name) == getattr(expected, name), f"{emulator}: {name}"


def oracle(program: Program, prepared: Prepared) -> Run:
    graph = program.graph
    interpreter = Interpreter(graph)
    shape = (-1, *graph[graph.inputs[0]].type.shape[1:])
    codes, labels = prepared.codes.reshape(shape), prepared.labels
    rate = np.asarray(to_factor(LEARNING_RATE), np.int64).astype(np.int32)
    outputs, losses = [], []
    for i in range(max(INFERENCES, STEPS)):
        feeds = {graph.inputs[0]: codes[i : i + 1], "label": labels[i : i + 1]}
        if i < INFERENCES:  # without what a step changes
            output = Interpreter(graph).run({**feeds, "learning_rate": rate})[graph.outputs[0]]
            outputs.append(output.reshape(-1).tolist())
        if i < STEPS:
            values = interpreter.run({**feeds, "learning_rate": rate})
            losses.append(float(values["loss"][0]) / 65536)
    state = b"".join(interpreter.state[name].tobytes() for name in program.trained)
    return Run(outputs, losses, state, list(interpreter.saturations.values()))


def firmware(project: Path, emulator: str, prepared: Prepared) -> Run:
    manifest = json.loads((project / "program.json").read_text(encoding="utf-8"))
    board, built = load_board(BOARD), None
    if emulator != "host":
        built = build_firmware(project, board, find_compiler(board, "gcc"))
    codes, labels = prepared.codes, prepared.labels
    with open_session(emulator, project, manifest, built) as session:
        session.set_learning_rate(LEARNING_RATE)
        outputs = [session.infer(codes[i]).tolist() for i in range(INFERENCES)]
        losses = [session.train(codes[i], int(labels[i])) for i in range(STEPS)]
        return Run(outputs, losses, session.state(), session.saturations())
