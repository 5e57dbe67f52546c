# SPDX-License-Identifier: Apache-2.0
"""Models of other shapes than an image: series, transposes, reshapes, matrices at every position;
what the importer reads computes what onnxruntime computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest

from tests.onnx_models import Net, nhwc, run_onnx
from tte.errors import TteError
from tte.frontend.onnx import load_model
from tte.ir import Graph
from tte.passes.fold import fold
from tte.reference import run_float


def check(net: Net, output: str, folder: Path, channels_last: bool = False) -> Graph:
    """Imported and folded, the model computes what onnxruntime does; returns the folded graph.
    Maps are compared channel last, as they are here."""
    path = net.save(folder, output)
    shape = [1 if not isinstance(size, int) else size for size in net.shape]
    x = np.random.default_rng(1).normal(0, 1, (3, *shape[1:])).astype(np.float32)
    expected = run_onnx(path, x)
    graph = load_model(path)
    folded = fold(graph)
    for candidate in (graph, folded):
        here = candidate[candidate.inputs[0]].type.shape
        entered = (x if channels_last else nhwc(x)).reshape(len(x), *here[1:])
        found = run_float(candidate, entered)[candidate.outputs[0]]
        wanted = nhwc(expected) if found.ndim == 4 and not channels_last else expected
        np.testing.assert_allclose(
            found.reshape(len(x), -1), wanted.reshape(len(x), -1), rtol=1e-4, atol=1e-4
        )
    return folded


def kinds(graph: Graph) -> list[str]:
    return [op.kind for op in graph.ops]


# ---- one dimension ------------------------------------------------------------------------

SERIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "strided": {"strides": [2], "pads": [2, 1]},
    "dilated": {"dilations": [3], "pads": [3, 3]},
    "groups": {"group": 2},
    "same": {"auto_pad": "SAME_UPPER", "strides": [2]},
}


@pytest.mark.parametrize("case", SERIES)
def test_conv_of_a_series(case: str, tmp_path: Path) -> None:
    net = Net((1, 4, 17))
    attrs = SERIES[case]
    weight = net.normal(6, 4 // attrs.get("group", 1), 3)
    y = net.node("Relu", net.batch_norm(net.node("Conv", "x", weight, net.normal(6), **attrs), 6))
    y = net.node("Conv", y, net.normal(6, 1, 5), group=6)
    y = net.node("GlobalAveragePool", y)
    graph = check(net, net.gemm(net.node("Flatten", y), 3, 6), tmp_path)
    assert graph[graph.inputs[0]].type.shape == (1, 1, 17, 4)
    assert kinds(graph) == ["conv2d", "depthwise_conv2d", "avg_pool2d", "reshape", "linear"]


def test_flatten_and_pool_a_series(tmp_path: Path) -> None:
    net = Net(("n", 3, 20))
    y = net.node("Conv", "x", net.normal(5, 3, 3))
    y = net.node("AveragePool", y, kernel_shape=[2], strides=[2])
    graph = check(net, net.gemm(net.node("Flatten", y), 4, 45), tmp_path)
    assert kinds(graph) == ["conv2d", "avg_pool2d", "reshape", "linear"]


def test_a_vector_becomes_a_series(tmp_path: Path) -> None:
    net = Net((1, 24), opset=11)
    y = net.node("Unsqueeze", "x", axes=[1])
    y = net.node("Relu", net.node("Conv", y, net.normal(4, 1, 5)))
    y = net.node("Squeeze", net.node("GlobalAveragePool", y), axes=[2])
    graph = check(net, net.gemm(y, 3, 4), tmp_path)
    assert kinds(graph)[:2] == ["reshape", "conv2d"]


# ---- the order of axes --------------------------------------------------------------------


def keras_like(net: Net, between: str = "") -> str:
    """As tf2onnx writes a network whose maps are channel last."""
    y = net.node("Transpose", "x", perm=[0, 3, 1, 2])
    y = net.conv(y, 6, 3, pads=[1, 1, 1, 1])
    y = net.node("Transpose", y, perm=[0, 2, 3, 1])
    y = net.node("Relu", net.node("Add", y, net.normal(6)))
    y = net.node("Transpose", y, perm=[0, 3, 1, 2])
    y = net.node("Transpose", net.conv(y, 4, 6), perm=[0, 2, 3, 1])
    if between == "Reshape":
        y = net.node("Reshape", y, net.const([-1, 4 * 3 * 4], np.int64))
        return net.node("Add", net.node("MatMul", y, net.normal(48, 5)), net.normal(5))
    y = net.node("ReduceMean", y, axes=[1, 2], keepdims=0)
    return net.node("Add", net.node("MatMul", y, net.normal(4, 5)), net.normal(5))


@pytest.mark.parametrize("between", ["Reshape", "ReduceMean"])
def test_channel_last_model(between: str, tmp_path: Path) -> None:
    """No transpose is left, the input is read as it is in the file."""
    net = Net((1, 5, 6, 3))
    graph = check(net, keras_like(net, between), tmp_path, channels_last=True)
    assert graph[graph.inputs[0]].type.shape == (1, 5, 6, 3)
    flat = ["reshape"] if between == "Reshape" else ["avg_pool2d", "reshape"]
    assert kinds(graph) == ["conv2d", "conv2d", *flat, "linear"]


def test_channel_last_series(tmp_path: Path) -> None:
    """A Keras Conv1D: a convolution of one row."""
    net = Net((1, 16, 3))
    y = net.node("Unsqueeze", "x", net.const([1], np.int64))
    y = net.node("Transpose", y, perm=[0, 3, 1, 2])
    y = net.node("Conv", y, net.normal(4, 3, 1, 3))
    y = net.node("Transpose", y, perm=[0, 2, 3, 1])
    y = net.node("Relu", net.node("Squeeze", y, net.const([1], np.int64)))
    y = net.node("ReduceMean", y, axes=[1], keepdims=0)
    graph = check(net, net.gemm(y, 5, 4), tmp_path, channels_last=True)
    assert kinds(graph) == ["conv2d", "avg_pool2d", "reshape", "linear"]


FIRST: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "scaled": ("Mul", (0.5,), {}),
    "normalised": ("Sub", ([0.1, 0.2, 0.3],), {}),
    "padded": ("Pad", ([0, 2, 1, 0, 0, 0, 3, 0],), {}),
    "cut": ("Slice", ([1], [6], [1]), {}),
    "doubled": ("Concat", ("x",), {"axis": 3}),
    "resized": ("Resize", ("", [1, 2, 3, 1]), {}),
}


@pytest.mark.parametrize("case", FIRST)
def test_channel_last_input_that_is_prepared(case: str, tmp_path: Path) -> None:
    """What Keras' preprocessing layers do before the first convolution."""
    kind, operands, attrs = FIRST[case]
    net = Net((1, 6, 6, 3))
    dtype = np.int64 if kind in ("Pad", "Slice") else np.float32
    inputs = [one if isinstance(one, str) else net.const(one, dtype) for one in operands]
    y = net.node(kind, "x", *inputs, **attrs)
    y = net.node("Transpose", y, perm=[0, 3, 1, 2])
    y = net.node("GlobalAveragePool", net.conv(y, 4, 6 if case == "doubled" else 3))
    graph = check(net, net.gemm(net.node("Flatten", y), 5, 4), tmp_path, channels_last=True)
    assert graph[graph.inputs[0]].type.shape == (1, 6, 6, 3)
    assert "transpose" not in kinds(graph)


