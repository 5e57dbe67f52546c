# SPDX-License-Identifier: Apache-2.0
"""Seeded damage to model files, and what becomes of it:

    python -m tests.frontend.mutations FIRST COUNT FOLDER

takes each file the whole way to integers (where names were changed, to C) and prints a JSON object:
outcomes, the slowest file's seconds, this process's peak memory. Whatever else than a model or a
TteError comes out ends it with a traceback.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tests.onnx_models import QuantisedNet, small_classifier
from tests.tflite_models import RELU, TfNet, schema, small_tflite
from tte.board import load_board
from tte.codegen.emit import render_project
from tte.data import Dataset
from tte.errors import TteError
from tte.frontend.load import load_model
from tte.ir import Graph
from tte.ops import ONNX_RULES
from tte.passes.calibrate import calibrate
from tte.passes.fold import fold
from tte.passes.quantize import quantize
from tte.pipeline import CompileOptions, compile_model

DATA = Path(__file__).resolve().parent.parent / "data"
Rng = np.random.Generator

EVIL = "EVIL"  # in every name below, and never in C outside of a comment
NAMES = (
    f"*/ int {EVIL}; /*",
    f"a\n#error {EVIL}\n",
    f'"; {EVIL}(); //',
    f"??/\n{EVIL}",
    f"\\\n{EVIL}",
    f"\u2028{EVIL}\x00\x1b[31m%s%n",
    f"../../{EVIL}",
    f"{{{{ {EVIL} }}}}{{% raw %}}",
)
INTEGERS = (-(2**62), -(2**31), -1, 0, 1, 2, 7, 255, 2**31 - 1, 2**40, 2**62)
WORDS = (0, 1, 2, 4, 8, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFC, 0xFFFFFFFF)


# ---- the files ----------------------------------------------------------------------------


def quantised_operators() -> onnx.ModelProto:
    """QOperator: convolution, sum, pooling, head."""
    net = QuantisedNet((1, 3, 8, 8))
    p = net.params(0.02, 5, np.uint8)
    w = net.const(net.rng.integers(-99, 99, (8, 3, 3, 3)), np.int8)
    w_params = net.const(np.full(8, 0.01)), net.const(np.zeros(8), np.int8)
    y = net.node("QLinearConv", net.node("QuantizeLinear", "x", *p), *p, w, *w_params, *p)
    y = net.contrib("QLinearAdd", y, *p, y, *p, *p)
    y = net.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = net.node("Flatten", net.contrib("QLinearGlobalAveragePool", y, *p, *p))
    head = net.const(net.rng.integers(-99, 99, (4, 8)), np.int8), *net.params(0.01, 0)
    y = net.contrib("QGemm", y, *p, *head, net.const(np.zeros(4), np.int32), *p, transB=1)
    return net.model(net.node("DequantizeLinear", y, *p))


def varied_tflite() -> TfNet:
    """Operators with shapes, axes and sizes in constants."""
    net = TfNet((1, 6, 6, 4))
    pads = net.integers([[0, 0], [1, 1], [1, 1], [0, 0]])
    y = net.op("PAD", [net.x, pads], (1, 8, 8, 4), options="PadOptions")
    bounds = [net.integers(v) for v in ([0, 1, 0, 0], [1, 7, 8, 4], [1, 2, 1, 1])]
    y = net.op("STRIDED_SLICE", [y, *bounds], (1, 3, 8, 4), options="StridedSliceOptions")
    y = net.op("TRANSPOSE", [y, net.integers([0, 2, 1, 3])], (1, 8, 3, 4))
    fields = {"axis": 3, "options": "ConcatenationOptions"}
    y = net.op("CONCATENATION", [net.conv(y, 3, activation=RELU), y], (1, 8, 3, 7), **fields)
    y = net.pool("MAX_POOL_2D", y)
    net.dense(net.reshape(y, (1, 28)), 4)
    return net


@cache
def originals() -> tuple[bytes, ...]:
    """ONNX files, then TensorFlow Lite files."""
    net, output = small_tflite()
    return (
        small_classifier().SerializeToString(),
        (DATA / "torchscript_int8.onnx").read_bytes(),
        (DATA / "dynamo_batch.onnx").read_bytes(),
        quantised_operators().SerializeToString(),
        net.data(output),
        (varied := varied_tflite()).data(varied.last),
    )


# ---- damage -------------------------------------------------------------------------------


def some(rng: Rng, options: Any) -> Any:
    """One of a sequence."""
    return options[int(rng.integers(0, len(options)))]


def cut(data: bytes, rng: Rng) -> bytes:
    return data[: int(rng.integers(1, len(data)))]


def change_bytes(data: bytes, rng: Rng) -> bytes:
    """Bits flipped, bytes set, removed, doubled; words set, moved, copied (flatbuffers' offsets
    and lengths are words)."""
    result = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at, kind = int(rng.integers(8, len(result) - 8)), int(rng.integers(0, 7))
        word = at & ~3
        if kind == 0:
            result[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            result[at] = some(rng, (0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            del result[at : at + int(rng.integers(1, 20))]
        elif kind == 3:
            result[at:at] = result[at : at + int(rng.integers(1, 20))]
        elif kind == 4:
            result[word : word + 4] = some(rng, WORDS).to_bytes(4, "little")
        elif kind == 5:
            moved = int.from_bytes(result[word : word + 4], "little") + int(rng.integers(-64, 64))
            result[word : word + 4] = (moved & 0xFFFFFFFF).to_bytes(4, "little")
        else:
            other = int(rng.integers(0, len(result) - 8)) & ~3
            result[word : word + 4] = result[other : other + 4]
    return bytes(result)


def change_onnx(data: bytes, rng: Rng) -> bytes:
    """A well-formed file whose nodes, attributes and tensors are shuffled about."""
    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    for _ in range(int(rng.integers(1, 4))):
        node, tensor = some(rng, graph.node), some(rng, graph.initializer)
        kind = int(rng.integers(0, 9))
        if kind == 0:
            node.op_type = some(rng, [*ONNX_RULES, "QuantizeLinear", "Shape", "QLinearConv"])
        elif kind == 1 and node.input:
            node.input[int(rng.integers(0, len(node.input)))] = some(rng, graph.node).output[0]
        elif kind == 2 and node.input:
            del node.input[int(rng.integers(0, len(node.input)))]
        elif kind == 3:
            node.input.append(tensor.name)
        elif kind == 4 and node.attribute:
            attr = some(rng, node.attribute)
            attr.i = some(rng, (-1, 0, 7, 2**62))
            attr.ints[:] = [some(rng, INTEGERS) for _ in range(int(rng.integers(0, 5)))]
        elif kind == 5 and tensor.dims:
            tensor.dims[int(rng.integers(0, len(tensor.dims)))] = some(rng, INTEGERS)
        elif kind == 6:
            tensor.data_type = int(rng.integers(0, 24))
        elif kind == 7:
            tensor.dims[:] = rng.permutation(tensor.dims).tolist()
        else:
            value = np.float32(some(rng, (np.nan, np.inf, 3e38, 1e-45, 0.0)))
            tensor.raw_data = value.tobytes() + tensor.raw_data[4:]
    return bytes(model.SerializeToString())


def replaced(values: Any, value: int, rng: Rng) -> list[int]:
    """With one of them another."""
    result = [int(v) for v in values]
    result[int(rng.integers(0, len(result)))] = value
    return result


def change_tflite(data: bytes, rng: Rng) -> bytes:
    """A well-formed file with other indices, shapes, scales and options."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    graph = model.subgraphs[0]
    for _ in range(int(rng.integers(1, 4))):
        tensor, op = some(rng, graph.tensors), some(rng, graph.operators)
        kind = int(rng.integers(0, 8))
        small = int(rng.integers(-2, len(graph.tensors) + 2))
        if kind == 0 and len(tensor.shape):
            value = some(rng, [n for n in INTEGERS if abs(n) < 2**31])
            tensor.shape = replaced(tensor.shape, value, rng)
        elif kind == 1:
            op.inputs = replaced(op.inputs, small, rng)
        elif kind == 2:
            op.outputs = replaced(op.outputs, small, rng)
        elif kind == 3:
            tensor.type = int(rng.integers(0, 17))
        elif kind == 4:
            code = some(rng, model.operatorCodes)
            code.builtinCode = int(rng.integers(0, 120))
            code.deprecatedBuiltinCode = code.builtinCode
        elif kind == 5 and tensor.quantization is not None:
            scales = (np.nan, np.inf, 0.0, -1.0, 1e-38, 1e38)
            tensor.quantization.scale = np.asarray([some(rng, scales)] * some(rng, (1, 1, 3)))
            tensor.quantization.zeroPoint = np.asarray([some(rng, INTEGERS)])
        elif kind == 6:
            tensor.buffer = int(rng.integers(0, len(model.buffers) + 2))
        elif op.builtinOptions is not None and vars(op.builtinOptions):
            name = some(rng, list(vars(op.builtinOptions)))
            before = getattr(op.builtinOptions, name)
            if isinstance(before, int):
                after = not before if isinstance(before, bool) else int(rng.integers(0, 100))
                setattr(op.builtinOptions, name, after)
    return TfNet.pack(model)


