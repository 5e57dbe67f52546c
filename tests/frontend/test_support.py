# SPDX-License-Identifier: Apache-2.0
"""The table of operators is true: of the ops themselves, and in the README."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from tests.graphs import sample_graph, training_graph
from tte.frontend import support
from tte.ops import FAMILIES, FLOAT_OPS, INTEGER_OPS

SHARED = {"grad_add_int8"}  # gradients that meet


def test_readme(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    table = text.partition("<!-- tte ops --markdown -->\n")[2].partition("<!-- end -->")[0]
    assert table == support.markdown()
    assert max(map(len, table.splitlines())) <= 100


def test_kernels_are_those_of_the_samples() -> None:
    forward, backward = defaultdict(set), defaultdict(set)
    for sample in (sample for family in FAMILIES for sample in family.samples):
        graph, _, _ = training_graph(sample_graph(sample))
        loss = next(i for i, op in enumerate(graph.ops) if op.name == "loss")
        for found, ops in ((forward, graph.ops[:loss]), (backward, graph.ops[loss:])):
            for op in ops:
                layer = op.name.partition(".")[0]
                if layer in ("op", "head"):
                    found[sample.kind if layer == "op" else "linear"].add(op.kind)
    for op in FLOAT_OPS.values():
        assert set(op.kernels) == forward[op.kind], op.kind
        assert set(op.grad_kernels) - SHARED == backward[op.kind] - SHARED, op.kind


def test_every_kernel_has_a_gradient() -> None:
    """Operators may stand anywhere in what is trained."""
    for op in FLOAT_OPS.values():
        assert all(INTEGER_OPS[kernel].gradient for kernel in op.kernels), op.kind


def test_every_imported_operator_is_listed() -> None:
    listed = {name for row in support.supported() for name in (*row.onnx, *row.tflite)}
    assert {name for op in FLOAT_OPS.values() for name in op.onnx} <= listed
    assert {*support.BECOMES} - {"QUANTIZE", "DEQUANTIZE"} <= listed
