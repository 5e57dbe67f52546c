# SPDX-License-Identifier: Apache-2.0
"""Pruning really narrows: fewer ops, smaller saved activations, the same gradients."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.graphs import quantized, small_network, training_graph
from tests.ops.test_contract import check_kernels
from tte.errors import TteError
from tte.ir import Role, Update
from tte.ops import INTEGER_OPS
from tte.ops.quantized import UpdateAttrs
from tte.passes.scale_gradients import real_backward
from tte.passes.update import plan_update
from tte.reference import Interpreter, run_op


def update_file(folder: Path, layers: dict[str, dict[str, object]], choice: str) -> str:
    path = folder / "update.json"
    document = {"schema": "tte-update/1", "channel_choice": choice, "layers": layers}
    path.write_text(json.dumps(document), encoding="utf-8")
    return str(path)


NARROW = {
    "b1.pw1": {"bias": True, "weight": 0.5},
    "b1.dw": {"bias": False, "weight": 0.3},
    "b2.pw1": {"bias": True, "weight": 0.25},
    "b2.dw": {"bias": True},
    "head": {"bias": True, "weight": 0.5},
}


@pytest.mark.parametrize("choice", ["magnitude", "first"])
def test_narrowed_training_graph(tmp_path: Path, choice: str) -> None:
    spec = update_file(tmp_path, NARROW, choice)
    graph, codes, labels = training_graph(small_network(), spec)
    trained = {t.name: t.type.shape for t in graph.tensors.values() if t.role is Role.PARAMETER}
    assert trained["b1.pw1.weight.trained"] == (24, 1, 1, 4)
    assert trained["b1.dw.weight.trained"] == (7, 5, 5, 1)
    assert trained["b2.pw1.weight.trained"] == (20, 1, 1, 4)
    assert graph["b1.pw1.narrow_input"].type.shape == (1, 8, 8, 4)
    assert graph["b1.pw1.weight"].role is Role.CONSTANT
    assert not any(op.name == "b1.pw1.grad_input" for op in graph.ops)  # nothing below is trained
    forward = next(op for op in graph.ops if op.name == "b1.pw1")
    assert forward.inputs[1:] == ("b1.pw1.weight", "b1.pw1.bias", "b1.pw1.weight.trained")
    kinds = check_kernels(graph, codes, labels, 2)
    assert {"gather_channels_int8", "scatter_channels_int8"} <= kinds


@pytest.mark.parametrize("layer", ["b1.pw1", "b1.dw", "head"])
def test_a_narrowed_gradient_is_the_slice_of_the_whole(tmp_path: Path, layer: str) -> None:
    whole, codes, labels = training_graph(small_network(), "full")
    spec = update_file(tmp_path, {layer: {"weight": 0.5}}, "magnitude")
    narrow, _, _ = training_graph(small_network(), spec)
    plan = plan_update(quantized(small_network())[0], spec)
    name = f"{layer}.grad_weight"
    full = real_backward(whole, codes, labels, run_op)[0][name]
    part = real_backward(narrow, codes, labels, run_op)[0][name]
    update = plan.of(layer)
    assert update is not None and update.channels is not None
    axis = 0 if layer.endswith("dw") else -1
    np.testing.assert_allclose(
        part, np.take(full, update.channels, axis=axis), rtol=1e-4, atol=1e-9
    )


def test_a_missing_gradient_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where training has to pass; in the frozen part nobody misses it."""
    for kind, spec in (("avg_pool2d_int8", "full"), ("add_int8", "last:3")):
        with monkeypatch.context() as patched:
            patched.setitem(INTEGER_OPS, kind, replace(INTEGER_OPS[kind], gradient=None))
            assert training_graph(small_network(), "head")
            with pytest.raises(TteError, match=r"has no gradient, so that the layer '.*' behind"):
                training_graph(small_network(), spec)


def test_only_planned_tensors_change() -> None:
    graph, codes, labels = training_graph(small_network(), "bias:3")
    interpreter = Interpreter(graph)
    before = {name: value.copy() for name, value in interpreter.state.items()}
    rate = np.asarray([1374389535, 37], np.int32)  # 0.01
    for i in range(4):
        feeds = {"input": codes[i : i + 1], "label": labels[i : i + 1], "learning_rate": rate}
        interpreter.run(feeds)
    changed = {n for n in before if not np.array_equal(before[n], interpreter.state[n])}
    biases = {f"{layer}.bias" for layer in ("b2.pw1", "b2.dw", "b2.pw2", "head")}
    allowed = biases | {f"{b}.residual" for b in biases} | {"head.weight", "head.weight.residual"}
    assert changed <= allowed and len(changed) > 4
    assert {op.attrs.layer for op in graph.ops if isinstance(op.attrs, UpdateAttrs)} == {
        "b2.pw1",
        "b2.dw",
        "b2.pw2",
        "head",
    }


def test_forms_of_the_specification() -> None:
    forward, _ = quantized(small_network())
    assert [u.layer for u in plan_update(forward, "head").updates] == ["head"]
    assert plan_update(forward, "bias:2").updates[0] == Update("b2.dw", True, ())
    assert plan_update(forward, "last:1").updates[0] == Update("b2.pw2", True, None)
    assert len(plan_update(forward, "full").updates) == 11


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("no json", "not JSON"),
        ('{"schema": "other"}', "tte-update/1"),
        ('{"schema": "tte-update/1", "layers": {}}', "missing or empty"),
        ('{"schema": "tte-update/1", "layers": {"b2.pw9": {"bias": true}}}', "b2.pw"),
        ('{"schema": "tte-update/1", "layers": {"head": {"bias": 3}}}', "true or false"),
        ('{"schema": "tte-update/1", "layers": {"head": {"weight": 1.5}}}', "0..1"),
        ('{"schema": "tte-update/1", "layers": {"head": {"weight": NaN}}}', "0..1"),
        ('{"schema": "tte-update/1", "layers": {"head": {"weights": 1}}}', "bias and weight"),
        ('{"schema": "tte-update/1", "layers": {"head": {"bias": false}}}', "trains nothing"),
        ('{"schema": "tte-update/1", "channel_choice": 3, "layers": {"head": {}}}', "magnitude"),
    ],
)
def test_bad_update_files(tmp_path: Path, document: str, message: str) -> None:
    forward, _ = quantized(small_network())
    path = tmp_path / "bad.json"
    path.write_text(document, encoding="utf-8")
    with pytest.raises(TteError, match=message):
        plan_update(forward, str(path))


@pytest.mark.parametrize("spec", ["last:99", "bias:11", "nonsense", "/does/not/exist.json", ""])
def test_bad_specifications(spec: str) -> None:
    forward, _ = quantized(small_network())
    with pytest.raises(TteError):
        plan_update(forward, spec)