@pytest.mark.parametrize(
    ("shape", "channels_last"),
    [((6, 6), True), ((6, 5, 1), True), ((3, 6, 6), False), ((3, 20), False)],
)
def test_input_that_is_flattened(
    shape: tuple[int, ...], channels_last: bool, tmp_path: Path
) -> None:
    """Nothing tells what its channels are, but that a picture has few of them."""
    net = Net((1, *shape))
    y = net.node("Flatten", net.node("Mul", "x", net.const(0.5)))
    graph = check(net, net.gemm(y, 4, int(np.prod(shape))), tmp_path, channels_last)
    moved = shape if channels_last else (*shape[1:], shape[0])
    assert graph[graph.inputs[0]].type.shape == (1, *((1,) * (3 - len(shape))), *moved)


def test_channel_shuffle(tmp_path: Path) -> None:
    net = Net((1, 6, 4, 5))
    y = net.conv("x", 6, 3, 1, group=2)
    y = net.node("Reshape", y, net.const([0, 2, 3, 4, 5], np.int64))
    y = net.node("Transpose", y, perm=[0, 2, 1, 3, 4])
    y = net.node("Reshape", y, net.const([0, 6, 4, 5], np.int64))
    graph = check(net, net.conv(y, 3, 2, group=3), tmp_path)
    assert kinds(graph) == ["conv2d", "transpose", "conv2d"]


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_and_back(mode: str, tmp_path: Path) -> None:
    net = Net((1, 3, 4, 6))
    y = net.node("DepthToSpace", net.conv("x", 8, 3, 1), blocksize=2, mode=mode)
    y = net.node("SpaceToDepth", net.conv(y, 2, 2, 1), blocksize=2)
    graph = check(net, net.conv(y, 4, 8, 1), tmp_path)
    assert kinds(graph) == ["conv2d", "transpose", "conv2d", "transpose", "conv2d"]


