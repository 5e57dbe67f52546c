# SPDX-License-Identifier: Apache-2.0
"""Element-wise operators: imported as onnxruntime computes them, and fused where several of them
are one function of one tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.onnx_models import Net, nhwc, run_onnx
from tte.errors import TteError
from tte.frontend.onnx import load_model
from tte.ir import Graph
from tte.ir.verify import verify
from tte.ops.linear import is_logits
from tte.passes.fold import drop_sigmoid, ends_in, fold
from tte.reference import run_float

Build = Callable[[Net, str], str]


def folded(net: Net, output: str, folder: Path, low: float = -4.0) -> Graph:
    """The folded graph, checked against onnxruntime."""
    path = net.save(folder, output)
    graph = verify(fold(load_model(path)))
    x = np.random.default_rng(2).uniform(low, 4, (3, *net.shape[1:])).astype(np.float32)
    found = run_float(graph, nhwc(x))[graph.outputs[0]]
    expected = nhwc(run_onnx(path, x))
    np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=1e-5, atol=2e-6)
    return graph


def kinds(graph: Graph) -> list[str]:
    return [op.kind for op in graph.ops if op.kind != "reshape"]


OPERATORS: list[tuple[str, int, dict[str, Any]]] = [
    ("Abs", 13, {}),
    ("Celu", 13, {"alpha": 0.7}),
    ("Cos", 13, {}),
    ("Elu", 13, {}),
    ("Elu", 13, {"alpha": 0.3}),
    ("Erf", 13, {}),
    ("Exp", 13, {}),
    ("Gelu", 20, {}),
    ("Gelu", 20, {"approximate": "tanh"}),
    ("HardSigmoid", 13, {}),
    ("HardSigmoid", 13, {"alpha": 1 / 6, "beta": 0.5}),
    ("HardSwish", 14, {}),
    ("LeakyRelu", 13, {}),
    ("LeakyRelu", 7, {"alpha": 0.2}),
    ("Mish", 18, {}),
    ("Neg", 13, {}),
    ("Selu", 13, {}),
    ("Sigmoid", 13, {}),
    ("Sin", 13, {}),
    ("Softplus", 13, {}),
    ("Softsign", 13, {}),
    ("Tanh", 13, {}),
    ("ThresholdedRelu", 13, {"alpha": 0.6}),
]


@pytest.mark.parametrize(("operator", "opset", "attrs"), OPERATORS)
def test_operators(operator: str, opset: int, attrs: dict[str, Any], tmp_path: Path) -> None:
    net = Net((1, 3, 4, 5), opset=opset)
    y = net.node("GlobalAveragePool", net.node(operator, "x", **attrs))
    assert kinds(folded(net, y, tmp_path)) == ["function", "avg_pool2d"]


@pytest.mark.parametrize("operator", ["Log", "Sqrt", "Reciprocal"])
def test_operators_of_positive_numbers(operator: str, tmp_path: Path) -> None:
    net = Net((1, 7))
    assert kinds(folded(net, net.node(operator, "x"), tmp_path, low=0.5)) == ["function"]


def _hard_swish(net: Net, x: str) -> str:
    gate = net.node("Clip", net.node("Add", x, net.const(3.0)), net.const(0.0), net.const(6.0))
    return net.node("Div", net.node("Mul", x, gate), net.const(6.0))


def _hard_swish_of_a_divided_gate(net: Net, x: str) -> str:
    gate = net.node("Clip", net.node("Add", net.const(3.0), x), net.const(0.0), net.const(6.0))
    return net.node("Mul", net.node("Mul", gate, net.const(1 / 6)), x)


def _gelu(net: Net, x: str) -> str:
    half = net.node("Erf", net.node("Div", x, net.const(2**0.5)))
    y = net.node("Mul", x, net.node("Add", half, net.const(1.0)))
    return net.node("Mul", y, net.const(0.5))


def _gelu_tanh(net: Net, x: str) -> str:
    cube = net.node("Mul", net.node("Pow", x, net.const(3.0)), net.const(0.044715))
    inner = net.node("Mul", net.node("Add", x, cube), net.const((2 / np.pi) ** 0.5))
    y = net.node("Add", net.node("Tanh", inner), net.const(1.0))
    return net.node("Mul", net.node("Mul", x, net.const(0.5)), y)


def _silu_of_exp(net: Net, x: str) -> str:
    under = net.node("Add", net.const(1.0), net.node("Exp", net.node("Neg", x)))
    return net.node("Div", x, under)


PATTERNS: dict[str, Build] = {
    "hard swish": _hard_swish,
    "hard swish, divided gate": _hard_swish_of_a_divided_gate,
    "hard swish of hard sigmoid": lambda net, x: net.node(
        "Mul", x, net.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    ),
    "silu": lambda net, x: net.node("Mul", x, net.node("Sigmoid", x)),
    "silu of exp": _silu_of_exp,
    "mish": lambda net, x: net.node("Mul", x, net.node("Tanh", net.node("Softplus", x))),
    "gelu": _gelu,
    "gelu of tanh": _gelu_tanh,
    "square": lambda net, x: net.node("Mul", x, x),
    "one over": lambda net, x: net.node("Div", net.const(2.0), net.node("Exp", x)),
    "sigmoid, scaled": lambda net, x: net.node("Mul", net.node("Sigmoid", x), net.const(2.0)),
    "prelu with one slope": lambda net, x: net.node("PRelu", x, net.const([[[0.3]]] * 4)),
    "x - sigmoid(x)": lambda net, x: net.node("Sub", x, net.node("Sigmoid", x)),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_become_one_function(pattern: str, tmp_path: Path) -> None:
    net = Net((1, 3, 4, 5))
    y = PATTERNS[pattern](net, net.conv("x", 4, 3, 1))
    y = net.node("GlobalAveragePool", y)
    assert kinds(folded(net, y, tmp_path)) == ["conv2d", "function", "avg_pool2d"]


@pytest.mark.parametrize("shape", [(4, 1, 1), (5,), (5, 1)])
def test_prelu_with_a_slope_for_each_channel(shape: tuple[int, ...], tmp_path: Path) -> None:
    """Of axis 1, or of another one: only numpy's rules of broadcasting say which are meant."""
    net = Net((1, 3, 5, 5))
    y = net.node("PRelu", net.conv("x", 4, 3, 1), net.normal(*shape))
    graph = folded(net, net.node("GlobalAveragePool", y), tmp_path)
    found = [kind for kind in kinds(graph) if kind != "transpose"]
    assert found == ["conv2d", "clip", "depthwise_conv2d", "add", "avg_pool2d"]


