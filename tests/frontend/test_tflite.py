# SPDX-License-Identifier: Apache-2.0
"""What is read from TensorFlow Lite files computes what two interpreters compute, layer by layer
within one quantum."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.layerwise import Codes, differences, integers
from tests.onnx_models import Array
from tests.tflite_models import (
    RELU,
    RELU6,
    SAME,
    VALID,
    Ref,
    TfNet,
    interpreter_codes,
    older_interpreter_codes,
    schema,
    small_tflite,
)
from tte.errors import TteError
from tte.frontend.load import load_model
from tte.frontend.tflite import BECOMES
from tte.ir import Graph, QuantParams
from tte.passes.fold import fold
from tte.reference import run_float, run_op

MAP = (1, 6, 7, 4)


def written(net: TfNet, output: Ref, folder: Path) -> tuple[Graph, Path, Array]:
    """What is imported, the file in which every tensor can be watched, and random codes."""
    graph = integers(load_model(net.save(folder, output)))
    x = np.random.default_rng(1).integers(-128, 128, (6, *net.x.shape[1:])).astype(np.int8)
    if graph[graph.inputs[0]].quant is not None and net.graph.tensors[0].type == 3:
        x = (x.astype(np.int16) + 128).astype(np.uint8)
    return graph, net.save(folder, output, "all.tflite", watched=True), x


def compare(graph: Graph, codes: Mapping[str, Codes], layers: int = 1) -> None:
    """At least `layers` tensors are within a quantum of the interpreter's."""
    found = differences(graph, codes)
    assert len(found) >= layers, found
    assert max(found.values()) <= 1, found
    for name in found:  # the test would show nothing if all were saturated
        assert np.unique(codes[name].data).size > 8 or codes[name].data.size < 200, name


def check(net: TfNet, output: Ref, folder: Path, layers: int = 1) -> Graph:
    """Against the interpreter."""
    graph, path, x = written(net, output, folder)
    compare(graph, interpreter_codes(path, x), layers)
    return graph


def kinds(graph: Graph) -> list[str]:
    return [op.kind.removesuffix("_int8") for op in graph.ops]


# ---- networks -----------------------------------------------------------------------------


def test_network(tmp_path: Path) -> None:
    graph = check(*small_tflite(), tmp_path, 6)
    expected = ["conv2d", "depthwise_conv2d", "conv2d", "add", "avg_pool2d", "reshape"]
    assert kinds(graph) == [*expected, "linear_int32"]
    assert graph[graph.inputs[0]].quant == QuantParams((float(np.float32(0.025)),), 3)


def test_names(tmp_path: Path) -> None:
    """An operator has its output's name; what C or a terminal could misread is gone."""
    net, output = small_tflite()
    net.graph.tensors[3].name = "a\n*/ #error \x1b[31m"
    net.graph.tensors[6].name = net.graph.tensors[9].name = "twice"
    graph = load_model(net.save(tmp_path, output))
    assert [op.name for op in graph.ops][2::2] == ["twice", "twice_2", "t12", "t15"]
    names = [*graph.tensors, *(op.name for op in graph.ops), *(op.origin for op in graph.ops)]
    assert all(name.isprintable() for name in names)


# ---- operators ----------------------------------------------------------------------------


def unary(
    kind: str, quant: tuple[float, int], options: str = "", **fields: object
) -> Callable[[TfNet], Ref]:
    return lambda net: net.op(kind, [net.conv(net.x, 8)], (1, 6, 7, 8), quant, options, **fields)


def flattened(net: TfNet) -> Ref:
    """Flatten counts height, width, channel."""
    return net.dense(net.reshape(net.conv(net.x, 3), (1, 126)), 5, per_channel=True)


def dense_of_a_map(net: TfNet) -> Ref:
    return net.dense(net.conv(net.x, 3), 5, bias=False)


def two_layers(net: TfNet) -> Ref:
    return net.dense(net.dense(net.mean(net.x), 9, (0.02, -128), RELU), 5)


def padded(net: TfNet) -> Ref:
    pads = net.integers([[0, 0], [1, 2], [0, 3], [0, 0]])
    return net.conv(
        net.op("PAD", [net.x, pads], (1, 9, 10, 4), options="PadOptions"), 4, padding=VALID
    )