def test_a_real_transpose(tmp_path: Path) -> None:
    """Height and width change places; two readers share it."""
    net = Net((1, 3, 4, 6))
    y = net.node("Transpose", net.conv("x", 5, 3, 1), perm=[0, 1, 3, 2])
    y = net.node("Add", net.conv(y, 4, 5), net.conv(y, 4, 5))
    assert kinds(check(net, y, tmp_path)) == ["conv2d", "transpose", "conv2d", "conv2d", "add"]


def test_two_transposes_of_one_map(tmp_path: Path) -> None:
    """Flattened, they have one shape but not one order."""
    net = Net((1, 3, 4, 5))
    y = net.node("Relu", net.conv("x", 3, 3, 1))
    swapped = net.node("Transpose", y, perm=[0, 1, 3, 2])
    vectors = [net.node("Flatten", one) for one in (y, swapped)]
    check(net, net.gemm(net.node("Concat", *vectors, axis=1), 4, 120), tmp_path)


@pytest.mark.parametrize("first", [True, False])
def test_a_constant_for_each_position(first: bool, tmp_path: Path) -> None:
    """Of a map of one channel, in which axes of one element may stand anywhere."""
    net = Net((1, 1, 4, 5))
    operands = [net.normal(1, 1, 4, 3), net.node("MatMul", "x", net.normal(5, 3))]
    y = net.node("Sub", *(operands if first else operands[::-1]))
    check(net, net.gemm(net.node("Flatten", y), 4, 12), tmp_path)


def test_reshapes_of_vectors(tmp_path: Path) -> None:
    """A decoder: a vector becomes a map, which another Reshape takes apart in another way."""
    net = Net((1, 7))
    y = net.node("Reshape", net.gemm("x", 60, 7), net.const([0, 5, 3, -1], np.int64))
    y = net.node("Reshape", net.conv(y, 6, 5, 1), net.const([1, 4, 3, 6], np.int64))
    check(net, net.conv(y, 2, 4), tmp_path)


def test_reshape_by_shape_arithmetic(tmp_path: Path) -> None:
    """What PyTorch writes for x.view(x.size(0), -1, x.size(2) * x.size(3))."""
    net = Net((1, 3, 4, 6))
    y = net.conv("x", 5, 3, 1)
    shape = net.node("Shape", y)
    sizes = [net.node("Gather", shape, net.const(i, np.int64)) for i in (0, 2, 3)]
    area = net.node("Mul", sizes[1], sizes[2])
    area = net.node("Cast", net.node("Floor", net.node("Cast", area, to=1)), to=7)
    parts = [net.node("Unsqueeze", s, net.const([0], np.int64)) for s in (sizes[0], area)]
    rest = net.node("Slice", net.const([9, -1, 9], np.int64), *map(_vector(net), (1, 2, 0, 1)))
    target = net.node("Concat", parts[0], rest, parts[1], axis=0)
    y = net.node("Reshape", y, target)
    y = net.node("Conv", y, net.normal(4, 5, 3))
    assert kinds(check(net, y, tmp_path)) == ["conv2d", "reshape", "conv2d"]


def _vector(net: Net) -> Any:
    return lambda value: net.const([value], np.int64)


@pytest.mark.parametrize(
    ("node", "attrs", "expected"),
    [
        ("Transpose", {"perm": [0, 1, 2]}, "perm"),
        ("Squeeze", {"axes": [1]}, "not all of size 1"),
        ("Unsqueeze", {"axes": [9]}, "axes"),
        ("Flatten", {"axis": 7}, "axis 7"),
        ("DepthToSpace", {"blocksize": 2}, "blocks of 2x2"),
        ("SpaceToDepth", {"blocksize": 4}, "blocks of 4x4"),
    ],
)
def test_what_does_not_fit(node: str, attrs: dict[str, Any], expected: str, tmp_path: Path) -> None:
    net = Net((1, 3, 5, 4), opset=11)
    y = net.node(node, net.conv("x", 5, 3), **attrs)
    with pytest.raises(TteError, match=expected):
        load_model(net.save(tmp_path, net.node("GlobalAveragePool", y)))


