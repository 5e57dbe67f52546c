# SPDX-License-Identifier: Apache-2.0
"""Whatever a file holds, the importer answers with a graph or with one clear TteError."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.onnx_models import Net, QuantisedNet, save, small_classifier
from tests.tflite_models import SAME, TfNet, small_tflite
from tte.errors import TteError
from tte.frontend import onnx_file
from tte.frontend.onnx import load_model
from tte.frontend.tflite import load_tflite
from tte.passes.calibrate import calibrate
from tte.passes.fold import fold
from tte.passes.quantize import quantize

ROOT = Path(__file__).resolve().parent.parent.parent


def message(path: Path) -> str:
    """The error that loading gives."""
    load = load_tflite if path.suffix == ".tflite" else load_model
    with pytest.raises(TteError) as caught:
        load(path)
    return str(caught.value)


# ---- files --------------------------------------------------------------------------------


def test_no_file(tmp_path: Path) -> None:
    assert "does not exist" in message(tmp_path / "missing.onnx")
    assert "is a directory" in message(tmp_path)


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"", "is empty"),
        (b"\0" * 100, "not an ONNX file"),
        (b"hello, this is no model\n" * 10, "not an ONNX file"),
        (b"\x1c\0\0\0TFL3" + b"\0" * 64, "not an ONNX file"),
        (b"\x08\x08", "not an ONNX file"),
        (bytes.fromhex("3a00") * 3, "not an ONNX file"),
        (bytes.fromhex("0bff"), "not an ONNX file"),
        (b"\xff" * 40, "not an ONNX file"),
    ],
)
def test_other_content(data: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(data)
    assert expected in message(path)


def test_too_large(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as stream:
        os.truncate(stream.fileno(), onnx_file.MAX_FILE_BYTES + 1)
    assert "MiB" in message(path)


def test_small_file_of_many_objects(tmp_path: Path) -> None:
    """Two bytes a node: 16 MB would take gigabytes of memory to parse."""
    nodes = b"\x0a\x00" * 8_000_000
    length = len(nodes)
    prefix = b"\x3a"
    while length > 127:
        prefix, length = prefix + bytes([length & 127 | 128]), length >> 7
    path = tmp_path / "many.onnx"
    path.write_bytes(prefix + bytes([length]) + nodes)
    assert "too large" in message(path)


def deep_graph(depth: int) -> bytes:
    """Graphs in attributes of nodes of graphs."""
    data = b""
    for field in (0x32, 0x2A, 0x0A) * depth:
        length, size = len(data), b""
        while length > 127:
            size, length = size + bytes([length & 127 | 128]), length >> 7
        data = bytes([field]) + size + bytes([length]) + data
    return data


def test_deep_nesting(tmp_path: Path) -> None:
    path = tmp_path / "deep.onnx"
    for depth in (20, 5000):
        body = deep_graph(depth)
        model = onnx.ModelProto(ir_version=8).SerializeToString()
        size, length = b"", len(body)
        while length > 127:
            size, length = size + bytes([length & 127 | 128]), length >> 7
        path.write_bytes(model + b"\x3a" + size + bytes([length]) + body)
        message(path)


def test_mutated_and_truncated_files(tmp_path: Path) -> None:
    """ONNX and TensorFlow Lite files, damaged in bytes, in structure and in names: a model or a
    message comes out, soon, without much memory, and no name becomes C."""
    count = 20_000 if os.environ.get("TTE_NIGHTLY") == "1" else 500
    command = [sys.executable, "-m", "tests.frontend.mutations", "0", str(count), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=count)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    result = json.loads(done.stdout)
    assert result["slowest_s"] < 10 and result["peak_bytes"] < 2 << 30, result
    outcomes = result["outcomes"]
    assert sum(outcomes.values()) == count
    assert all(f"{way}: error" in outcomes for way in ("cut", "change_onnx", "change_tflite"))
    models = sum(number for outcome, number in outcomes.items() if outcome.endswith("model"))
    assert count // 20 < models < count // 2, outcomes


# ---- small files that ask for much ---------------------------------------------------------


def test_large_constants_used_often(tmp_path: Path) -> None:
    """Each use of a constant costs memory of its own, though the file holds it once."""
    net = Net((1, 50_000))
    codes, scale = net.const(np.ones(50_000), np.int8), net.const(np.ones(50_000))
    y = "x"
    for _ in range(300):
        y = net.node("Add", y, net.node("DequantizeLinear", codes, scale, axis=0))
    assert "Mi numbers" in message(net.save(tmp_path, y))


def test_large_scales_used_often(tmp_path: Path) -> None:
    net = QuantisedNet((1, 1, 1, 1))
    y, parameters = net.code("x", 0.1, 3), net.params(0.1, 3)
    weight = net.const(np.ones((50_000, 1, 1, 1)), np.int8), net.const(np.ones(50_000))
    zero, bias = net.const(np.zeros(50_000), np.int8), net.const(np.zeros(50_000), np.int32)
    for _ in range(100):
        z = net.node("QLinearConv", y, *parameters, *weight, zero, *parameters, bias)
    path = net.save(tmp_path, net.node("DequantizeLinear", z, *parameters))
    assert "scales" in message(path)


def test_many_nodes_that_ask_for_one_name(tmp_path: Path) -> None:
    """Nothing is quadratic in the number of nodes: this took a minute when names were."""
    net = QuantisedNet((1, 5))
    codes, parameters = net.code("x", 0.1, 3), net.params(0.1, 3)
    for _ in range(3000):
        codes = net.contrib("QLinearAdd", "v0", *parameters, codes, *parameters, *parameters)
    path = net.save(tmp_path, net.node("DequantizeLinear", codes, *parameters))
    began = time.perf_counter()
    assert len(load_model(path).ops) == 3000
    assert time.perf_counter() - began < 10


def test_large_tflite_constants_used_often(tmp_path: Path) -> None:
    net = TfNet((1, 4, 4, 128))
    weights = net.weights(net.x, (128, 8, 8, 128), 0, 100)
    fields = {"padding": SAME, "strideW": 1, "strideH": 1, "dilationWFactor": 1}
    fields["dilationHFactor"] = 1
    x = net.x
    for _ in range(100):
        x = net.op("CONV_2D", [x, *weights], (1, 4, 4, 128), options="Conv2DOptions", **fields)
    assert "MiB of constants" in message(net.save(tmp_path, x))


def long_name(net: TfNet) -> None:
    net.graph.tensors[3].name = "n" * 100_000


def many_inputs(net: TfNet) -> None:
    net.graph.operators[0].inputs = [0] * 1000


def many_model_inputs(net: TfNet) -> None:
    net.graph.inputs = [0] * 1000


def many_dimensions(net: TfNet) -> None:
    net.graph.tensors[3].shape = [1] * 1000


def many_scales(net: TfNet) -> None:
    net.graph.tensors[3].shape = [1, 4, 4, 100_000]
    net.graph.tensors[3].quantization.scale = np.ones(100_000, np.float32)
    net.graph.tensors[3].quantization.quantizedDimension = 3


def nothing(net: TfNet) -> None:
    net.graph.operators = []


@pytest.mark.parametrize(
    "change, expected",
    [
        (long_name, "100000 bytes"),
        (many_inputs, "more than 100 inputs"),
        (many_model_inputs, "more than 100 inputs"),
        (many_dimensions, "1000 dimensions"),
        (many_scales, "100000 scales"),
        (nothing, "0 operators"),
    ],
)
def test_much_in_a_tflite_file(
    change: Callable[[TfNet], None], expected: str, tmp_path: Path
) -> None:
    net, output = small_tflite()
    change(net)
    path = tmp_path / "net.tflite"
    path.write_bytes(net.data(output))
    with pytest.raises(TteError, match=expected):
        load_tflite(path)


def test_a_vector_that_claims_to_be_long(tmp_path: Path) -> None:
    """Every word of the file, in turn, says 4 Gi: counts, lengths, offsets."""
    net, output = small_tflite()
    data = net.data(output)
    path = tmp_path / "net.tflite"
    for position in range(8, len(data) - 4, 12):
        path.write_bytes(data[:position] + b"\xff\xff\xff\x7f" + data[position + 4 :])
        with contextlib.suppress(TteError):
            load_tflite(path)


# ---- content ------------------------------------------------------------------------------


def broken(change: Callable[[onnx.ModelProto], Any], folder: Path) -> str:
    """The message for a small classifier after a change."""
    model = small_classifier()
    change(model)
    return message(save(model, folder))


def set_opset(model: onnx.ModelProto, version: int) -> None:
    model.opset_import[0].version = version


def set_attribute(model: onnx.ModelProto, node: int, **attrs: Any) -> None:
    target = model.graph.node[node]
    kept = [a for a in target.attribute if a.name not in attrs]
    del target.attribute[:]
    target.attribute.extend([*kept, *helper.make_node("X", [], [], **attrs).attribute])


def set_weight(model: onnx.ModelProto, value: float) -> None:
    tensor = model.graph.initializer[0]
    array = numpy_helper.to_array(tensor).copy()
    array.flat[3] = value
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def external(model: onnx.ModelProto, **entries: str) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


def input_dims(model: onnx.ModelProto, *dims: Any) -> None:
    shape = model.graph.input[0].type.tensor_type.shape
    del shape.dim[:]
    for size in dims:
        dim = shape.dim.add()
        if isinstance(size, str):
            dim.dim_param = size
        elif size is not None:
            dim.dim_value = size


def duplicate_output(model: onnx.ModelProto) -> None:
    model.graph.node[1].output[0] = model.graph.node[0].output[0]


def cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = model.graph.node[4].output[0]


def second_output(model: onnx.ModelProto) -> None:
    value = helper.make_tensor_value_info("v0", TensorProto.FLOAT, None)
    model.graph.output.append(value)


def second_input(model: onnx.ModelProto) -> None:
    value = helper.make_tensor_value_info("x2", TensorProto.FLOAT, [1, 3])
    model.graph.input.append(value)


def local_function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Relu", ["a"], ["b"])
    opset = helper.make_opsetid("", 13)
    model.functions.append(helper.make_function("d", "F", ["a"], ["b"], [node], [opset]))


def control_flow(model: onnx.ModelProto) -> None:
    node = model.graph.node[1]
    node.op_type = "If"
    set_attribute(model, 1, then_branch=model.graph, else_branch=model.graph)


def empty_weight(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    empty = np.zeros((8, 3, 0, 3), np.float32)
    tensor.CopyFrom(numpy_helper.from_array(empty, tensor.name))


def dims_of(model: onnx.ModelProto, *dims: int) -> None:
    model.graph.initializer[0].dims[:] = dims


BROKEN: dict[str, tuple[Callable[[onnx.ModelProto], Any], str]] = {
    "old operator set": (lambda m: set_opset(m, 6), "operator set 6"),
    "new operator set": (lambda m: set_opset(m, 999), "operator set 999"),
    "no operator set": (lambda m: m.ClearField("opset_import"), "names no operator set"),
    "no graph": (lambda m: m.ClearField("graph"), "no graph"),
    "no nodes": (lambda m: m.graph.ClearField("node"), "no nodes"),
    "no input": (lambda m: m.graph.ClearField("input"), "0 inputs"),
    "no output": (lambda m: m.graph.ClearField("output"), "0 outputs"),
    "two inputs": (second_input, "2 inputs: x, x2"),
    "two outputs": (second_output, "2 outputs: v7, v0"),
    "functions": (local_function, "functions"),
    "control flow": (control_flow, "operator If is not supported"),
    "sequence input": (lambda m: m.graph.input[0].ClearField("type"), "of unknown shape"),
    "rank 3 input": (lambda m: input_dims(m, 1, 3, 8), "weights have 4 dimensions"),
    "rank 5 input": (lambda m: input_dims(m, 1, 3, 8, 8, 8), "it must be [batch, channels"),
    "dynamic height": (lambda m: input_dims(m, "n", 3, "h", 8), "only the batch dimension"),
    "batch of 4": (lambda m: input_dims(m, 4, 3, 8, 8), "one sample at a time"),
    "zero width": (lambda m: input_dims(m, 1, 3, 8, 0), "at least 1"),
    "negative width": (lambda m: input_dims(m, 1, 3, 8, -8), "at least 1"),
    "huge input": (lambda m: input_dims(m, 1, 3, 2**40, 2**40), "sizes go up to"),
    "wrong channels": (lambda m: input_dims(m, 1, 5, 8, 8), "do not fit input"),
    "unknown operator": (
        lambda m: setattr(m.graph.node[1], "op_type", "LSTM"),
        "operator LSTM is not supported",
    ),
    "other domain": (
        lambda m: setattr(m.graph.node[1], "domain", "com.acme"),
        "operator com.acme.Relu is not supported",
    ),
    "unknown attribute": (lambda m: set_attribute(m, 0, volume=11), "unknown attribute 'volume'"),
    "attribute of another type": (lambda m: set_attribute(m, 0, strides="2"), "not of type INTS"),
    "floats for integers": (lambda m: set_attribute(m, 0, strides=[2.0, 2.0]), "not of type INTS"),
    "zero stride": (lambda m: set_attribute(m, 0, strides=[0, 1]), "negative or zero"),
    "negative padding": (lambda m: set_attribute(m, 0, pads=[-1, 0, 0, 0]), "negative or zero"),
    "huge padding": (lambda m: set_attribute(m, 0, pads=[2**40] * 4), "65535"),
    "large padding": (lambda m: set_attribute(m, 0, pads=[60000] * 4), "too large"),
    "three strides": (lambda m: set_attribute(m, 0, strides=[1, 1, 1]), "two spatial"),
    "three pads": (lambda m: set_attribute(m, 0, pads=[1, 1, 1]), "2 spatial"),
    "zero groups": (lambda m: set_attribute(m, 2, group=0), "groups"),
    "window over the edge": (lambda m: set_attribute(m, 0, dilations=[9, 9]), "does not fit"),
    "other kernel_shape": (lambda m: set_attribute(m, 0, kernel_shape=[5, 5]), "kernel_shape"),
    "missing input": (lambda m: m.graph.node[2].input.__setitem__(0, "nobody"), "'nobody'"),
    "empty input": (lambda m: m.graph.node[0].input.__setitem__(1, ""), "is missing"),
    "too few inputs": (lambda m: m.graph.node[0].input.__delitem__(slice(1, 3)), "1 inputs"),
    "cycle": (cycle, "form a cycle"),
    "duplicate outputs": (duplicate_output, "is defined 2 times"),
    "missing output": (lambda m: setattr(m.graph.output[0], "name", "zz"), "no node gives"),
    "output is the input": (lambda m: setattr(m.graph.output[0], "name", "x"), "no computation"),
    "long name": (lambda m: setattr(m.graph.node[0], "name", "." * 5000), "5000 characters"),
    "NaN": (lambda m: set_weight(m, np.nan), "NaN"),
    "infinity": (lambda m: set_weight(m, np.inf), "infinity"),
    "no weights": (empty_weight, "negative or zero"),
    "negative dims": (lambda m: dims_of(m, -8, -3, 3, 3), "cannot be"),
    "other dims": (lambda m: dims_of(m, 8, 3, 3, 4), "864 bytes"),
    "overflowing dims": (lambda m: dims_of(m, 2**62, 2**62, 4, 4), "864 bytes"),
    "unknown type": (lambda m: setattr(m.graph.initializer[0], "data_type", 77), "unknown type 77"),
    "string weights": (lambda m: setattr(m.graph.initializer[0], "data_type", 8), "type string"),
    "outside": (lambda m: external(m, location="../secret"), "not inside the model's folder"),
    "absolute": (lambda m: external(m, location="/etc/passwd"), "not inside the model's folder"),
    "no location": (external, "not inside the model's folder"),
    "zero byte": (lambda m: external(m, location="a\0b"), "not inside the model's folder"),
    "absent": (lambda m: external(m, location="weights.bin"), "does not exist"),
    "the folder": (lambda m: external(m, location="."), "does not exist"),
    "bad offset": (lambda m: external(m, location="net.onnx", offset="x"), "not inside"),
    "negative offset": (lambda m: external(m, location="net.onnx", offset="-4"), "should give"),
    "beyond the end": (lambda m: external(m, location="net.onnx", offset="99999"), "too short"),
    "other length": (lambda m: external(m, location="net.onnx", length="4"), "should give 4"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken(case: str, tmp_path: Path) -> None:
    change, expected = BROKEN[case]
    assert expected in broken(change, tmp_path)


def test_a_link_may_not_leave_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"\0" * 864)
    (folder / "weights.bin").symlink_to(tmp_path / "secret.bin")
    text = broken(lambda m: external(m, location="weights.bin"), folder)
    assert "not inside the model's folder" in text


@pytest.mark.parametrize(
    ("operator", "instead"),
    [("GRU", "along the series"), ("LayerNormalization", "use BatchNormalization")],
)
def test_unsupported_operators_have_a_substitute(
    operator: str, instead: str, tmp_path: Path
) -> None:
    text = broken(lambda m: setattr(m.graph.node[1], "op_type", operator), tmp_path)
    assert f"operator {operator} is not supported" in text and instead in text
    assert all(len(line) <= 100 for line in text.splitlines() if "where:" not in line)


def test_unsupported_operators_are_all_listed(tmp_path: Path) -> None:
    """The first with its node, the others counted, and what is supported."""

    def change(model: onnx.ModelProto) -> None:
        model.graph.node[1].op_type = "Hardmax"
        model.graph.node[3].op_type = "LRN"
        model.graph.node[3].name = "pool"

    text = broken(change, tmp_path)
    for part in (
        "Hardmax is not supported",
        "'relu1'",
        "LRN (1)",
        "GlobalAveragePool",
        "hint:",
    ):
        assert part in text


def test_nodes_that_nothing_needs_are_ignored(tmp_path: Path) -> None:
    model = small_classifier()
    model.graph.node.append(helper.make_node("LSTM", ["v0"], ["unused"]))
    load_model(save(model, tmp_path))


@pytest.mark.parametrize(
    "scale, zero_point, expected",
    [
        (0.0, np.int8(0), "positive finite"),
        (-0.1, np.int8(0), "positive finite"),
        (np.nan, np.int8(0), "positive finite"),
        (np.inf, np.int8(0), "positive finite"),
        (0.1, np.int16(0), "type int16"),
        ([0.1, 0.2], np.asarray([0, 0], np.int8), "per tensor"),
        ([[0.1]], np.asarray([[0]], np.int8), "shape"),
        (0.1, np.asarray([0, 0], np.int8), "zero points"),
    ],
)
def test_bad_quantisation(scale: Any, zero_point: Any, expected: str, tmp_path: Path) -> None:
    net = Net((1, 6), opset=21)
    parameters = net.const(scale), net.const(zero_point, zero_point.dtype)
    y = net.node("DequantizeLinear", net.node("QuantizeLinear", "x", *parameters), *parameters)
    assert expected in message(net.save(tmp_path, net.gemm(y, 3, 6)))


@pytest.mark.parametrize(
    "scale, axis, expected",
    [([0.1] * 4, 0, "do not fit"), ([0.1] * 3, 5, "axis 5"), ([0.1, 0.0, 0.1], 0, "positive")],
)
def test_bad_weight_scales(scale: list[float], axis: int, expected: str, tmp_path: Path) -> None:
    net = Net((1, 6))
    weight = net.dequantized(np.ones((3, 6)), scale, axis=axis)
    text = message(net.save(tmp_path, net.node("Gemm", "x", weight, transB=1)))
    assert expected in text


def test_quantised_without_dequantising(tmp_path: Path) -> None:
    net = Net((1, 3, 4, 4))
    y = net.node("QuantizeLinear", "x", net.const(0.1), net.const(0, np.int8))
    assert "QDQ" in message(net.save(tmp_path, net.node("GlobalAveragePool", y)))


def test_dequantised_otherwise(tmp_path: Path) -> None:
    net = Net((1, 6))
    y = net.node("QuantizeLinear", "x", net.const(0.1), net.const(0, np.int8))
    y = net.node("DequantizeLinear", y, net.const(0.2), net.const(0, np.int8))
    assert "differ" in message(net.save(tmp_path, net.gemm(y, 3, 6)))


def test_control_characters_in_names(tmp_path: Path) -> None:
    """Nothing unprintable leaves the importer, and no name is lost."""
    model = small_classifier()
    model.graph.node[0].name = "a\n*/ #error\x1b[31m"
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "t\n\u202e"
    graph = load_model(save(model, tmp_path))
    names = [*graph.tensors, *(op.name for op in graph.ops), *(op.origin for op in graph.ops)]
    assert all(name.isprintable() for name in names)


def test_variance_below_zero(tmp_path: Path) -> None:
    net = Net((1, 3, 4, 4))
    values = [net.const(np.full(3, v, np.float32)) for v in (1, 0, 0, -2)]
    y = net.node("BatchNormalization", "x", *values)
    assert "NaN" in message(net.save(tmp_path, net.node("GlobalAveragePool", y)))


def test_scales_that_differ_too_much(tmp_path: Path) -> None:
    """An output scale so small that no 32-bit multiplier leads to it."""
    net = Net((1, 3, 4, 4))
    y = net.quantized("x", 1e20, 0)
    y = net.quantized(net.conv(y, 4, 3), 1e-20, 0)
    graph = fold(load_model(net.save(tmp_path, net.node("GlobalAveragePool", y))))
    with pytest.raises(TteError, match="cannot be quantised"):
        quantize(calibrate(graph, np.zeros((1, 4, 4, 3), np.float32)))
