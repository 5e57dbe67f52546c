# SPDX-License-Identifier: Apache-2.0
"""The contract of every op, on every sample of its file: the kernel equals the integer reference
bit for bit, the integer forward is within a quantum of the float reference, and the gradients
are the derivatives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.c_runner import packed, run_c
from tests.graphs import quantized, sample_graph, small_network, training_graph
from tests.kernel_library import (
    SOURCES,
    asan_is_loaded,
    asan_runtime,
    kernel_library,
    run_with_asan,
)
from tests.linearised import linearised_logits
from tte.ir import Graph
from tte.ops import FAMILIES, FLOAT_OPS, INTEGER_OPS
from tte.ops.arith import to_factor
from tte.ops.quantized import UpdateAttrs
from tte.ops.spec import Sample
from tte.passes.scale_gradients import real_backward
from tte.reference import Interpreter, Values, real_constant, run_op

SAMPLES = [sample for family in FAMILIES for sample in family.samples]
IDS = [f"{sample.kind}: {sample.title}" for sample in SAMPLES]
LEARNING_RATE = np.asarray(to_factor(0.05), np.int64).astype(np.int32)


def check_kernels(graph: Graph, codes: np.ndarray, labels: np.ndarray, steps: int) -> set[str]:
    """Every op of a few training steps: kernel == reference, in place too. Returns the kinds."""
    library = kernel_library(SOURCES)
    interpreter = Interpreter(graph)
    kinds = set()
    for step in range(steps):
        feeds = {
            graph.inputs[0]: codes[step : step + 1],
            "label": labels[step : step + 1].astype(np.int32),
            "learning_rate": LEARNING_RATE,
        }
        values = {**interpreter.state, **feeds}
        for op in graph.ops:
            expected = [
                out
                for out, name in zip(run_op(graph, op, values), (*op.outputs, "n"), strict=False)
                if name
            ]
            spec = INTEGER_OPS[op.kind]
            if spec.kernel_call is not None:
                kinds.add(op.kind)
                ways = [None, *(i for i in spec.in_place(op) if op.inputs[i])]
                for way in ways:
                    if way is not None and _shared(graph, op, way):
                        continue
                    found = run_c(library, graph, op, values, way)
                    assert len(found) == len(expected)
                    for out, want in zip(found, expected, strict=True):
                        want = packed(want) if want.dtype == np.bool_ else want
                        np.testing.assert_array_equal(
                            out.reshape(-1), want.reshape(-1), err_msg=f"{op.name} in place {way}"
                        )
            values.update((name, out) for name, out in zip(op.writes, expected, strict=False))
        interpreter.run(feeds)
    return kinds


def _shared(graph: Graph, op: object, way: int) -> bool:
    inputs = op.inputs  # type: ignore[attr-defined]
    small = graph[inputs[way]].type.size_bytes < graph[op.outputs[0]].type.size_bytes  # type: ignore[attr-defined]
    return small or inputs.count(inputs[way]) > 1


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_kernels_equal_the_integer_reference(sample: Sample) -> None:
    graph, codes, labels = training_graph(sample_graph(sample))
    kinds = check_kernels(graph, codes, labels, 2)
    assert any(sample.kind in kind or kind.startswith(("linear", "conv2d")) for kind in kinds)


@pytest.mark.parametrize("update", ["full", "last:4", "bias:6", "head"])
def test_kernels_equal_the_integer_reference_in_a_network(update: str) -> None:
    graph, codes, labels = training_graph(small_network(), update)
    check_kernels(graph, codes, labels, 3)


def test_the_contract_covers_every_kernel() -> None:
    covered = set()
    for sample in SAMPLES:
        graph, codes, labels = training_graph(sample_graph(sample))
        covered |= {op.kind for op in graph.ops}
    narrow = {"gather_channels_int8", "scatter_channels_int8"}  # test_prune.py
    narrow |= {"widen_int32", "chain"}  # test_quantize.py, test_stream.py
    narrow |= {"sigmoid_cross_entropy_int8", "mean_squared_error_int8"}  # test_loss_kernels.py
    narrow |= {"sgd_step_int32", "sgd_int8", "sgd_int32"}  # test_sgd_kernels.py
    missing = {k for k, s in INTEGER_OPS.items() if s.kernel_call} - covered - narrow
    missing -= {op.kind for op in training_graph(small_network())[0].ops}
    assert not missing


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_integer_forward_is_within_a_quantum_of_float(sample: Sample) -> None:
    graph = sample_graph(sample)
    forward, codes = quantized(graph)
    values = Interpreter(forward).run({forward.inputs[0]: codes})
    for op in graph.ops[:-1]:
        source = [forward[name].quant for name in op.inputs if name in values]
        real = [q.dequantize(values[n]) for q, n in zip(source, op.inputs, strict=False) if q]
        real += [real_constant(graph[n]) for n in op.inputs if graph[n].data is not None]
        quant = forward[op.outputs[0]].quant
        assert quant is not None
        exact = FLOAT_OPS[op.kind].reference(op, real) / quant.per_tensor_scale + quant.zero_point
        found = values[op.outputs[0]].astype(float)
        # Half a quantum of rounding, and what int8 weights and int32 biases are off.
        limit = 0.5 + 0.5 * _weight_error(graph, op) / quant.per_tensor_scale
        assert np.abs(found - exact.clip(-128, 127)).max() <= limit + 1e-3, op.name


def _weight_error(graph: Graph, op: object) -> float:
    """The most that rounded weights can move an output, in real numbers."""
    names = [n for n in op.inputs if graph[n].data is not None]  # type: ignore[attr-defined]
    if not names:
        return 0.0
    weight = real_constant(graph[names[0]])
    rows = np.abs(weight).reshape(len(weight), -1)
    return float((rows.max(axis=1) / 127 * rows.shape[1]).max() * 8)


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_gradients_are_derivatives(sample: Sample) -> None:
    """Real gradients of the loss against central differences of the float network."""
    graph, codes, labels = training_graph(sample_graph(sample))
    values, _ = real_backward(graph, codes[:1], labels[:1], run_op)
    rng = np.random.default_rng(1)
    for op in graph.ops:
        if not isinstance(op.attrs, UpdateAttrs):
            continue
        found = values[op.name].reshape(-1)
        tensor = graph[op.inputs[-2]]
        assert tensor.data is not None
        picked = rng.permutation(found.size)[:24]
        slope = [_slope(graph, values, int(labels[0]), tensor.name, i) for i in picked]
        found, want = found[picked], np.asarray(slope)
        if np.linalg.norm(want) < 1e-6 * max(1.0, np.linalg.norm(found)):
            continue
        error = np.linalg.norm(found - want) / np.linalg.norm(want)
        assert error < 0.02, f"{op.name}: relative error {error}"


def _slope(graph: Graph, integer: Values, label: int, name: str, index: int) -> float:
    """d loss / d(one integer step of a parameter), by central differences of the forward pass
    linearised at its integer values."""
    tensor, loss = graph[name], next(op for op in graph.ops if op.name == "loss")
    assert tensor.data is not None
    losses = []
    for delta in (-1e-3, 1e-3):
        data = tensor.data.astype(np.float64).copy()
        data.reshape(-1)[index] += delta
        logits = linearised_logits(graph, integer, {name: data}, graph.ops.index(loss))
        z = logits.reshape(-1) * np.asarray(loss.attrs.scale)
        losses.append(float(np.log(np.exp(z - z[label]).sum())))
    return (losses[1] - losses[0]) / 2e-3


@pytest.mark.skipif(asan_is_loaded(), reason="this is the run under AddressSanitizer")
def test_kernels_under_address_sanitizer() -> None:
    runtime = asan_runtime()
    if runtime is None:
        pytest.skip("the host compiler has no libasan")
    result = run_with_asan(Path(__file__), runtime)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