def test_reshape_that_does_not_fit(tmp_path: Path) -> None:
    net = Net((1, 3, 5, 4))
    y = net.node("Reshape", net.conv("x", 5, 3), net.const([1, 7, -1], np.int64))
    with pytest.raises(TteError, match=r"\[1, 5, 3, 2\] cannot be reshaped to \[1, 7, -1\]"):
        load_model(net.save(tmp_path, y))


# ---- matrices -----------------------------------------------------------------------------


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("first", [False, True])
def test_gemm(trans_a: int, trans_b: int, first: bool, tmp_path: Path) -> None:
    """The matrix first or second, transposed or not, with alpha, beta and a bias."""
    net = Net((1, 7))
    x = "x"
    if first:
        matrix = net.normal(*((7, 5) if trans_a else (5, 7)))
        x = x if trans_b else net.node("Transpose", x, perm=[1, 0])
        inputs = [matrix, x, net.normal(5, 1)]
    else:
        matrix = net.normal(*((5, 7) if trans_b else (7, 5)))
        x = net.node("Transpose", x, perm=[1, 0]) if trans_a else x
        inputs = [x, matrix, net.normal(5)]
    y = net.node("Gemm", *inputs, transA=trans_a, transB=trans_b, alpha=-0.5, beta=2.0)
    y = net.node("Reshape", y, net.const([1, 5], np.int64))
    assert kinds(check(net, y, tmp_path)) == ["linear"]


def test_alpha_keeps_codes(tmp_path: Path) -> None:
    net = Net((1, 6))
    weight = net.dequantized(net.rng.integers(-127, 128, (3, 6)), 0.01)
    graph = check(net, net.node("Gemm", "x", weight, transB=1, alpha=0.5), tmp_path)
    quant = graph[graph.ops[0].inputs[1]].quant
    assert quant is not None and quant.scale == pytest.approx((0.005,))


def test_codes_survive_a_transpose(tmp_path: Path) -> None:
    net = Net((1, 6))
    weight = net.dequantized(net.rng.integers(-127, 128, (3, 6)), [0.01, 0.02, 0.03])
    graph = check(net, net.node("MatMul", "x", net.node("Transpose", weight)), tmp_path)
    tensor = graph[graph.ops[0].inputs[1]]
    assert tensor.type.dtype == "int8" and tensor.quant is not None and tensor.quant.axis == 0


def test_matmul_at_every_position(tmp_path: Path) -> None:
    """As in MLP-Mixer: over the channels, then over the positions."""
    net = Net((1, 8, 6))
    y = net.node("Add", net.node("MatMul", "x", net.normal(6, 10)), net.normal(10))
    y = net.node("Relu", y)
    y = net.node("MatMul", net.normal(4, 8), y)
    y = net.node("ReduceMean", y, axes=[1], keepdims=0)
    graph = check(net, net.gemm(y, 3, 10), tmp_path, channels_last=True)
    assert kinds(graph) == [
        "conv2d", "transpose", "conv2d", "transpose", "avg_pool2d", "reshape", "linear",
    ]  # fmt: skip


@pytest.mark.parametrize("first", [False, True])
def test_matmul_with_a_vector(first: bool, tmp_path: Path) -> None:
    net = Net((1, 5, 6))
    vector = net.normal(5 if first else 6)
    y = net.node("MatMul", vector, "x") if first else net.node("MatMul", "x", vector)
    check(net, y, tmp_path, channels_last=not first)


def test_product_of_two_activations_is_refused(tmp_path: Path) -> None:
    net = Net((1, 4, 4))
    with pytest.raises(TteError, match="both are computed"):
        load_model(net.save(tmp_path, net.node("MatMul", "x", "x")))


# ---- reductions ---------------------------------------------------------------------------


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[2, 3], [2], [3], [1], [1, 2], [-1, -3], [1, 2, 3]])
def test_reduce_mean(axes: list[int], keepdims: int, tmp_path: Path) -> None:
    net = Net((1, 3, 5, 4))
    y = net.node("ReduceMean", net.conv("x", 6, 3, 1), axes=axes, keepdims=keepdims)
    y = net.node("Flatten", y)
    features = int(np.prod([s for i, s in enumerate((6, 5, 4)) if i + 1 not in np.mod(axes, 4)]))
    check(net, net.gemm(y, 3, features), tmp_path)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("pads", [0, 1])
def test_ceil_mode(rank: int, pads: int, tmp_path: Path) -> None:
    net = Net((1, 3, *((10,) * rank)), opset=19)
    y = net.node(
        "AveragePool", "x", kernel_shape=[3] * rank, strides=[2] * rank, ceil_mode=1,
        pads=[pads] * rank * 2,
    )  # fmt: skip
    check(net, y, tmp_path)