def joined(net: TfNet) -> Ref:
    parts = [net.conv(net.x, 3), net.x, net.conv(net.x, 2, activation=RELU)]
    return net.op("CONCATENATION", parts, (1, 6, 7, 9), options="ConcatenationOptions", axis=-1)


def joined_rows(net: TfNet) -> Ref:
    parts = [net.conv(net.x, 4), net.x]
    return net.op("CONCATENATION", parts, (1, 12, 7, 4), options="ConcatenationOptions", axis=1)


def strided_slice(net: TfNet) -> Ref:
    bounds = [net.integers(v) for v in ([0, 1, 6, 0], [1, 6, 0, 3], [1, 2, -2, 1])]
    y = net.op(
        "STRIDED_SLICE",
        [net.conv(net.x, 4), *bounds],
        (1, 3, 4, 4),
        options="StridedSliceOptions",
        beginMask=1,
        endMask=0b1101,
    )
    return net.conv(y, 3)


def one_row(net: TfNet) -> Ref:
    bounds = [net.integers(v) for v in ([0, 2, 0, 0], [1, 3, 7, 4], [1, 1, 1, 1])]
    fields = {"beginMask": 0b1101, "endMask": 0b1101, "shrinkAxisMask": 0b10}
    y = net.op(
        "STRIDED_SLICE",
        [net.conv(net.x, 4), *bounds],
        (1, 7, 4),
        options="StridedSliceOptions",
        **fields,
    )
    return net.dense(net.reshape(y, (1, 28)), 3)


def sliced(net: TfNet) -> Ref:
    bounds = [net.integers(v) for v in ([0, 1, 0, 1], [1, 4, -1, 2])]
    return net.conv(net.op("SLICE", [net.conv(net.x, 4), *bounds], (1, 4, 7, 2)), 3)


def split(net: TfNet) -> Ref:
    a, b = net.op_of_many(
        "SPLIT",
        [net.integers(3), net.conv(net.x, 6)],
        [(1, 6, 7, 3)] * 2,
        options="SplitOptions",
        numSplits=2,
    )
    return net.binary("ADD", net.conv(a, 3), b)


def split_unequally(net: TfNet) -> Ref:
    inputs = [net.conv(net.x, 6), net.integers([2, -1]), net.integers(3)]
    a, b = net.op_of_many(
        "SPLIT_V", inputs, [(1, 6, 7, 2), (1, 6, 7, 4)], options="SplitVOptions", numSplits=2
    )
    return net.binary("ADD", net.conv(a, 4), b)


def padded_with_a_value(net: TfNet) -> Ref:
    pads = net.integers([[0, 0], [1, 0], [2, 1], [0, 0]])
    y = net.op("PADV2", [net.conv(net.x, 4), pads, net.codes(())], (1, 7, 10, 4),
               options="PadV2Options")  # fmt: skip
    return net.conv(y, 3)


def series(net: TfNet) -> Ref:
    """A convolution in one dimension, as TensorFlow writes it."""
    x = net.reshape(net.conv(net.x, 4), (1, 42, 4))
    x = net.op("EXPAND_DIMS", [x, net.integers(1)], (1, 1, 42, 4), options="ExpandDimsOptions")
    y = net.conv(x, 3)
    y = net.op("SQUEEZE", [y], (1, 42, 3), options="SqueezeOptions", squeezeDims=[1])
    return net.dense(net.reshape(y, (1, 126)), 5)


def transposed(net: TfNet) -> Ref:
    y = net.op("TRANSPOSE", [net.conv(net.x, 5), net.integers([0, 2, 1, 3])], (1, 7, 6, 5))
    return net.conv(y, 3)


def resized(rows: int, cols: int, way: str = "") -> Callable[[TfNet], Ref]:
    def build(net: TfNet) -> Ref:
        return net.op(
            "RESIZE_NEAREST_NEIGHBOR",
            [net.conv(net.x, 4), net.integers([rows, cols])],
            (1, rows, cols, 4),
            options="ResizeNearestNeighborOptions",
            halfPixelCenters=way == "centres",
            alignCorners=way == "corners",
        )

    return build


