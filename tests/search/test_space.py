# SPDX-License-Identifier: Apache-2.0
"""What candidates cost: by the compiler, by the estimate, and counted in an emulator."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from tte.board import load_board
from tte.codegen.emit import emit_project
from tte.data import Dataset
from tte.device.run import read_program
from tte.emulate.session import open_session
from tte.errors import TteError
from tte.passes.update import plan_update
from tte.pipeline import CompileOptions, Prepared, lower, prepare
from tte.search.costs import CostModel, work
from tte.search.space import RATIOS, Candidate, Space


def some(space: Space, count: int, seed: int = 0) -> list[Candidate]:
    """Random candidates, many of them sparse."""
    rng = np.random.default_rng(seed)
    layers = len(space.layers)
    found = []
    for _ in range(count):
        ratios = rng.integers(0, len(RATIOS), layers) * (rng.random(layers) < rng.random() / 2)
        found.append(Candidate(int(rng.integers(0, layers + 1)), tuple(map(int, ratios))))
    return found


def test_a_measured_candidate_is_what_compile_makes(
    space: Space, prepared: Prepared, options: CompileOptions, tmp_path: Path
) -> None:
    for index, candidate in enumerate(some(space, 4)):
        path = tmp_path / f"{index}.json"
        path.write_text(json.dumps(space.update_file(candidate)), encoding="utf-8")
        plan = plan_update(prepared.forward, str(path))
        assert plan.updates == space.plan(candidate).updates
        program = lower(prepared, plan, options)
        sram = program.memory.arena_bytes + program.trainable_bytes
        cost = space.measure(candidate)
        assert cost.sram_bytes == sram + options.board.stack_reserve_bytes
        assert cost.instructions == CostModel.of(options.board).step(program.graph)


def off_by(space: Space, count: int) -> np.ndarray:
    """How far the estimate is off, as a share: [candidate, (SRAM, instructions)]."""
    candidates = some(space, count)
    costs = [space.measure(candidate) for candidate in candidates]
    measured = np.array([[cost.sram_bytes, cost.instructions] for cost in costs], float)
    return np.abs(space.estimate(candidates) / measured - 1)


def test_the_estimate_is_close(space: Space) -> None:
    """A tiny network, in which single buffers are a large share."""
    off = off_by(space, 16)
    assert np.median(off[:, 0]) < 0.03 and off[:, 0].max() < 0.5
    assert off[:, 1].max() < 0.08


def test_thousands_of_photo_candidates_a_minute_close_to_the_truth(shared_models: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (4, 128, 128, 3)).astype(np.uint8)
    y = np.arange(4, dtype=np.int64)
    data = Dataset(x, y, x, y, tuple("abcd"))
    options = CompileOptions(load_board("mps2-an500"), classes=4)
    prepared = prepare(shared_models / "mcunet-5fps-int8-qdq.onnx", data, options)
    photo = Space(prepared, options.board)
    off = off_by(photo, 4)
    assert off[:, 0].max() < 0.12 and off[:, 1].max() < 0.02
    candidates = some(photo, 2000, seed=1)
    deep = [c for c in candidates if photo.reach(c) >= 30]
    start = time.process_time()
    photo.estimate(deep * (2000 // len(deep)))
    assert time.process_time() - start < 20


@pytest.mark.parametrize(("spec", "within"), [("last:3", 0.26), ("last:8", 0.25)])
def test_predicted_instructions_are_close_to_counted_ones(
    spec: str, within: float, prepared: Prepared, options: CompileOptions, tmp_path: Path
) -> None:
    """Of plans that the coefficients were not fitted to."""
    program = lower(prepared, plan_update(prepared.forward, spec), options)
    emit_project(program, tmp_path)
    manifest = read_program(tmp_path)
    assert [f"tte_{one.kernel}" for one in work(program.graph)] == [
        op["kernel"] for op in manifest["ops"]
    ]
    x = np.zeros(program.input.shape, np.int8)
    with open_session("unicorn", tmp_path, manifest) as session:
        counts = session.count_ops(lambda: session.train(x, 1))
    assert counts is not None
    predicted = CostModel.of(options.board).step(program.graph)
    assert abs(predicted / counts.total - 1) < within


def test_listed_channels(prepared: Prepared, space: Space, tmp_path: Path) -> None:
    layer = space.layers[-1]
    path = tmp_path / "update.json"

    def plan(entry: object) -> object:
        document = {"schema": "tte-update/1", "layers": {layer: entry}}
        path.write_text(json.dumps(document), encoding="utf-8")
        return plan_update(prepared.forward, str(path)).updates[0].channels

    assert plan({"channels": [0, 3]}) == (0, 3)
    count = prepared.forward[f"{layer}.weight"].type.shape[-1]
    assert plan({"bias": True, "channels": list(range(count))}) is None
    for wrong in ([3, 0], [0, 0], [-1], [count], [True], "0", {}):
        with pytest.raises(TteError, match="cannot be used"):
            plan({"channels": wrong})
    with pytest.raises(TteError, match="cannot be used"):
        plan({"channels": [0], "weight": 0.5})