def test_map_shapes(tmp_path: Path) -> None:
    """Five dimensions of more than one element cannot be stored as a map."""
    net = Net((1, 8, 4, 6))
    y = net.node("Reshape", "x", net.const([1, 2, 4, 4, 6], np.int64))
    with pytest.raises(TteError, match="4 dimensions"):
        load_model(net.save(tmp_path, net.node("Relu", y)))


# ---- pooling ------------------------------------------------------------------------------

MAX_POOLINGS: dict[str, dict[str, Any]] = {
    "2x2": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "overlapping": {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "strides": [2, 1]},
    "same": {"kernel_shape": [3, 3], "auto_pad": "SAME_LOWER", "strides": [2, 2]},
    "dilated": {"kernel_shape": [2, 3], "dilations": [3, 2]},
    "ceil": {"kernel_shape": [3, 3], "strides": [3, 2], "ceil_mode": 1, "pads": [1, 1, 0, 0]},
}


@pytest.mark.parametrize("case", MAX_POOLINGS)
def test_max_pool(case: str, tmp_path: Path) -> None:
    net = Net((1, 3, 9, 8))
    y = net.node("Relu", net.node("MaxPool", net.conv("x", 4, 3), **MAX_POOLINGS[case]))
    graph = check(net, y, tmp_path)
    assert kinds(graph) == ["conv2d", "max_pool2d"] and graph.ops[0].attrs.clamp[0] == 0


@pytest.mark.parametrize("shape", [(1, 3, 5, 4), (1, 3, 600), (1, 3, 20, 30)])
def test_global_max_pool(shape: tuple[int, ...], tmp_path: Path) -> None:
    """Windows of more than 256 elements are taken apart."""
    net = Net(shape)
    graph = check(net, net.node("GlobalMaxPool", "x"), tmp_path)
    assert kinds(graph) == ["max_pool2d"] * (1 if shape[2:] == (5, 4) else 2) + ["reshape"]


def test_max_pool_of_a_series_and_reduce_max(tmp_path: Path) -> None:
    net = Net((1, 3, 17))
    y = net.node("MaxPool", net.node("Conv", "x", net.normal(4, 3, 3)), kernel_shape=[3])
    y = net.node("ReduceMax", y, axes=[2], keepdims=0)
    assert kinds(check(net, y, tmp_path)) == ["conv2d", "max_pool2d", "max_pool2d", "reshape"]


def test_reduce_max_of_a_large_map(tmp_path: Path) -> None:
    """By columns, then by rows: the index of a maximum is a byte."""
    net = Net((1, 3, 19, 18))
    y = net.node("ReduceMax", net.conv("x", 4, 3), axes=[2, 3], keepdims=0)
    graph = check(net, net.gemm(y, 3, 4), tmp_path)
    windows = [op.attrs.window.kernel for op in graph.ops if op.kind == "max_pool2d"]
    assert windows == [(1, 16), (17, 1)]


@pytest.mark.parametrize("op_type", ["ReduceMean", "ReduceMax"])
def test_reduction_of_features(op_type: str, tmp_path: Path) -> None:
    """What a layer normalisation starts with."""
    net = Net((1, 300))
    y = net.gemm("x", 300, 300)
    y = net.node("Sub", y, net.node(op_type, y, axes=[-1], keepdims=1))
    check(net, net.gemm(y, 3, 300), tmp_path)


# ---- parts --------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_concat(axis: int, tmp_path: Path) -> None:
    net = Net((1, 3, 6, 4))
    parts = [
        net.conv("x", 4, 3, 1),
        net.conv("x", 4, 3, 1),
        "x" if axis == 1 else net.conv("x", 4, 3, 1),
    ]
    graph = check(net, net.node("Concat", *parts, axis=axis), tmp_path)
    assert graph.ops[-1].kind == "concat" and graph.ops[-1].attrs.axis == {1: 3, 2: 1, -1: 2}[axis]


def test_concat_of_channel_last_maps(tmp_path: Path) -> None:
    """In the file's order: no transpose."""
    net = Net((1, 5, 6, 3))
    y = net.conv(net.node("Transpose", "x", perm=[0, 3, 1, 2]), 4, 3, pads=[1, 1, 1, 1])
    y = net.node("Transpose", y, perm=[0, 2, 3, 1])
    y = net.node("Concat", "x", y, axis=3)
    y = net.conv(net.node("Transpose", y, perm=[0, 3, 1, 2]), 2, 7)
    y = net.node("Transpose", y, perm=[0, 2, 3, 1])
    graph = check(net, y, tmp_path, channels_last=True)
    assert kinds(graph) == ["conv2d", "concat", "conv2d"]