def rename(data: bytes, rng: Rng) -> bytes:
    """Names that C, a shell, a template or a terminal could take for more."""
    if data[4:8] == b"TFL3":
        tflite = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
        for tensor in tflite.subgraphs[0].tensors:
            tensor.name = some(rng, NAMES)
        tflite.subgraphs[0].name = some(rng, NAMES)
        return TfNet.pack(tflite)
    model = onnx.ModelProto.FromString(data)
    values = {name for node in model.graph.node for name in (*node.input, *node.output) if name}
    new = {name: f"{some(rng, NAMES)}{number}" for number, name in enumerate(sorted(values))}
    for node in model.graph.node:
        node.name = some(rng, NAMES)
        node.input[:] = [new.get(name, "") for name in node.input]
        node.output[:] = [new.get(name, "") for name in node.output]
    for named in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        named.name = new.get(named.name, named.name)
    model.graph.name = some(rng, NAMES)
    return bytes(model.SerializeToString())


def mutated(index: int) -> tuple[bytes, str]:
    """File number `index` and what was done to it."""
    rng = np.random.default_rng(index)
    original = some(rng, originals())
    is_tflite = original[4:8] == b"TFL3"
    structure = change_tflite if is_tflite else change_onnx
    ways: tuple[Callable[[bytes, Rng], bytes], ...] = (
        *(change_bytes, change_bytes, change_bytes, structure, structure, structure, structure),
        *((rename,) if index % 25 == 0 else (cut,)),
    )
    way = rename if index % 25 == 0 else some(rng, ways)
    return way(original, rng), way.__name__


