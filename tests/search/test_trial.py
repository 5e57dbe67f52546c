# SPDX-License-Identifier: Apache-2.0
"""A trial ends in the bits of the firmware, whoever runs it and wherever the network was cut."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tte.codegen.emit import emit_project
from tte.data import Dataset, InputTransform, sample_order
from tte.device.run import read_program
from tte.emulate.session import open_session
from tte.errors import TteError
from tte.ir import Graph
from tte.passes.differentiate import differentiate
from tte.passes.prune import prune
from tte.passes.update import plan_update
from tte.pipeline import CompileOptions, Prepared, lower, measure_scales
from tte.reference import run_op
from tte.search.pool import run_all, workers
from tte.search.suffix import cut, cut_points, features
from tte.search.trial import Outcome, Samples, Trial, make_trial, run_trial

STEPS = 12


def codes(prepared: Prepared, x: np.ndarray) -> np.ndarray:
    spec = prepared.input
    return InputTransform(spec.scale, spec.zero_point, spec.mean, spec.std).quantize(x)


def make(
    prepared: Prepared, options: CompileOptions, digits: Dataset, spec: str
) -> tuple[Trial, Samples]:
    """A SPEC as a trial from the last cut before its first layer."""
    plan = plan_update(prepared.forward, spec)
    full = differentiate(prepared.forward, prepared.loss)
    rho = measure_scales(prepared, prune(full, plan), options)
    suffix = cut(prepared, plan.updates[0].layer)
    program = lower(suffix.prepared, plan, replace(options, stream=False), rho)
    x = features(suffix.frozen, codes(prepared, digits.x_train))
    order = sample_order(len(x), STEPS, 0)
    return make_trial(program, order), Samples(x, digits.y_train, x[:8])


@pytest.mark.parametrize("spec", ["head", "last:2", "bias:5"])
def test_a_cut_network_ends_in_the_firmwares_bits(
    spec: str, prepared: Prepared, options: CompileOptions, digits: Dataset, tmp_path: Path
) -> None:
    outcome = run_trial(*make(prepared, options, digits, spec))
    program = lower(prepared, plan_update(prepared.forward, spec), options)
    emit_project(program, tmp_path)
    x = codes(prepared, digits.x_train)
    with open_session("host", tmp_path, read_program(tmp_path)) as session:
        for index in sample_order(len(x), STEPS, 0).tolist():
            session.train(x[index], int(digits.y_train[index]))
        assert hashlib.sha256(session.state()).hexdigest() == outcome.state_sha256
        for sample, found in zip(x[:8], outcome.outputs, strict=True):
            np.testing.assert_array_equal(session.infer(sample).reshape(-1), found)


def test_looks_are_outputs_on_the_way(
    prepared: Prepared, options: CompileOptions, digits: Dataset
) -> None:
    """In the last third, as shorter trials would end, and training goes on as if nobody looked."""
    trial, samples = make(prepared, options, digits, "last:2")
    looked = run_trial(replace(trial, looks=4), samples)
    assert looked.state_sha256 == run_trial(trial, samples).state_sha256
    for steps, found in zip((9, 10, 11, 12), looked.looks, strict=True):
        shorter = run_trial(replace(trial, order=trial.order[:steps]), samples)
        np.testing.assert_array_equal(found, shorter.outputs)


def test_features_are_the_tensor_at_the_cut(prepared: Prepared) -> None:
    graph = prepared.forward
    values = {graph.inputs[0]: prepared.codes[:3]}
    for op in graph.ops:
        found = run_op(graph, op, values)
        values.update((n, v) for n, v in zip(op.outputs, found, strict=False) if n)
    layers = [op.name for op in graph.ops if op.kind.endswith("conv2d_int8")]
    for layer in layers:
        suffix = cut(prepared, layer)
        name = suffix.prepared.forward.inputs[0]
        np.testing.assert_array_equal(suffix.prepared.codes[:3], values[name])


def test_nothing_else_crosses_a_cut(prepared: Prepared) -> None:
    """In particular not the short cut of a residual block."""
    graph: Graph = prepared.forward
    points = cut_points(graph)
    assert 0 in points and 1 < len(points) < len(graph.ops)
    for point in points:
        before = {*graph.inputs, *(n for op in graph.ops[:point] for n in op.writes)}
        crossing = {n for op in graph.ops[point:] for n in op.reads if n in before}
        assert len(crossing) == 1


KILLED = """
import os, signal
from tte.search.pool import workers

if __name__ == "__main__":
    with workers(None) as (executor, count):
        print(executor.submit(os.getpid).result(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_workers_end_with_a_search_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "search.py"
    script.write_text(KILLED, encoding="utf-8")
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
    deadline = time.monotonic() + 20
    while _runs(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    if _runs(worker):
        os.kill(worker, signal.SIGKILL)
        pytest.fail("a worker outlived its search")


def _runs(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except ProcessLookupError:
        return False
    except OSError:  # a system without /proc, or it has gone since
        return not Path("/proc/self").exists()
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of two Dask workers on this machine."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as local:
        yield local.scheduler_address


def test_a_dask_cluster_finds_the_same(
    cluster: str, prepared: Prepared, options: CompileOptions, digits: Dataset
) -> None:
    jobs = [(spec, *make(prepared, options, digits, spec)) for spec in ("head", "bias:1", "last:1")]
    with workers(cluster) as (executor, count):
        assert count == 2
        found: dict[str, Outcome] = dict(run_all(iter(jobs), executor, count))
    assert {name: o.state_sha256 for name, o in found.items()} == {
        name: run_trial(trial, samples).state_sha256 for name, trial, samples in jobs
    }


def test_a_cluster_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("tte.search.pool.CONNECT_S", 1)
    with pytest.raises(TteError, match="does not answer"), workers("tcp://127.0.0.1:9"):
        pass