def test_concat_of_vectors(tmp_path: Path) -> None:
    net = Net((1, 6))
    parts = [net.gemm("x", 3, 6), "x", net.gemm("x", 2, 6), "x", net.gemm("x", 4, 6)]
    check(net, net.gemm(net.node("Concat", *parts, axis=1), 5, 21), tmp_path)


@pytest.mark.parametrize("opset", [9, 13, 18])
def test_split(opset: int, tmp_path: Path) -> None:
    net = Net((1, 7, 6, 4), opset=opset)
    y = net.conv("x", 7, 7, 1)
    a = [f"part{i}" for i in range(3)]
    sizes: dict[str, Any] = {"split": [2, 2, 3]} if opset < 13 else {}
    inputs = [y] if opset != 13 else [y, net.const([2, 2, 3], np.int64)]
    if opset == 18:
        sizes = {"num_outputs": 3}
    net.nodes.append(onnx.helper.make_node("Split", inputs, a, "split", axis=1, **sizes))
    widths = [3, 3, 1] if opset == 18 else [2, 2, 3]
    branches = [net.conv(name, 3, width, 1) for name, width in zip(a, widths, strict=True)]
    y = net.node("Add", net.node("Add", branches[0], branches[1]), branches[2])
    graph = check(net, y, tmp_path)
    assert kinds(graph).count("slice") == 3


@pytest.mark.parametrize("opset", [9, 13])
def test_slice(opset: int, tmp_path: Path) -> None:
    net = Net((1, 4, 9, 8), opset=opset)
    if opset == 9:
        y = net.node("Slice", "x", axes=[1, 3], starts=[1, -6], ends=[1000, 7])
    else:
        lists = ([1, -6, 8], [1000, 7, -1000], [1, 3, 2], [2, 1, -3])
        y = net.node("Slice", "x", *(net.const(one, np.int64) for one in lists))
    y = net.conv(y, 3, 3 if opset == 9 else 2, 1)
    assert kinds(check(net, y, tmp_path)) == ["slice", "conv2d"]


@pytest.mark.parametrize("index", [2, [-1], [1, 3, 5]])
def test_gather(index: Any, tmp_path: Path) -> None:
    """The last step of a series, as a recurrent exporter or a class token has it."""
    net = Net((1, 4, 9))
    y = net.node(
        "Gather", net.node("Conv", "x", net.normal(5, 4, 1)), net.const(index, np.int64), axis=2
    )
    check(net, net.node("Flatten", y), tmp_path)


PADS: dict[str, tuple[list[int], float, str, list[str]]] = {
    "before a convolution": ([0, 0, 1, 2, 0, 0, 1, 0], 0.0, "Conv", ["conv2d", "conv2d"]),
    "with a value": ([0, 0, 1, 2, 0, 0, 1, 0], 0.5, "Conv", ["conv2d", "pad", "conv2d"]),
    "before an average": ([0, 0, 1, 1, 0, 0, 1, 1], 0.0, "AveragePool", ["conv2d", "avg_pool2d"]),
    "before a maximum": ([0, 0, 1, 1, 0, 0, 0, 0], 0.0, "MaxPool", ["conv2d", "max_pool2d"]),
    "-inf": ([0, 0, 1, 1, 0, 0, 0, 0], -np.inf, "MaxPool", ["conv2d", "max_pool2d"]),
    "cuts": ([0, 0, -1, 0, 0, 0, 1, -1], 0.0, "Conv", ["conv2d", "slice", "conv2d"]),
    "channels": ([0, 1, 0, 0, 0, 2, 0, 0], 0.0, "Identity", ["conv2d", "pad"]),
}  # fmt: skip


@pytest.mark.parametrize("case", PADS)
def test_pad(case: str, tmp_path: Path) -> None:
    pads, value, reader, expected = PADS[case]
    net = Net((1, 3, 6, 5))
    y = net.node("Relu", net.conv("x", 4, 3, 1))
    y = net.node("Pad", y, net.const(pads, np.int64), net.const(value))
    if reader == "Conv":
        y = net.conv(y, 5, 4, pads=[0, 1, 0, 0])
    elif reader != "Identity":
        y = net.node(reader, y, kernel_shape=[3, 3], strides=[2, 2])
    assert kinds(check(net, y, tmp_path)) == expected