def deconvolution(padding: int, kernel: int, size: tuple[int, int]) -> Callable[[TfNet], Ref]:
    def build(net: TfNet) -> Ref:
        weight, bias = net.weights(net.x, (5, kernel, kernel, 4), 0, kernel * kernel)
        return net.op(
            "TRANSPOSE_CONV",
            [net.integers([1, *size, 5]), weight, net.x, bias],
            (1, *size, 5),
            options="TransposeConvOptions",
            padding=padding,
            strideH=2,
            strideW=2,
        )

    return build


def excited(net: TfNet) -> Ref:
    """Squeeze-excite: a map times one number per channel."""
    y = net.conv(net.x, 8)
    gate = net.conv(net.mean(y, keep=True), 8, kernel=1)
    gate = net.op("LOGISTIC", [gate], (1, 1, 1, 8), (1 / 256, -128))
    return net.binary("MUL", y, gate, (0.02, 1))


def maxima(net: TfNet) -> Ref:
    """GlobalMaxPooling."""
    axes = net.integers([1, 2])
    y = net.op("REDUCE_MAX", [net.conv(net.x, 8), axes], (1, 8), options="ReducerOptions")
    return net.dense(y, 5)


def blocks(net: TfNet) -> Ref:
    y = net.conv(net.x, 8)
    y = net.op("DEPTH_TO_SPACE", [y], (1, 12, 14, 2), options="DepthToSpaceOptions", blockSize=2)
    y = net.conv(y, 3)
    y = net.op("SPACE_TO_DEPTH", [y], (1, 6, 7, 12), options="SpaceToDepthOptions", blockSize=2)
    return net.conv(y, 4)


OPERATORS: dict[str, Callable[[TfNet], Ref]] = {
    "conv": lambda net: net.conv(net.x, 6),
    "conv valid": lambda net: net.conv(net.x, 6, padding=VALID),
    "conv strided": lambda net: net.conv(net.x, 6, 3, 2),
    "conv even kernel": lambda net: net.conv(net.x, 6, 2, 2),
    "conv dilated": lambda net: net.conv(net.x, 6, dilation=2),
    "conv groups": lambda net: net.conv(net.x, 6, groups=2),
    "conv per tensor": lambda net: net.conv(net.x, 6, per_channel=False),
    "conv relu": lambda net: net.conv(net.x, 6, activation=RELU, quant=(0.02, -128)),
    "conv relu inside": lambda net: net.conv(net.x, 6, activation=RELU, quant=(0.02, -90)),
    "conv relu6": lambda net: net.conv(net.x, 6, activation=RELU6, quant=(0.1, -100)),
    "depthwise": lambda net: net.depthwise(net.x),
    "depthwise multiplier": lambda net: net.depthwise(net.x, 3),
    "depthwise strided": lambda net: net.depthwise(net.x, stride=2, activation=RELU6),
    "dense": flattened,
    "dense of a map": dense_of_a_map,
    "two dense": two_layers,
    "add": lambda net: net.binary("ADD", net.conv(net.x, 4), net.x),
    "add relu": lambda net: net.binary("ADD", net.conv(net.x, 4), net.x, (0.03, -128), RELU),
    "add constant": lambda net: net.binary("ADD", net.conv(net.x, 4), net.codes((4,))),
    "sub": lambda net: net.binary("SUB", net.conv(net.x, 4), net.x),
    "sub from constant": lambda net: net.binary("SUB", net.codes((1,)), net.conv(net.x, 4)),
    "mul": lambda net: net.binary("MUL", net.conv(net.x, 4), net.x),
    "mul constant": lambda net: net.binary("MUL", net.conv(net.x, 4), net.codes((4,))),
    "squeeze-excite": excited,
    "average pool": lambda net: net.pool("AVERAGE_POOL_2D", net.conv(net.x, 8)),
    "average pool same": lambda net: net.pool("AVERAGE_POOL_2D", net.conv(net.x, 8), 3, 2, SAME),
    "average pool relu": lambda net: net.pool("AVERAGE_POOL_2D", net.x, activation=RELU),
    "max pool": lambda net: net.pool("MAX_POOL_2D", net.conv(net.x, 8)),
    "max pool same": lambda net: net.pool("MAX_POOL_2D", net.conv(net.x, 8), 3, 2, SAME),
    "mean": lambda net: net.mean(net.conv(net.x, 8)),
    "maxima": maxima,
    "blocks": blocks,
    "mean kept": lambda net: net.mean(net.conv(net.x, 8), keep=True),
    "relu": unary("RELU", (0.025, 3)),
    "relu6": unary("RELU6", (0.025, 3)),
    "relu -1 to 1": unary("RELU_N1_TO_1", (0.025, 3)),
    "relu 0 to 1": unary("RELU_0_TO_1", (0.025, 3)),
    "leaky relu": unary("LEAKY_RELU", (0.02, -60), "LeakyReluOptions", alpha=0.2),
    "logistic": unary("LOGISTIC", (1 / 256, -128)),
    "tanh": unary("TANH", (1 / 128, 0)),
    "hard swish": unary("HARD_SWISH", (0.02, -100), "HardSwishOptions"),
    "abs": unary("ABS", (0.02, -100)),
    "elu": unary("ELU", (0.02, -60)),
    "exp": unary("EXP", (0.1, -128)),
    "gelu": unary("GELU", (0.02, -90), "GeluOptions", approximate=False),
    "gelu by tanh": unary("GELU", (0.02, -90), "GeluOptions", approximate=True),
    "softmax": unary("SOFTMAX", (1 / 256, -128), "SoftmaxOptions", beta=1.0),
    "pad": padded,
    "pad with a value": padded_with_a_value,
    "concatenation": joined,
    "concatenation of rows": joined_rows,
    "strided slice": strided_slice,
    "one row": one_row,
    "slice": sliced,
    "split": split,
    "split unequally": split_unequally,
    "series": series,
    "transpose": transposed,
    "tile": lambda net: net.op(
        "TILE", [net.conv(net.x, 4), net.integers([1, 2, 1, 1])], (1, 12, 7, 4)
    ),
    "resize": resized(12, 14),
    "resize from centres": resized(12, 14, "centres"),
    "resize unevenly": resized(4, 10),
    "resize unevenly from centres": resized(9, 5, "centres"),
    "resize unevenly to corners": resized(10, 4, "corners"),
    "transposed conv": deconvolution(VALID, 3, (13, 15)),
    "transposed conv same": deconvolution(SAME, 3, (12, 14)),
    "transposed conv small": deconvolution(SAME, 1, (12, 14)),
}  # fmt: skip