def test_prelu_behind_a_classifier(tmp_path: Path) -> None:
    net = Net((1, 6))
    y = net.gemm(net.node("PRelu", net.gemm("x", 5, 6), net.normal(5)), 3, 5)
    assert "clip" in kinds(folded(net, y, tmp_path))


def test_a_relu_before_a_function_stays_with_its_layer(tmp_path: Path) -> None:
    net = Net((1, 3, 4, 5))
    h = net.node("Relu", net.batch_norm(net.conv("x", 4, 3, 1), 4))
    y = net.node("Mul", h, net.node("Sigmoid", h))
    graph = folded(net, net.node("GlobalAveragePool", y), tmp_path)
    assert kinds(graph) == ["conv2d", "function", "avg_pool2d"]
    assert graph.ops[0].attrs.clamp[0] == 0.0


def test_a_relu_behind_a_function_joins_it(tmp_path: Path) -> None:
    net = Net((1, 3, 4, 5))
    y = net.node("Relu", net.node("Tanh", net.conv("x", 4, 3, 1)))
    assert kinds(folded(net, net.node("GlobalAveragePool", y), tmp_path))[1:2] == ["function"]


def test_saturation_inside_of_a_pattern(tmp_path: Path) -> None:
    """Quantised files write relu as the range of their codes; it counts between two nodes too."""
    net = Net((1, 6))
    t = net.quantized(net.node("Tanh", net.gemm("x", 5, 6)), 1 / 255, -128)  # 0..1
    path = net.save(tmp_path, net.node("Neg", t))
    graph = fold(load_model(path))
    assert kinds(graph) == ["linear", "function"]
    x = np.random.default_rng(2).normal(0, 1, (3, 6)).astype(np.float32)
    found = run_float(graph, x)[graph.outputs[0]]
    assert np.abs(found - run_onnx(path, x)).max() < 0.5 / 255 + 1e-6
    assert found.max() == 0.0


def test_the_loss_takes_the_last_sigmoid(tmp_path: Path) -> None:
    net = Net((1, 6))
    graph = load_model(net.save(tmp_path, net.node("Sigmoid", net.gemm("x", 5, 6))))
    assert ends_in(graph) == "sigmoid"
    graph = fold(drop_sigmoid(graph))
    assert kinds(graph) == ["linear"] and is_logits(graph, graph.outputs[0])


def test_trees_stay_small(tmp_path: Path) -> None:
    """A file that squares forty times must not become a tree of 2^40 nodes."""
    net = Net((1, 5))
    y = net.node("Sigmoid", "x")
    for _ in range(40):
        y = net.node("Mul", y, y)
    graph = fold(load_model(net.save(tmp_path, y)))
    assert all(op.attrs.expression.nodes <= 64 for op in graph.ops if op.kind == "function")


