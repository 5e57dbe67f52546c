# SPDX-License-Identifier: Apache-2.0
"""Momentum, batches, weight decay and schedules: the generated C equals the oracle, and the oracle
is, within its rounding, what the same optimiser does in real numbers."""

from __future__ import annotations

import ctypes
import json
import math
import subprocess
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.graphs import small_network, training_graph
from tests.train.test_steps import (
    LEARNING_RATE,
    NARROW,
    firmware_run,
    oracle,
    program_of,
)
from tte.codegen.emit import emit_project
from tte.emulate.session import open_session
from tte.ir import Graph
from tte.ops import INTEGER_OPS
from tte.ops.arith import Factor, to_factor
from tte.ops.loss import step_tensor
from tte.ops.quantized import UpdateAttrs
from tte.ops.sgd import SgdAttrs, scheduled_rate
from tte.program import Program
from tte.reference import Interpreter
from tte.resources import runtime_dir
from tte.training import PLAIN_SGD, SCHEDULES, Optimizer

MOMENTUM, BATCH = Optimizer(momentum=0.9), Optimizer(batch=5)
DECAY, ALL = Optimizer(weight_decay=0.5), Optimizer(0.8, 3, 0.1)
RUNS = [
    (MOMENTUM, "full", "unicorn", "mps2-an386", "gcc"),
    (MOMENTUM, "narrow", "host", "mps2-an386", "gcc"),
    (BATCH, "full", "host", "mps2-an386", "gcc"),
    (BATCH, "last:4", "unicorn", "mps2-an500", "zig"),
    (DECAY, "full", "host", "mps2-an386", "gcc"),
    (DECAY, "narrow", "unicorn", "mps2-an386", "gcc"),
    (ALL, "full", "host", "mps2-an386", "gcc"),
    (ALL, "narrow", "unicorn", "mps2-an500", "gcc"),
    (ALL, "last:4", "unicorn", "generic-m0plus", "gcc"),
    (ALL, "bias:6", "qemu", "mps2-an385", "gcc"),
    (ALL, "head", "unicorn", "mps2-an386", "gcc"),
]


def make_project(optimizer: Optimizer, update: str, board: str, folder: Path) -> Any:
    """The project's folder; program, samples, labels."""
    if update == "narrow":
        path = folder / "narrow.json"
        path.write_text(json.dumps(NARROW), encoding="utf-8")
        update = str(path)
    made = program_of(small_network(), update, board, optimizer)
    project = folder / "project"
    project.mkdir()
    emit_project(made[0], project)
    return project, *made


@pytest.mark.parametrize(("optimizer", "update", "emulator", "board", "compiler"), RUNS)
def test_steps_equal_the_oracle(
    optimizer: Optimizer, update: str, emulator: str, board: str, compiler: str, tmp_path: Path
) -> None:
    project, program, codes, labels = make_project(optimizer, update, board, tmp_path)
    expected = oracle(program, codes, labels)
    assert firmware_run(project, emulator, compiler, codes, labels) == expected
    assert len(set(expected.losses)) == len(expected.losses)
    initial = b"".join(program.graph[name].data.tobytes() for name in program.trained)
    assert expected.state != initial


def test_velocities_take_as_much_memory_as_what_they_move() -> None:
    def program(optimizer: Optimizer) -> Program:
        return program_of(small_network(), "full", "mps2-an386", optimizer)[0]

    plain, count = program(PLAIN_SGD), 8
    for optimizer in (DECAY, MOMENTUM, BATCH, ALL):
        found = program(optimizer)
        assert found.trained[: len(plain.trained)] == plain.trained
        times = 2 if optimizer.has_velocity else 1
        assert found.trainable_bytes == times * plain.trainable_bytes + count


# ---- real numbers -------------------------------------------------------------------------


def real(factor: Any) -> float:
    return math.ldexp(int(factor[0]), -int(factor[1]))