def test_every_operator_is_compared() -> None:
    """With the interpreters; those that quantise have tests of their own."""
    compared = {"QUANTIZE", "DEQUANTIZE"}
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()}
    for build in OPERATORS.values():
        net = TfNet(MAP)
        build(net)
        compared.update(names[code.builtinCode] for code in net.model.operatorCodes)
    assert compared == set(BECOMES)


@pytest.mark.parametrize("case", OPERATORS)
def test_operator(case: str, tmp_path: Path) -> None:
    net = TfNet(MAP)
    check(net, OPERATORS[case](net), tmp_path)


def test_shapes_that_are_computed(tmp_path: Path) -> None:
    """As converters write Flatten and a transposed convolution for a batch of unknown size."""
    net = TfNet(MAP)
    weight, bias = net.weights(net.x, (5, 3, 3, 4), 0, 9)
    inputs = [batched(net, net.x, (12, 14, 5)), weight, net.x, bias]
    fields = {"padding": SAME, "strideH": 2, "strideW": 2}
    y = net.op("TRANSPOSE_CONV", inputs, (1, 12, 14, 5), options="TransposeConvOptions", **fields)
    y = net.op("RESHAPE", [y, batched(net, y, (840,))], (1, 840), options="ReshapeOptions")
    graph = integers(load_model(net.save(tmp_path, net.dense(y, 3))))
    assert kinds(graph) == ["conv_transpose2d", "reshape", "linear_int32"]


def batched(net: TfNet, like: Ref, rest: tuple[int, ...]) -> Ref:
    """The shape (batch of `like`, *rest), computed."""
    shape = net.op("SHAPE", [like], (4,), None, "ShapeOptions")
    bounds = [net.integers([number]) for number in (0, 1, 1)]
    batch = net.op("STRIDED_SLICE", [shape, *bounds], (), None, "StridedSliceOptions")
    sizes = [net.integers(size) for size in rest]
    return net.op("PACK", [batch, *sizes], (len(rest) + 1,), None, "PackOptions")