# ---- what becomes of it -------------------------------------------------------------------


def to_integers(path: Path) -> None:
    """Imports, folds, calibrates, quantises."""
    graph = fold(load_model(path))
    shape = graph[graph.inputs[0]].type.shape
    if np.prod(shape) < 1 << 20:
        quantize(calibrate(graph, np.zeros(shape, np.float32)))


def to_c(path: Path) -> None:
    """Compiles; names may only be in comments and, made harmless, in identifiers."""
    graph: Graph = load_model(path)
    _, height, width, channels = graph[graph.inputs[0]].type.shape
    classes = graph[graph.outputs[0]].type.shape[-1]
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (8, height, width, channels)).astype(np.uint8)
    y = np.arange(8, dtype=np.int64) % classes
    dataset = Dataset(x, y, x, y, tuple(NAMES[:classes]))
    program = compile_model(path, dataset, CompileOptions(load_board("mps2-an386"), update="full"))
    for name, text in render_project(program).items():
        assert name.isprintable() and ".." not in name and EVIL not in name, name
        if name.endswith((".c", ".h")):
            check_c(text)


def check_c(text: str) -> None:
    """Where EVIL stands, there is a comment or an identifier; nothing ends a comment early."""
    assert "??/" not in text and all(c.isprintable() or c == "\n" for c in text)
    code = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    code = re.sub(r"//[^\n]*", " ", code)
    assert "*/" not in code
    for match in re.finditer(EVIL, code):
        before, after = code[match.start() - 1], code[match.end()]
        assert before in "_/" or before.isalnum() or before in ' *(&"', code[match.start() - 40 :][
            :80
        ]
        assert f"int {EVIL};" not in code and f"error {EVIL}" not in code and after not in "("


def main() -> None:
    first, count, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for index in range(first, first + count):
        data, way = mutated(index)
        # By content, not by name: half of the names say nothing.
        path = (
            folder / f"{index}{'' if index % 2 else '.tflite' if data[4:8] == b'TFL3' else '.onnx'}"
        )
        path.write_bytes(data)
        began = time.perf_counter()
        try:
            (to_c if way == "rename" else to_integers)(path)
            outcomes[f"{way}: model"] += 1
        except TteError as error:
            assert str(error).replace("\n", "").isprintable(), (index, str(error))
            outcomes[f"{way}: error"] += 1
        except Exception as error:
            raise AssertionError(f"file {index} ({way})") from error
        slowest = max(slowest, time.perf_counter() - began)
        path.unlink()
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"outcomes": outcomes, "slowest_s": slowest, "peak_bytes": peak_kib << 10}))


if __name__ == "__main__":
    main()