def test_an_affine_function_alone(tmp_path: Path) -> None:
    """Pixels that the network scales itself, before and behind what no layer can take."""
    net = Net((1, 1, 4, 4))
    y = net.node("Sub", net.node("Div", "x", net.const(2.0)), net.const(0.5))
    y = net.node("MaxPool", y, kernel_shape=[2, 2])
    y = net.node("GlobalAveragePool", net.node("Mul", y, net.const(-3.0)))
    assert kinds(folded(net, y, tmp_path)) == ["function", "max_pool2d", "function", "avg_pool2d"]


# ---- two tensors --------------------------------------------------------------------------


@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul"])
@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (1, 1, 4, 5), (1, 1, 1, 5), (1, 4, 4, 5)])
@pytest.mark.parametrize("first", [True, False])
def test_broadcasting(operator: str, shape: tuple[int, ...], first: bool, tmp_path: Path) -> None:
    """A map and what poolings left of another one."""
    net = Net((1, 4, 4, 5))
    kernel = [4 // shape[2], 5 // shape[3]]
    small = net.node("AveragePool", net.conv("x", shape[1], 4, 1), kernel_shape=kernel)
    whole = net.conv("x", 4, 4, 1)
    y = net.node(operator, *((small, whole) if first else (whole, small)))
    y = net.node("GlobalAveragePool", y)
    graph = folded(net, y, tmp_path)
    kind = "mul" if operator == "Mul" else "add"
    assert kinds(graph)[-2:] == [kind, "avg_pool2d"]


@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul"])
@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (4, 5), (3, 1, 5), (3, 4, 1)])
def test_constants_of_any_shape(operator: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    net = Net((1, 3, 4, 5))
    y = net.node(operator, net.normal(*shape), net.node("Tanh", "x"))
    graph = folded(net, net.node("GlobalAveragePool", y), tmp_path)
    assert kinds(graph) == ["function", "mul" if operator == "Mul" else "add", "avg_pool2d"]


def test_vectors_and_numbers(tmp_path: Path) -> None:
    net = Net((1, 6))
    a, b = net.gemm("x", 5, 6), net.gemm("x", 1, 6)
    folded(net, net.node("Sub", net.node("Mul", a, b), net.gemm("x", 5, 6)), tmp_path)


def test_sums_of_three(tmp_path: Path) -> None:
    net = Net((1, 6))
    parts = [net.gemm("x", 5, 6) for _ in range(3)]
    assert kinds(folded(net, net.node("Sum", *parts), tmp_path))[-2:] == ["add", "add"]


def test_relu_behind_a_product_joins_it(tmp_path: Path) -> None:
    net = Net((1, 6))
    y = net.node("Relu", net.node("Mul", net.gemm("x", 5, 6), net.gemm("x", 5, 6)))
    graph = folded(net, y, tmp_path)
    assert kinds(graph)[-1] == "mul" and graph.ops[-1].attrs.clamp[0] == 0.0


ERRORS: dict[str, tuple[Build, str]] = {
    "shapes that do not fit": (
        lambda net, x: net.node("Mul", x, net.node("MaxPool", x, kernel_shape=[2, 2])),
        "cannot be broadcast",
    ),
    "division by a map": (lambda net, x: net.node("Div", x, net.normal(1, 3, 4, 5)), "reciprocal"),
    "constant that does not fit": (
        lambda net, x: net.node("Add", x, net.normal(1, 3, 7, 5)),
        "broadcast",
    ),
    "slope per position": (lambda net, x: net.node("PRelu", x, net.normal(4, 5)), "slope"),
    "slope of NaN": (lambda net, x: net.node("PRelu", x, net.const([[[np.nan]]] * 3)), "slope"),
    "slopes of NaN": (
        lambda net, x: net.node("PRelu", x, net.const([[[np.nan]], [[1]], [[2]]])),
        "NaN",
    ),
    "exponent per channel": (lambda net, x: net.node("Pow", x, net.normal(3, 1, 1)), "exponent"),
    "quotient of numbers": (lambda net, x: net.node("Div", net.normal(3, 1, 1), x), "one number"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_name_the_node(case: str, tmp_path: Path) -> None:
    build, message = ERRORS[case]
    net = Net((1, 3, 4, 5))
    path = net.save(tmp_path, net.node("GlobalAveragePool", build(net, "x")))
    with pytest.raises(TteError, match=message) as caught:
        fold(load_model(path))
    assert "node" in caught.value.render()