class RealOptimizer:
    """The same optimiser in float64, on the gradients that the integers have."""

    def __init__(self, interpreter: Interpreter, optimizer: Optimizer) -> None:
        self.graph, self.optimizer = interpreter.graph, optimizer
        self.updates: list[tuple[Any, Any]] = []
        moves = {o.attrs.layer + o.attrs.param: o for o in self.ops(SgdAttrs)}
        self.updates = [(o, moves[o.attrs.layer + o.attrs.param]) for o in self.ops(UpdateAttrs)]
        self.value = {move.name: full(interpreter, move.inputs[3:]) for _, move in self.updates}
        self.velocity = {name: np.zeros_like(value) for name, value in self.value.items()}
        self.samples = 0

    def ops(self, kind: type) -> list[Any]:
        return [op for op in self.graph.ops if isinstance(op.attrs, kind)]

    def step(self, values: dict[str, Any], rate: float) -> None:
        self.samples += 1
        is_last = self.samples % self.optimizer.batch == 0
        for update, move in self.updates:
            inputs = [values.get(n, self.graph[n].data) for n in update.inputs[:-3]]
            gradient = INTEGER_OPS[update.kind].real_gradient
            assert gradient is not None
            total = gradient(update, [i.astype(np.float64) for i in inputs])
            rates = np.asarray([real(r) for r in update.attrs.rates])
            rates = rates.reshape(-1, *[1] * (total.ndim - 1))
            moved = total * rates * real(values["step"])
            velocity, value = self.velocity[move.name], self.value[move.name]
            velocity -= moved.reshape(velocity.shape)
            if is_last:
                value *= 1 - rate * self.optimizer.weight_decay * (move.attrs.param == "weight")
                value += velocity * rate * 2.0**move.attrs.velocity_shift
                velocity *= self.optimizer.momentum


def full(interpreter: Interpreter, names: Any) -> Any:
    value, residual = (interpreter.state[interpreter.graph.storage(name)] for name in names)
    return 256.0 * value + residual


def feeds(graph: Graph, codes: Any, labels: Any, i: int, rate: float) -> dict[str, Any]:
    i %= len(codes)
    return {
        graph.inputs[0]: codes[i : i + 1],
        "label": labels[i : i + 1],
        "learning_rate": step_tensor(to_factor(rate)),
    }


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [(MOMENTUM, 2e-4), (MOMENTUM, 2e-5), (Optimizer(0.9, 4, 0.1), 2e-3), (BATCH, 2e-3)],
)
def test_integers_follow_real_numbers(optimizer: Optimizer, rate: float) -> None:
    """However small the moves are: the weights end within a few units of 1/256 quantum."""
    graph, codes, labels = training_graph(small_network(), "last:2", optimizer=optimizer)
    interpreter = Interpreter(graph)
    wanted = RealOptimizer(interpreter, optimizer)
    start = {name: value.copy() for name, value in wanted.value.items()}
    for i in range(200):
        wanted.step(interpreter.run(feeds(graph, codes, labels, i, rate)), rate)
    assert not sum(n for name, n in interpreter.saturations.items() if name.endswith("'"))
    for _, move in wanted.updates:
        if move.attrs.param == "weight":
            value = wanted.value[move.name]
            error = full(interpreter, move.inputs[3:]) - value
            moved = np.sqrt(np.mean((value - start[move.name]) ** 2))
            assert np.sqrt(np.mean(error**2)) < 2.0 + 0.01 * moved, move.name
            assert moved > 15, move.name


def test_a_batch_of_equal_samples_is_one_step_with_that_sample() -> None:
    """The mean of N equal gradients is that gradient, whatever the sample's loss."""
    start, ends = {}, {}
    for optimizer in (PLAIN_SGD, Optimizer(batch=6)):
        graph, codes, labels = training_graph(small_network(), "last:4", optimizer=optimizer)
        interpreter = Interpreter(graph)
        kinds = UpdateAttrs if optimizer == PLAIN_SGD else SgdAttrs
        ops = [op for op in graph.ops if isinstance(op.attrs, kinds)]
        pairs = {op.attrs.layer + op.attrs.param: op.inputs[-2:] for op in ops}
        start = {name: full(interpreter, pair) for name, pair in pairs.items()}
        for _ in range(optimizer.batch):
            interpreter.run(feeds(graph, codes, labels, 3, 0.01))
        ends[optimizer] = {name: full(interpreter, pair) for name, pair in pairs.items()}
    plain, gathered = ends.values()
    for name in plain:
        moved = np.abs(plain[name] - start[name])
        assert (np.abs(gathered[name] - plain[name]) <= 2 + 0.002 * moved).all(), name
    assert max(np.abs(plain[name] - start[name]).max() for name in plain) > 50