def test_quantised_twice(tmp_path: Path) -> None:
    """The layer before takes over the second quantisation: it rounds once, the file twice."""
    net = TfNet(MAP)
    y = net.op("QUANTIZE", [net.conv(net.x, 5)], (1, 6, 7, 5), (0.03, -20))
    graph = integers(load_model(net.save(tmp_path, y)))
    assert kinds(graph)[0] == "conv2d"
    x = np.random.default_rng(1).integers(-128, 128, (6, *MAP[1:])).astype(np.int8)
    codes = interpreter_codes(net.save(tmp_path, y, watched=True), x)[f"t{y.index}"]
    found = run_op(graph, graph.ops[0], {graph.inputs[0]: x})[0]
    assert graph[graph.ops[0].outputs[0]].quant == codes.quant
    assert np.abs(found.astype(int) - codes.data).max() <= 1


def test_series(tmp_path: Path) -> None:
    """A row of numbers becomes a map; what was one axis is three."""
    net = TfNet((1, 60))
    y = net.conv(net.reshape(net.x, (1, 10, 6, 1)), 5, stride=2)
    graph = check(net, net.dense(net.mean(y), 4), tmp_path, 3)
    assert kinds(graph) == ["reshape", "conv2d", "avg_pool2d", "reshape", "linear_int32"]


def test_unsigned(tmp_path: Path) -> None:
    """uint8 activations, as old converters wrote them: the input and what is quantised from it."""
    net = TfNet(MAP, quant=(0.025, 130), dtype="uint8")
    y = net.op("QUANTIZE", [net.x], MAP, (0.025, 2))
    graph = check(net, net.conv(y, 5), tmp_path)
    assert graph[graph.inputs[0]].quant == QuantParams((float(np.float32(0.025)),), 2)


def test_float_ends(tmp_path: Path) -> None:
    """A float input that the model quantises, and a float output."""
    net = TfNet(MAP, quant=None, dtype="float32")
    x = net.op("QUANTIZE", [net.x], MAP, (0.03, 5))
    y = net.dense(net.mean(net.conv(x, 6)), 4)
    y = net.op("DEQUANTIZE", [y], (1, 4), None)
    path = net.save(tmp_path, y)
    graph = integers(load_model(path))
    assert graph[graph.inputs[0]].quant == QuantParams((float(np.float32(0.03)),), 5)
    assert kinds(graph) == ["conv2d", "avg_pool2d", "reshape", "linear_int32"]


def test_float_model(tmp_path: Path) -> None:
    """Without quantisation it is a float model like any other."""
    net = TfNet((1, 12), quant=None, dtype="float32")
    weight = net.tensor((3, 12), data=net.rng.normal(0, 1, (3, 12)).astype(np.float32))
    y = net.op("FULLY_CONNECTED", [net.x, weight], (1, 3), None, "FullyConnectedOptions")
    graph = fold(load_model(net.save(tmp_path, y)))
    x = np.random.default_rng(0).normal(0, 1, (4, 12)).astype(np.float32)
    matrix = np.frombuffer(bytes(net.model.buffers[1].data), np.float32).reshape(3, 12)
    np.testing.assert_allclose(run_float(graph, x)[graph.outputs[0]], x @ matrix.T, atol=1e-5)


def test_softmax_at_the_end_is_dropped(tmp_path: Path) -> None:
    net = TfNet((1, 12))
    y = net.dense(net.x, 4)
    y = net.op("SOFTMAX", [y], (1, 4), (1 / 256, -128), "SoftmaxOptions", beta=1.0)
    graph = check(net, y, tmp_path, 0)
    assert kinds(graph) == ["linear_int32"]


# ---- refused ------------------------------------------------------------------------------


def message(net: TfNet, output: Ref, folder: Path) -> str:
    with pytest.raises(TteError) as caught:
        load_model(net.save(folder, output))
    return str(caught.value)


def test_unsupported_operators_are_counted(tmp_path: Path) -> None:
    net = TfNet(MAP)
    y = net.op("FLOOR", [net.op("FLOOR", [net.x], MAP)], MAP)
    custom = net.op("CUSTOM", [y], MAP)
    net.model.operatorCodes[-1].customCode = "Acme*/"
    text = message(net, custom, tmp_path)
    assert "FLOOR (2)" in text and "CUSTOM 'Acme*/' (1)" in text and "supported: ABS" in text