def test_pad_below_zero_stays(tmp_path: Path) -> None:
    """Before a maximum of what may be negative, 0 is not nothing."""
    net = Net((1, 3, 6, 5), opset=9)
    y = net.node("Pad", net.conv("x", 4, 3, 1), pads=[0, 0, 1, 1, 0, 0, 1, 1], value=0.0)
    y = net.node("MaxPool", y, kernel_shape=[3, 3])
    assert kinds(check(net, y, tmp_path)) == ["conv2d", "pad", "max_pool2d"]


def test_other_paddings_are_refused(tmp_path: Path) -> None:
    net = Net((1, 3, 6, 5))
    y = net.node("Pad", "x", net.const([0, 0, 1, 1, 0, 0, 1, 1], np.int64), mode="reflect")
    with pytest.raises(TteError, match="reflect"):
        load_model(net.save(tmp_path, net.conv(y, 2, 3)))


# ---- larger maps --------------------------------------------------------------------------

TRANSPOSED: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "2x2": ((4, 3, 2, 2), {"strides": [2, 2]}),
    "4x4": ((4, 3, 4, 4), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "asymmetric": (
        (4, 3, 3, 2), {"strides": [2, 3], "pads": [1, 0, 0, 1], "output_padding": [1, 2]}
    ),
    "output_padding": (
        (4, 3, 3, 3), {"strides": [2, 2], "pads": [1] * 4, "output_padding": [1, 1]}
    ),
    "dilated": ((4, 3, 3, 3), {"strides": [1, 2], "dilations": [2, 3]}),
    "groups": ((4, 3, 3, 3), {"group": 2}),
    "depthwise": ((4, 1, 2, 2), {"group": 4, "strides": [2, 2]}),
    "same upper": ((4, 3, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "output_shape": ((4, 3, 3, 3), {"strides": [2, 2], "output_shape": [9, 10]}),
    "larger": ((4, 3, 2, 2), {"strides": [3, 2], "output_shape": [15, 10]}),
    "gaps": ((4, 3, 1, 1), {"strides": [2, 2]}),
}  # fmt: skip


@pytest.mark.parametrize("case", TRANSPOSED)
def test_conv_transpose(case: str, tmp_path: Path) -> None:
    shape, attrs = TRANSPOSED[case]
    net = Net((1, 4, 5, 5))
    out_c = shape[1] * attrs.get("group", 1)
    y = net.node("ConvTranspose", "x", net.normal(*shape), net.normal(out_c), **attrs)
    y = net.node("Relu", net.batch_norm(y, out_c))
    assert kinds(check(net, y, tmp_path)) == ["conv_transpose2d"]


def test_conv_transpose_of_a_series(tmp_path: Path) -> None:
    net = Net((1, 4, 7))
    y = net.node("ConvTranspose", "x", net.normal(4, 3, 4), strides=[2], pads=[1, 2])
    assert kinds(check(net, y, tmp_path)) == ["conv_transpose2d"]


def test_scales_of_transposed_weights_are_per_output(tmp_path: Path) -> None:
    net = Net((1, 4, 5, 5))
    codes = net.rng.integers(-127, 128, (4, 3, 2, 2))
    weight = net.dequantized(codes, [0.01, 0.02, 0.03], axis=1)
    graph = check(net, net.node("ConvTranspose", "x", weight, strides=[2, 2]), tmp_path)
    tensor = graph[graph.ops[0].inputs[1]]
    assert tensor.quant is not None and tensor.quant.axis == 0 and tensor.type.dtype == "int8"


FLOOR = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
CENTRED = {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_ceil"}
SYMMETRIC = {"coordinate_transformation_mode": "half_pixel_symmetric"}
RESIZES: dict[str, tuple[int, dict[str, Any], list[float]]] = {
    "pytorch": (13, FLOOR, [1, 1, 2, 2]),
    "default": (13, {}, [1, 1, 3, 2]),
    "keras": (13, CENTRED, [1, 1, 2, 4]),
    "down": (13, FLOOR, [1, 1, 0.5, 1]),
    "uneven": (13, FLOOR, [1, 1, 1.5, 0.75]),
    "uneven centres": (13, CENTRED, [1, 1, 0.6, 1.7]),
    "uneven corners": (13, {"coordinate_transformation_mode": "align_corners"}, [1, 1, 1.5, 2.5]),
    "uneven up": (13, {"nearest_mode": "ceil"}, [1, 1, 2, 1.5]),
    "uneven symmetric": (19, SYMMETRIC, [1, 1, 1.3, 2.4]),
    "opset 10": (10, {"mode": "nearest"}, [1, 1, 2, 2]),
    "upsample": (9, {"mode": "nearest"}, [1, 1, 2, 3]),
}  # fmt: skip


@pytest.mark.parametrize("case", RESIZES)
def test_resize(case: str, tmp_path: Path) -> None:
    opset, attrs, scales = RESIZES[case]
    net = Net((1, 3, 6, 4), opset=opset)
    x = net.conv("x", 4, 3, 1)
    if opset < 11:
        y = net.node("Upsample" if opset == 9 else "Resize", x, net.const(scales), **attrs)
    else:
        y = net.node("Resize", x, "", net.const(scales), **attrs)
    graph = check(net, net.conv(y, 2, 4, 1), tmp_path)
    assert kinds(graph)[1] == ("slice" if case == "down" else "resize_nearest2d")


@pytest.mark.parametrize(
    ("size", "scale", "attrs", "elements"),
    [
        (3, 1.25, FLOOR, [0, 0, 1]),
        (3, 1.25, {}, [0, 1, 1]),
        (3, 1.25, CENTRED, [0, 1, 2]),
        (5, 1.1, {"nearest_mode": "floor"}, [0, 0, 1, 2, 3]),
        (3, 1.5, SYMMETRIC | {"nearest_mode": "floor"}, [0, 0, 1, 2]),
    ],
)
def test_resize_takes_the_elements_of_the_formula(
    size: int, scale: float, attrs: dict[str, Any], elements: list[int], tmp_path: Path
) -> None:
    """Where the size stays too: there onnxruntime copies, against ONNX's own evaluator."""
    net = Net((1, 1, 1, size), opset=19)
    y = net.node("Resize", "x", "", net.const([1, 1, 1, scale]), **attrs)
    path = net.save(tmp_path, net.conv(y, 1, 1, 1))
    resized = onnx.load(path)
    resized.graph.output[0].name = y
    x = np.arange(size, dtype=np.float32).reshape(1, 1, 1, size)
    (expected,) = onnx.reference.ReferenceEvaluator(resized).run([y], {"x": x})
    assert expected.ravel().tolist() == elements
    graph = load_model(path)
    found = run_float(graph, nhwc(x))[graph.ops[-1].inputs[0]]
    assert found.ravel().tolist() == elements


def test_resize_to_sizes(tmp_path: Path) -> None:
    net = Net((1, 3, 6, 4), opset=18)
    y = net.node("Resize", "x", "", "", net.const([12, 4], np.int64), axes=[2, 3])
    assert kinds(check(net, net.conv(y, 2, 3), tmp_path)) == ["resize_nearest2d", "conv2d"]


@pytest.mark.parametrize(
    ("attrs", "scales", "expected"),
    [
        ({"mode": "linear"}, [1, 1, 2, 2], "linear"),
        ({"nearest_mode": "up"}, [1, 1, 2, 2], "unknown"),
    ],
)
def test_other_resizes_are_refused(
    attrs: dict[str, Any], scales: list[float], expected: str, tmp_path: Path
) -> None:
    net = Net((1, 3, 6, 4))
    y = net.node("Resize", "x", "", net.const(scales), **attrs)
    with pytest.raises(TteError, match=expected):
        load_model(net.save(tmp_path, net.conv(y, 2, 3, 1)))


def test_upsampling_by_tiles(tmp_path: Path) -> None:
    """As tf2onnx writes Keras' UpSampling2D: each axis by a new axis behind it."""
    net = Net((1, 3, 4, 5))
    y = net.node("Transpose", net.conv("x", 6, 3, 1), perm=[0, 2, 3, 1])
    for axis, shape in ((2, [-1, 8, 5, 6]), (3, [-1, 8, 10, 6])):
        y = net.node("Unsqueeze", y, net.const([axis], np.int64))
        y = net.node("Tile", y, net.const([2 if i == axis else 1 for i in range(5)], np.int64))
        y = net.node("Reshape", y, net.const(shape, np.int64))
    y = net.conv(net.node("Transpose", y, perm=[0, 3, 1, 2]), 2, 6)
    graph = check(net, y, tmp_path)
    assert not {"transpose", "concat"} & {*kinds(graph)}
    assert kinds(graph).count("resize_nearest2d") == 2


def test_tiles(tmp_path: Path) -> None:
    """Whole axes again and again."""
    net = Net((1, 3, 4, 5))
    y = net.node("Tile", net.conv("x", 2, 3, 1), net.const([1, 2, 1, 3], np.int64))
    check(net, net.conv(y, 3, 4), tmp_path)