# ---- schedules ----------------------------------------------------------------------------


class Schedule(ctypes.Structure):
    """tte_schedule."""

    _fields_ = (
        ("mantissa", ctypes.c_int32),
        ("exponent", ctypes.c_int32),
        *((name, ctypes.c_uint32) for name in ("shape", "first_step", "steps")),
    )


class CFactor(ctypes.Structure):
    _fields_ = (("mantissa", ctypes.c_int32), ("exponent", ctypes.c_int32))


@cache
def schedule_library(folder: Path) -> Any:
    runtime, path = runtime_dir(), folder / "schedule.so"
    flags = ["-std=c99", "-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all"]
    include = [f"-I{runtime / name}" for name in ("include", "firmware")]
    source = runtime / "firmware" / "tte_schedule.c"
    command = ["cc", *flags, *include, "-shared", "-fPIC", str(source), "-o", str(path)]
    subprocess.run(command, check=True)
    function = ctypes.CDLL(str(path)).tte_schedule_rate
    function.restype = CFactor
    return function


@pytest.fixture(scope="session")
def c_rate(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """scheduled_rate() of the firmware, with the step that the schedule begins with."""
    function = schedule_library(tmp_path_factory.mktemp("schedule"))

    def rate(base: Factor, schedule: str, done: int, steps: int, first: int = 0) -> Factor:
        told = Schedule(*base, SCHEDULES.index(schedule), first, steps)
        found = function(ctypes.byref(told), ctypes.c_uint32(first + done))
        return Factor(found.mantissa, found.exponent)

    return rate


words = st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 3000))


@settings(max_examples=1000, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(SCHEDULES), words, words, words, st.floats(1e-9, 9.0))
def test_schedules_equal_their_twin(
    c_rate: Any, schedule: str, done: int, steps: int, first: int, base: float
) -> None:
    factor = to_factor(base)
    assert c_rate(factor, schedule, done, steps, first) == scheduled_rate(
        factor, schedule, done, steps
    )


@pytest.mark.parametrize("steps", [1, 2, 7, 1000, 54321])
def test_schedules_are_what_they_are_called(steps: int) -> None:
    base = to_factor(0.004)
    picked = np.unique(np.linspace(0, steps - 1, 300).astype(int)).tolist()
    for schedule, shape in (
        ("constant", lambda x: 1.0),
        ("linear", lambda x: 1 - x),
        ("cosine", lambda x: (1 + math.cos(math.pi * x)) / 2),
    ):
        found = [real(scheduled_rate(base, schedule, done, steps)) for done in picked]
        wanted = [0.004 * shape(done / steps) for done in picked]
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=0.004 * 2e-9)
        assert found == sorted(found, reverse=True)
        assert scheduled_rate(base, schedule, 0, steps) == base
        after = scheduled_rate(base, schedule, steps + 5, steps)
        assert after == scheduled_rate(base, schedule, steps - 1, steps)


def test_a_scheduled_run_equals_the_oracle_and_survives_a_restart(tmp_path: Path) -> None:
    """Cut in the middle of a batch and of the schedule, it goes on with the same bits."""
    optimizer = Optimizer(0.9, 3, 0.1, "cosine")
    project, program, codes, labels = make_project(optimizer, "full", "mps2-an386", tmp_path)
    graph, interpreter = program.graph, Interpreter(program.graph)
    base, count = to_factor(LEARNING_RATE), 11
    for i in range(count):
        given = feeds(graph, codes, labels, i, LEARNING_RATE)
        given["learning_rate"] = step_tensor(scheduled_rate(base, "cosine", i, count))
        interpreter.run(given)
    expected = b"".join(interpreter.state[name].tobytes() for name in program.trained)
    manifest = json.loads((project / "program.json").read_text(encoding="utf-8"))
    assert manifest["optimizer"] == asdict(optimizer)
    for cut in (None, 4, 5):
        with open_session("host", project, manifest) as session:
            session.set_learning_rate(LEARNING_RATE, "cosine", count)
            for i in range(count):
                if i == cut:
                    session.save()
                    session.train(codes[9], int(labels[9]))  # lost
                    session.restart()
                    assert session.hello().steps == cut
                session.train(codes[i], int(labels[i]))
            assert session.state() == expected