def change_fused(net: TfNet) -> None:
    net.graph.operators[0].builtinOptions.fusedActivationFunction = 5


def change_scale(net: TfNet) -> None:
    net.graph.tensors[3].quantization = None


def change_zero_point(net: TfNet) -> None:
    net.graph.tensors[3].quantization.zeroPoint = np.asarray([999])


def change_options(net: TfNet) -> None:
    net.graph.operators[0].builtinOptions = schema.Pool2DOptionsT()
    net.graph.operators[0].builtinOptionsType = schema.BuiltinOptions.Pool2DOptions


def change_scales(net: TfNet) -> None:
    net.graph.tensors[1].quantization.scale = np.ones(7, np.float32)


def change_shape(net: TfNet) -> None:
    net.graph.tensors[1].shape = [8, 3, 3, 4]


def change_order(net: TfNet) -> None:
    net.graph.operators.reverse()


def change_subgraphs(net: TfNet) -> None:
    net.model.subgraphs.append(net.graph)


def change_version(net: TfNet) -> None:
    net.model.version = 2


def change_state(net: TfNet) -> None:
    net.graph.tensors[3].isVariable = True


def change_index(net: TfNet) -> None:
    net.graph.operators[0].inputs = [0, 99, 2]


def change_buffer(net: TfNet) -> None:
    net.graph.tensors[1].buffer = 1000


def change_weights(net: TfNet) -> None:
    net.graph.operators[0].inputs = [0, 0, 2]


def change_output(net: TfNet) -> None:
    net.graph.operators[1].outputs = [3]


def change_size(net: TfNet) -> None:
    net.graph.tensors[0].shape = [1, 1 << 14, 1 << 14, 3]


def change_negative(net: TfNet) -> None:
    net.graph.tensors[0].shape = [1, -8, 8, 3]


REFUSED: dict[str, tuple[Callable[[TfNet], None], str]] = {
    "fused activation": (change_fused, "fused activation function 5"),
    "no scale": (change_scale, "without a scale"),
    "zero point": (change_zero_point, "no int8"),
    "options": (change_options, "no Conv2DOptions"),
    "scales": (change_scales, "7 scales along axis 0"),
    "constant size": (change_shape, "holds 216 bytes"),
    "order": (change_order, "out of order"),
    "subgraphs": (change_subgraphs, "2 subgraphs"),
    "version": (change_version, "version 2"),
    "state": (change_state, "state"),
    "index": (change_index, "no tensor 99"),
    "buffer": (change_buffer, "buffer 1000"),
    "weights": (change_weights, "must be a constant"),
    "given twice": (change_output, "given twice"),
    "size": (change_size, "sizes go up to"),
    "negative": (change_negative, "negative"),
}


def test_on_tflite_runtime(tmp_path: Path) -> None:
    """The interpreter before ai-edge-litert."""
    worker = Path(sys.prefix) / "tflite-runtime" / "bin" / "python"
    if not worker.is_file():
        if os.environ.get("CI") == "true" and sys.version_info < (3, 12):
            pytest.fail("CI needs tflite-runtime; see the Makefile")
        pytest.skip("needs tflite-runtime in an environment of its own; `make test` makes it")
    graphs, jobs = [], []
    for case, build in OPERATORS.items():
        (tmp_path / case).mkdir()
        net = TfNet(MAP)
        graph, path, x = written(net, build(net), tmp_path / case)
        graphs.append(graph)
        jobs.append((path, x))
    (tmp_path / "network").mkdir()
    graph, path, x = written(*small_tflite(), tmp_path / "network")
    *operators, network = older_interpreter_codes([*jobs, (path, x)], worker)
    compare(graph, network, 6)
    for graph, codes in zip(graphs, operators, strict=True):
        compare(graph, codes)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path) -> None:
    net, output = small_tflite()
    change, expected = REFUSED[case]
    change(net)
    assert expected in message(net, output, tmp_path)


def test_content_decides(tmp_path: Path) -> None:
    """Not the name; a wrong file gets a message for its name."""
    net, output = small_tflite()
    assert load_model(net.save(tmp_path, output, "net.onnx")).ops
    other = tmp_path / "other.tflite"
    other.write_bytes(b"hello, this is no model")
    with pytest.raises(TteError, match="not a TensorFlow Lite file"):
        load_model(other)
