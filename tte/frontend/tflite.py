# SPDX-License-Identifier: Apache-2.0
"""Reads a TensorFlow Lite file into the records of an ONNX file, which the importer then reads.

Each builtin operator becomes the ONNX operator of the same meaning, between DequantizeLinear and
QuantizeLinear with the file's own scales and zero points; what ONNX wants channel first stands
between two Transposes, which the importer makes vanish. The flatbuffer is read through the
schema's published Python package. The file is somebody else's: counts, indices, shapes and sizes
are checked before they are used.

Source: the TensorFlow Lite schema (version 3) and quantisation specification.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tte.errors import TteError
from tte.frontend.onnx import import_file
from tte.frontend.onnx_file import (
    MAX_NAME_CHARS,
    FreeNames,
    OnnxFile,
    OnnxValue,
    file_bytes,
    printable,
)
from tte.frontend.unsupported import unsupported
from tte.ir import Graph
from tte.ops.spec import OnnxNode

if TYPE_CHECKING:
    from types import ModuleType

Array = NDArray[Any]

IDENTIFIER = b"TFL3"  # bytes 4 to 7 of a file
OPSET = 20  # of the ONNX operators that are written
MAX_OPERATORS = 10_000
MAX_TENSORS = 50_000
MAX_INPUTS = 100  # of an operator
MAX_RANK = 8
MAX_CONSTANT_BYTES = 64 << 20  # as often as they are used
MAX_CHANNELS = 0xFFFF
HINT = "convert the network again, with full integer quantisation"
TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


def is_tflite(path: Path) -> bool:
    """By content, or by name where the content cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(8)[4:] == IDENTIFIER or path.suffix.lower() == ".tflite"
    except OSError:
        return path.suffix.lower() == ".tflite"


def load_tflite(path: Path) -> Graph:
    """The float graph of a TensorFlow Lite file; TteError for whatever is wrong with it."""
    return import_file(read_tflite(path), str(path), channels_last=True)


def read_tflite(path: Path) -> OnnxFile:
    """The checked content of a file, in ONNX's terms."""
    data = file_bytes(path, HINT)
    try:
        import tflite
    except ImportError as error:
        raise TteError(
            "a package is missing to read TensorFlow Lite files",
            where=str(path),
            hint="pip install 'tiny-training-engine[tflite]'",
        ) from error
    try:
        return _Reader(tflite, data, path).read()
    except TteError:
        raise
    except Exception as error:  # offsets that lead nowhere raise of every kind
        raise TteError(
            "the model cannot be read",
            where=str(path),
            why=f"it is truncated or corrupt ({type(error).__name__}: {printable(str(error))})",
            hint=HINT,
        ) from error


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor of the file. `name` is unique; `scale` is empty where it is not quantised;
    `unknown`: axes but the first whose sizes are not known (and 1 in `shape`)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: Array | None
    scale: Array
    zero_point: Array
    axis: int
    unknown: tuple[int, ...] = ()

    @property
    def is_quantised(self) -> bool:
        return self.dtype in ("int8", "uint8", "int16") or (
            self.dtype == "int32" and self.scale.size > 0
        )


@dataclass(slots=True)
class _Operator:
    """An operator that is being rewritten, and the ONNX operator that it becomes. `inputs` has None
    for one that is left out."""

    kind: str
    becomes: str
    inputs: tuple[_Tensor | None, ...]
    outputs: tuple[_Tensor, ...]
    options: Callable[[str], Any]  # by the options' class name


@dataclass
class _Nodes:
    """The nodes and constants written so far; values have the names of their tensors."""

    nodes: list[OnnxNode] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    names: FreeNames = field(default_factory=FreeNames)
    constant_bytes: int = 0

    def constant(self, base: str, data: Array) -> str:
        name = self.names.free(base)
        self.constants[name] = data
        self.constant_bytes += data.nbytes
        if self.constant_bytes > MAX_CONSTANT_BYTES:
            raise TteError(
                f"the model's operators use more than {MAX_CONSTANT_BYTES >> 20} MiB of constants",
                why="that is too much for a microcontroller",
            )
        return name

    def add(
        self,
        op_type: str,
        inputs: Sequence[str],
        output: str,
        name: str = "",
        attrs: Mapping[str, Any] | None = None,
    ) -> str:
        present = list(inputs)
        while present and not present[-1]:
            present.pop()
        node = OnnxNode(op_type, name, tuple(present), (output,), dict(attrs or {}), OPSET)
        self.nodes.append(node)
        return output


class _Reader:
    def __init__(self, schema: ModuleType, data: bytes, path: Path) -> None:
        self.schema = schema
        self.data = data
        self.path = path
        self.out = _Nodes()
        self.real: dict[str, str] = {}  # tensor -> its real value
        self.produced: set[str] = set()
        self.op = _Operator("", "", (), (), lambda name: None)

    def error(self, what: str, why: str = "", hint: str = "") -> TteError:
        return TteError(what, where=str(self.path), why=why, hint=hint)

    def fail(self, why: str, hint: str = "") -> TteError:
        """An error that names the operator."""
        name = self.op.outputs[0].name if self.op.outputs else "?"
        return self.error(f"operator {name!r} ({self.op.kind}) cannot be imported", why, hint)

    # ---- the file -------------------------------------------------------------------------

    def read(self) -> OnnxFile:
        if self.data[4:8] != IDENTIFIER:
            raise self.error("the model is not a TensorFlow Lite file", hint=HINT)
        model = self.schema.Model.GetRootAs(self.data, 0)
        if model.Version() != 3:
            raise self.error(
                f"version {model.Version()} of the TensorFlow Lite schema is not supported",
                "version 3 is",
            )
        if model.SubgraphsLength() != 1:
            raise self.error(
                f"the model has {model.SubgraphsLength()} subgraphs",
                "one is supported; control flow is not",
            )
        graph = model.Subgraphs(0)
        self.check_counts(model, graph)
        kinds = self.operator_kinds(model)
        operators = self.live(graph, kinds)
        self.check_supported([self.kind(op, kinds) for op in operators])
        tensors = self.tensors(model, graph)
        inputs = [self.at(tensors, index) for index in self.indices(graph, "Inputs")]
        outputs = [self.at(tensors, index) for index in self.indices(graph, "Outputs")]
        for tensor in inputs:
            self.enter(tensor)
        for op in operators:
            self.rewrite(self.kind(op, kinds), op, tensors)
        return OnnxFile(
            name=self.text(graph.Name())[:80] or "model",
            opset=OPSET,
            nodes=tuple(self.out.nodes),
            constants=self.out.constants,
            inputs=tuple(
                OnnxValue(t.name, "float" if t.dtype == "float32" else t.dtype, t.shape)
                for t in inputs
            ),
            outputs=tuple(OnnxValue(self.value(t), "float", None) for t in outputs),
        )

    def text(self, data: bytes | None) -> str:
        """A name, which may be missing."""
        if data is not None and len(data) > MAX_NAME_CHARS:
            raise self.error(
                f"the name {printable(data[:40])!r}... has {len(data)} bytes",
                f"at most {MAX_NAME_CHARS} are read",
            )
        return printable(data or b"")

    def check_counts(self, model: Any, graph: Any) -> None:
        """Vectors of a hostile file may claim any length, and may overlap."""
        for what, count, most in (
            ("operators", graph.OperatorsLength(), MAX_OPERATORS),
            ("tensors", graph.TensorsLength(), MAX_TENSORS),
            ("buffers", model.BuffersLength(), MAX_TENSORS),
            ("operator codes", model.OperatorCodesLength(), MAX_OPERATORS),
        ):
            if not 0 < count <= most:
                raise self.error(f"the model has {count} {what}", f"1 to {most} are read", HINT)

    def indices(self, table: Any, field_name: str) -> list[int]:
        """A vector of tensor indices."""
        if getattr(table, f"{field_name}Length")() > MAX_INPUTS:
            raise self.error(f"there are more than {MAX_INPUTS} {field_name.lower()}", "", HINT)
        found = getattr(table, f"{field_name}AsNumpy")()
        return [] if isinstance(found, int) else [int(index) for index in found]

    def at(self, tensors: Sequence[_Tensor], index: int) -> _Tensor:
        if not 0 <= index < len(tensors):
            raise self.error(f"the model has no tensor {index}", "it is corrupt", HINT)
        return tensors[index]

    def operator_kinds(self, model: Any) -> list[str]:
        names = {
            value: name
            for name, value in vars(self.schema.BuiltinOperator).items()
            if isinstance(value, int)
        }
        kinds = []
        for index in range(model.OperatorCodesLength()):
            code = model.OperatorCodes(index)
            builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            kind = names.get(builtin, f"number {builtin}")
            if kind == "CUSTOM":
                kind = f"CUSTOM {self.text(code.CustomCode())[:80]!r}"
            kinds.append(kind)
        return kinds

    def kind(self, op: Any, kinds: Sequence[str]) -> str:
        index = op.OpcodeIndex()
        if index >= len(kinds):
            raise self.error(f"the model has no operator code {index}", "it is corrupt", HINT)
        return kinds[index]

    def live(self, graph: Any, kinds: Sequence[str]) -> list[Any]:
        """The operators that the output needs, in the file's order."""
        needed, found = set(self.indices(graph, "Outputs")), []
        for position in reversed(range(graph.OperatorsLength())):
            op = graph.Operators(position)
            if needed & {*self.indices(op, "Outputs")}:
                found.append(op)
                inputs = self.indices(op, "Inputs")
                shape = _SHAPE_INPUTS.get(self.kind(op, kinds))
                needed.update(index for i, index in enumerate(inputs) if i != shape)
        return found[::-1]

    def check_supported(self, kinds: Sequence[str]) -> None:
        """All operators are known, or an error that counts those that are not."""
        unknown = Counter(kind for kind in kinds if kind not in _RULES)
        if unknown:
            raise unsupported(next(iter(unknown)), unknown, _RULES, str(self.path))

    # ---- tensors --------------------------------------------------------------------------

    def tensors(self, model: Any, graph: Any) -> list[_Tensor]:
        types = {
            value: name.lower()
            for name, value in vars(self.schema.TensorType).items()
            if isinstance(value, int)
        }
        return [
            self.tensor(model, graph.Tensors(index), index, types)
            for index in range(graph.TensorsLength())
        ]

    def tensor(self, model: Any, table: Any, index: int, types: Mapping[int, str]) -> _Tensor:
        name = self.text(table.Name())
        name = self.out.names.free(name or f"tensor {index}")
        dtype = types.get(table.Type(), f"type {table.Type()}")
        rank = table.ShapeLength()
        if rank > MAX_RANK:
            raise self.error(
                f"tensor {name!r} has {rank} dimensions", f"at most {MAX_RANK} are read"
            )
        shape = tuple(int(table.Shape(axis)) for axis in range(rank))
        if any(size < 0 for size in shape):
            raise self.error(f"tensor {name!r} has the shape {list(shape)}", "a size is negative")
        if table.IsVariable() or table.Sparsity() is not None:
            raise self.error(f"tensor {name!r} is a state or sparse, which is not supported")
        scale = np.zeros(0, np.float32)
        zero_point, axis = np.zeros(0, np.int64), 0
        quant = table.Quantization()
        if quant is not None:
            scale = _vector(quant.ScaleAsNumpy(), scale)
            zero_point = _vector(quant.ZeroPointAsNumpy(), zero_point)
            axis = int(quant.QuantizedDimension())
        if max(scale.size, zero_point.size) > MAX_CHANNELS:
            raise self.error(f"tensor {name!r} has {scale.size} scales", f"at most {MAX_CHANNELS}")
        if scale.size > 1 and not (0 <= axis < rank and scale.size == shape[axis]):
            raise self.error(
                f"tensor {name!r} of shape {list(shape)} has {scale.size} scales along axis {axis}"
            )
        if zero_point.size not in (0, scale.size):
            raise self.error(f"tensor {name!r}: {zero_point.size} zero points, {scale.size} scales")
        data = self.content(model, table, name, dtype, shape)
        signature = range(1, rank if table.ShapeSignatureLength() == rank else 0)
        unknown = tuple(axis for axis in signature if table.ShapeSignature(axis) == -1)
        return _Tensor(name, shape, dtype, data, scale, zero_point, axis, unknown)

    def content(
        self, model: Any, table: Any, name: str, dtype: str, shape: tuple[int, ...]
    ) -> Array | None:
        """A constant's values, not copied; None where the file has none."""
        if table.Buffer() >= model.BuffersLength():
            raise self.error(f"tensor {name!r} is in buffer {table.Buffer()}, which is missing")
        buffer = model.Buffers(table.Buffer())
        if buffer is None or buffer.DataLength() == 0:
            if buffer is not None and buffer.Size() > 1:
                raise self.error(f"tensor {name!r} lies outside of the flatbuffer")
            return None
        if dtype not in _ITEM_BYTES:
            raise self.error(f"the constant {name!r} is of the unsupported type {dtype}")
        raw = buffer.DataAsNumpy()
        wanted = math.prod(shape) * _ITEM_BYTES[dtype]
        if raw.nbytes != wanted:
            raise self.error(
                f"tensor {name!r} of shape {list(shape)} ({dtype}) holds {raw.nbytes} bytes",
                f"needed are {wanted}",
                HINT,
            )
        return raw.view(dtype).reshape(shape)

    # ---- values ---------------------------------------------------------------------------

    def enter(self, tensor: _Tensor) -> None:
        """The model's input."""
        self.produced.add(tensor.name)
        self.real[tensor.name] = tensor.name
        if tensor.is_quantised:
            self.real[tensor.name] = self.dequantised(tensor, tensor.name)

    def quantisation(self, tensor: _Tensor) -> tuple[str, str]:
        """Constants: scale and zero point."""
        if tensor.scale.size == 0:
            raise self.error(
                f"tensor {tensor.name!r} is {tensor.dtype} without a scale",
                hint="convert the network again, with full integer quantisation",
            )
        limits = np.iinfo(tensor.dtype)
        zero_point = tensor.zero_point if tensor.zero_point.size else np.zeros(tensor.scale.size)
        if zero_point.min() < limits.min or zero_point.max() > limits.max:
            raise self.error(f"tensor {tensor.name!r} has a zero point that is no {tensor.dtype}")
        shape: tuple[int, ...] = () if tensor.scale.size == 1 else (tensor.scale.size,)
        return (
            self.out.constant(f"{tensor.name}_scale", tensor.scale.reshape(shape)),
            self.out.constant(
                f"{tensor.name}_zero_point", zero_point.astype(tensor.dtype).reshape(shape)
            ),
        )

    def dequantised(self, tensor: _Tensor, codes: str, axis: int = 0) -> str:
        """Adds a DequantizeLinear of codes; returns its output."""
        inputs = [codes, *self.quantisation(tensor)]
        attrs = {"axis": axis} if tensor.scale.size > 1 else {}
        output = self.out.names.free(f"{tensor.name}_dequantized")
        return self.out.add("DequantizeLinear", inputs, output, attrs=attrs)

    def constant(
        self, tensor: _Tensor, layout: tuple[int, ...] | None = None, base: str = ""
    ) -> str:
        """A constant's real value; with `layout`, its axes in another order."""
        data = tensor.data
        if data is None:
            raise self.fail(f"its input {tensor.name!r} must be a constant")
        axis = tensor.axis
        if layout is not None:
            if data.ndim != len(layout):
                raise self.fail(f"its input {tensor.name!r} has the shape {list(tensor.shape)}")
            data, axis = data.transpose(layout), layout.index(axis) if axis in layout else 0
        name = self.out.constant(base or f"{tensor.name}_constant", data)
        return self.dequantised(tensor, name, axis) if tensor.is_quantised else name

    def value(self, tensor: _Tensor) -> str:
        """The real value of an activation or a constant."""
        if tensor.name in self.real:
            return self.real[tensor.name]
        if tensor.data is None:
            raise self.error(
                f"tensor {tensor.name!r} is read before any operator gives it",
                "the operators are out of order or form a cycle",
            )
        self.real[tensor.name] = self.constant(tensor)
        return self.real[tensor.name]

    def finish(self, tensor: _Tensor, value: str) -> None:
        """`value` is the real value of an operator's output, before it is rounded to codes."""
        if tensor.name in self.produced or tensor.data is not None:
            raise self.error(f"tensor {tensor.name!r} is given twice")
        self.produced.add(tensor.name)
        self.real[tensor.name] = value
        if tensor.is_quantised:
            inputs = [value, *self.quantisation(tensor)]
            codes = self.out.add(
                "QuantizeLinear", inputs, self.out.names.free(f"{tensor.name}_codes")
            )
            self.real[tensor.name] = self.dequantised(tensor, codes)

    # ---- operators ------------------------------------------------------------------------

    def rewrite(self, kind: str, op: Any, tensors: Sequence[_Tensor]) -> None:
        """Writes the nodes of an operator."""
        inputs = [
            None if index == -1 else self.at(tensors, index) for index in self.indices(op, "Inputs")
        ]
        outputs = [self.at(tensors, index) for index in self.indices(op, "Outputs")]

        def options(name: str) -> Any:
            table = op.BuiltinOptions()
            expected = getattr(self.schema.BuiltinOptions, name)
            found = getattr(self.schema, name)()
            if table is None or op.BuiltinOptionsType() != expected:
                return None
            found.Init(table.Bytes, table.Pos)
            return found

        becomes, rule = _RULES[kind]
        self.op = _Operator(kind, becomes, tuple(inputs), tuple(outputs), options)
        if not outputs:
            raise self.fail("it has no output")
        rule(self)

    def input(self, position: int) -> _Tensor:
        tensor = self.op.inputs[position] if position < len(self.op.inputs) else None
        if tensor is None:
            raise self.fail(f"its input {position} is missing")
        return tensor

    def optional(self, position: int) -> _Tensor | None:
        return self.op.inputs[position] if position < len(self.op.inputs) else None

    def integers(self, position: int) -> list[int]:
        """A constant input of integers: a shape, axes, paddings."""
        tensor = self.input(position)
        if tensor.data is None or tensor.dtype not in ("int32", "int64") or tensor.data.size > 64:
            raise self.fail(f"its input {tensor.name!r} must be a constant of a few integers")
        return [int(number) for number in tensor.data.reshape(-1)]

    def options(self, name: str) -> Any:
        """The operator's options; an error where it has none."""
        found = self.op.options(name)
        if found is None:
            raise self.fail(f"it has no {name}", HINT)
        return found

    def map_shape(self, tensor: _Tensor) -> tuple[int, ...]:
        if len(tensor.shape) != 4:
            raise self.fail(f"{tensor.name!r} of shape {list(tensor.shape)} is no map (NHWC)")
        return tensor.shape

    def emit(
        self,
        op_type: str,
        inputs: Sequence[str],
        attrs: Mapping[str, Any] | None = None,
        activation: int = 0,
        channel_first: bool = False,
    ) -> None:
        """The node that does the operator's work, its fused activation, and its output. The last
        real value has the output tensor's own name."""
        output = self.op.outputs[0]
        fused = self.activation(activation)
        result = output.name if fused is None else self.out.names.free(f"{output.name}_linear")
        if channel_first:
            moved = self.out.names.free(f"{output.name}_input")
            self.out.add("Transpose", inputs[:1], moved, attrs={"perm": TO_NCHW})
            inputs = [moved, *inputs[1:]]
        self.out.add(op_type, inputs, result, output.name, attrs)
        if fused is not None:
            name, bounds = fused
            result = self.out.add(name, [result, *bounds], output.name)
        if channel_first:
            moved = self.out.names.free(f"{output.name}_nhwc")
            result = self.out.add("Transpose", [result], moved, attrs={"perm": TO_NHWC})
        self.finish(output, result)

    def activation(self, kind: int) -> tuple[str, list[str]] | None:
        """A fused activation: operator and bounds."""
        functions = self.schema.ActivationFunctionType
        if kind == functions.NONE:
            return None
        if kind == functions.RELU:
            return "Relu", []
        if kind == functions.RELU6:
            return "Clip", self.bounds(0, 6)
        if kind == functions.RELU_N1_TO_1:
            return "Clip", self.bounds(-1, 1)
        if kind == functions.TANH:
            return "Tanh", []
        raise self.fail(f"its fused activation function {kind} is not supported")

    def bounds(self, low: float, high: float) -> list[str]:
        name = self.op.outputs[0].name
        return [
            self.out.constant(f"{name}_min", np.asarray(low, np.float32)),
            self.out.constant(f"{name}_max", np.asarray(high, np.float32)),
        ]

    def shape_constant(self, values: Sequence[int], what: str) -> str:
        return self.out.constant(
            f"{self.op.outputs[0].name}_{what}", np.asarray(list(values), np.int64)
        )

    # ---- layers ---------------------------------------------------------------------------

    def auto_pad(self, padding: int) -> str:
        found = {
            self.schema.Padding.SAME: "SAME_UPPER",
            self.schema.Padding.VALID: "VALID",
        }.get(padding)
        if found is None:
            raise self.fail(f"its padding {padding} is unknown")
        return found

    def convolution(self, depthwise: bool) -> None:
        """CONV_2D (weights OHWI) and DEPTHWISE_CONV_2D (weights 1HWO)."""
        options = self.options("DepthwiseConv2DOptions" if depthwise else "Conv2DOptions")
        x, weight = self.input(0), self.input(1)
        in_c, kernel = self.map_shape(x)[3], self.map_shape(weight)
        share = 1 if depthwise else kernel[3]
        if share < 1 or in_c % share:
            raise self.fail(f"weights of shape {list(kernel)} do not fit {in_c} channels")
        layout = (3, 0, 1, 2) if depthwise else TO_NCHW
        inputs = [self.value(x), self.constant(weight, layout), self.bias(2)]
        attrs = {
            "auto_pad": self.auto_pad(options.Padding()),
            "strides": (options.StrideH(), options.StrideW()),
            "dilations": (options.DilationHFactor(), options.DilationWFactor()),
            "group": in_c // share,
        }
        self.emit("Conv", inputs, attrs, options.FusedActivationFunction(), channel_first=True)

    def bias(self, position: int) -> str:
        tensor = self.optional(position)
        return "" if tensor is None else self.constant(tensor)

    def transposed_convolution(self) -> None:
        """TRANSPOSE_CONV: the adjoint of a convolution that gives a map of the input's size."""
        options = self.options("TransposeConvOptions")
        weight, x, output = self.input(1), self.input(2), self.op.outputs[0]
        kernel, in_shape, shape = map(self.map_shape, (weight, x, output))
        strides = (options.StrideH(), options.StrideW())
        begin, end, more = [], [], []
        for axis, stride in zip((1, 2), strides, strict=True):
            spare = (in_shape[axis] - 1) * stride + kernel[axis] - shape[axis]
            same = self.auto_pad(options.Padding()) == "SAME_UPPER"
            begin.append(max(spare, 0) // 2 if same else 0)
            end.append(max(spare, 0) - begin[-1])
            more.append(max(-spare, 0))
        inputs = [self.value(x), self.constant(weight, (3, 0, 1, 2)), self.bias(3)]
        attrs = {"strides": strides, "pads": (*begin, *end), "output_padding": tuple(more)}
        fused = options.FusedActivationFunction()
        self.emit("ConvTranspose", inputs, attrs, fused, channel_first=True)

    def fully_connected(self) -> None:
        """FULLY_CONNECTED: the input becomes rows as long as the weights' (out, in)."""
        options = self.options("FullyConnectedOptions")
        x, weight = self.input(0), self.input(1)
        if options.WeightsFormat() != 0 or len(weight.shape) != 2:
            raise self.fail("its weights are shuffled or no matrix", HINT)
        value, fused = self.value(x), options.FusedActivationFunction()
        if options.KeepNumDims() and len(x.shape) != 2:
            inputs = [value, self.constant(weight, (1, 0))]
            bias = self.bias(2)
            if bias:
                product = self.out.names.free(f"{self.op.outputs[0].name}_product")
                inputs = [self.out.add("MatMul", inputs, product), bias]
            self.emit("Add" if bias else "MatMul", inputs, {}, fused)
            return
        if len(x.shape) != 2:
            rows = self.shape_constant((-1, weight.shape[1]), "rows")
            flat = self.out.names.free(f"{self.op.outputs[0].name}_flat")
            value = self.out.add("Reshape", [value, rows], flat)
        inputs = [value, self.constant(weight), self.bias(2)]
        self.emit("Gemm", inputs, {"transB": 1}, fused)

    def pool(self) -> None:
        """AVERAGE_POOL_2D (padding is not counted) and MAX_POOL_2D."""
        options = self.options("Pool2DOptions")
        self.map_shape(self.input(0))
        attrs = {
            "auto_pad": self.auto_pad(options.Padding()),
            "strides": (options.StrideH(), options.StrideW()),
            "kernel_shape": (options.FilterHeight(), options.FilterWidth()),
        }
        fused = options.FusedActivationFunction()
        value = self.value(self.input(0))
        self.emit(self.op.becomes, [value], attrs, fused, channel_first=True)

    def reduction(self) -> None:
        """MEAN and REDUCE_MAX over constant axes."""
        options = self.options("ReducerOptions")
        inputs = [self.value(self.input(0)), self.shape_constant(self.integers(1), "axes")]
        self.emit(self.op.becomes, inputs, {"keepdims": int(options.KeepDims())})

    # ---- element-wise ---------------------------------------------------------------------

    def binary(self) -> None:
        """ADD, SUB, MUL."""
        options = self.op.options(f"{self.op.becomes}Options")
        fused = 0 if options is None else options.FusedActivationFunction()
        inputs = [self.value(self.input(0)), self.value(self.input(1))]
        self.emit(self.op.becomes, inputs, {}, fused)

    def unary(self) -> None:
        self.emit(self.op.becomes, [self.value(self.input(0))])

    def clip(self, low: float, high: float) -> None:
        self.emit("Clip", [self.value(self.input(0)), *self.bounds(low, high)])

    def leaky_relu(self) -> None:
        alpha = float(self.options("LeakyReluOptions").Alpha())
        self.emit("LeakyRelu", [self.value(self.input(0))], {"alpha": alpha})

    def gelu(self) -> None:
        options = self.op.options("GeluOptions")
        form = "tanh" if options is not None and options.Approximate() else "none"
        self.emit("Gelu", [self.value(self.input(0))], {"approximate": form})

    def softmax(self) -> None:
        """SOFTMAX along the last axis."""
        beta = self.options("SoftmaxOptions").Beta()
        if beta != 1.0:
            raise self.fail(f"its beta {beta} is not 1")
        self.emit("Softmax", [self.value(self.input(0))], {"axis": -1})

    def quantize(self) -> None:
        """QUANTIZE and DEQUANTIZE: the value stays, only what stands for it changes."""
        self.finish(self.op.outputs[0], self.value(self.input(0)))

    # ---- moving elements ------------------------------------------------------------------

    def reshape(self) -> None:
        """RESHAPE, SQUEEZE and EXPAND_DIMS: the output's shape says it all."""
        output = self.op.outputs[0]
        if any(size < 1 for size in output.shape):
            raise self.fail(f"its output has the shape {list(output.shape)}")
        sizes = [-1 if axis in output.unknown else n for axis, n in enumerate(output.shape)]
        shape = self.shape_constant(sizes, "shape")
        self.emit("Reshape", [self.value(self.input(0)), shape])

    def transpose(self) -> None:
        perm = self.integers(1)
        self.emit("Transpose", [self.value(self.input(0))], {"perm": tuple(perm)})

    def tile(self) -> None:
        repeats = self.shape_constant(self.integers(1), "repeats")
        self.emit("Tile", [self.value(self.input(0)), repeats])

    def blocks(self) -> None:
        """DEPTH_TO_SPACE and SPACE_TO_DEPTH."""
        self.map_shape(self.input(0))
        size = self.options(f"{self.op.becomes}Options").BlockSize()
        inputs = [self.value(self.input(0))]
        self.emit(self.op.becomes, inputs, {"blocksize": int(size)}, channel_first=True)

    def pad(self) -> None:
        """PAD and PADV2: rows of (before, after), and the value."""
        pads, rank = self.integers(1), len(self.input(0).shape)
        if len(pads) != 2 * rank:
            raise self.fail(f"{len(pads)} paddings do not fit {rank} dimensions")
        sizes = self.shape_constant((*pads[::2], *pads[1::2]), "pads")
        inputs = [self.value(self.input(0)), sizes]
        if self.op.kind == "PADV2":
            inputs.append(self.value(self.input(2)))
        self.emit("Pad", inputs)

    def concatenation(self) -> None:
        options = self.options("ConcatenationOptions")
        parts = [self.value(self.input(position)) for position in range(len(self.op.inputs))]
        fused = options.FusedActivationFunction()
        self.emit("Concat", parts, {"axis": int(options.Axis())}, fused)

    def cut(self, value: str, cuts: Sequence[tuple[int, int, int, int]], output: str) -> str:
        """A Slice: (axis, start, end, step) each."""
        columns = [[cut[column] for cut in cuts] for column in (1, 2, 0, 3)]
        names = ("starts", "ends", "axes", "steps")
        inputs = [
            self.shape_constant(column, name) for column, name in zip(columns, names, strict=True)
        ]
        return self.out.add("Slice", [value, *inputs], output, output)

    def strided_slice(self) -> None:
        """STRIDED_SLICE without new axes: masks leave bounds open or drop an axis."""
        options = self.options("StridedSliceOptions")
        x, output = self.input(0), self.op.outputs[0]
        if options.EllipsisMask() or options.NewAxisMask() or options.Offset():
            raise self.fail("an ellipsis, a new axis or relative ends are not supported")
        begin, end, strides = (self.integers(position) for position in (1, 2, 3))
        if not len(begin) == len(end) == len(strides) <= len(x.shape) or 0 in strides:
            raise self.fail(f"begin, end and strides do not fit {len(x.shape)} dimensions")
        far, cuts, dropped = 2**31 - 1, [], []
        for axis, (start, stop, step) in enumerate(zip(begin, end, strides, strict=True)):
            bit = 1 << axis
            if options.ShrinkAxisMask() & bit:
                stop, step = (start + 1 if start != -1 else far), 1
                dropped.append(axis)
            else:
                if options.BeginMask() & bit:
                    start = 0 if step > 0 else far
                if options.EndMask() & bit:
                    stop = far if step > 0 else -far
            cuts.append((axis, start, stop, step))
        if not dropped:
            self.finish(output, self.cut(self.value(x), cuts, output.name))
            return
        part = self.cut(self.value(x), cuts, self.out.names.free(f"{output.name}_part"))
        self.emit("Squeeze", [part, self.shape_constant(dropped, "dropped")])

    def slice(self) -> None:
        """SLICE: begin and size, where -1 is the rest."""
        begin, size, rank = self.integers(1), self.integers(2), len(self.input(0).shape)
        if not len(begin) == len(size) == rank:
            raise self.fail(f"begin and size do not fit {rank} dimensions")
        cuts = [
            (axis, start, 2**31 - 1 if count == -1 else start + count, 1)
            for axis, (start, count) in enumerate(zip(begin, size, strict=True))
        ]
        output = self.op.outputs[0]
        self.finish(output, self.cut(self.value(self.input(0)), cuts, output.name))

    def split(self) -> None:
        """SPLIT in equal parts, SPLIT_V in parts of given sizes: a Slice for each."""
        equal = self.op.kind == "SPLIT"
        x, axes = self.input(1 if equal else 0), self.integers(0 if equal else 2)
        rank, count = len(x.shape), len(self.op.outputs)
        if len(axes) != 1 or not -rank <= axes[0] < rank:
            raise self.fail(f"axis {axes} is none of {rank} dimensions")
        axis = axes[0] % rank
        sizes = [x.shape[axis] // count] * count if equal else self.integers(1)
        if len(sizes) == count and sizes.count(-1) == 1:
            sizes[sizes.index(-1)] = x.shape[axis] - sum(sizes) - 1
        if len(sizes) != count or sum(sizes) != x.shape[axis] or min(sizes) < 1:
            raise self.fail(f"{x.shape[axis]} elements do not split into parts of {sizes}")
        value, start = self.value(x), 0
        for output, size in zip(self.op.outputs, sizes, strict=True):
            self.finish(output, self.cut(value, [(axis, start, start + size, 1)], output.name))
            start += size

    def resize_nearest(self) -> None:
        """RESIZE_NEAREST_NEIGHBOR to a constant height and width."""
        options = self.options("ResizeNearestNeighborOptions")
        n, _, _, channels = self.map_shape(self.input(0))
        size = self.integers(1)
        if len(size) != 2:
            raise self.fail(f"its size {size} is not a height and a width")
        attrs = {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        }
        if options.AlignCorners() or options.HalfPixelCenters():
            mode = "align_corners" if options.AlignCorners() else "half_pixel"
            attrs["coordinate_transformation_mode"] = mode
            attrs["nearest_mode"] = "round_prefer_ceil"
        sizes = self.shape_constant((n, channels, *size), "sizes")
        inputs = [self.value(self.input(0)), "", "", sizes]
        self.emit("Resize", inputs, attrs, channel_first=True)


def _vector(found: Any, default: Array) -> Array:
    """A vector as numpy; the schema's package gives 0 where there is none."""
    return default if isinstance(found, int) else found


_ITEM_BYTES = {
    "float32": 4, "float16": 2, "float64": 8, "bool": 1, "int8": 1, "uint8": 1, "int16": 2,
    "int32": 4, "int64": 8,
}  # fmt: skip

# Operator -> the ONNX operator that it becomes, and how.
_RULES: dict[str, tuple[str, Callable[[_Reader], None]]] = {
    "CONV_2D": ("Conv", lambda r: r.convolution(depthwise=False)),
    "DEPTHWISE_CONV_2D": ("Conv", lambda r: r.convolution(depthwise=True)),
    "TRANSPOSE_CONV": ("ConvTranspose", _Reader.transposed_convolution),
    "FULLY_CONNECTED": ("Gemm", _Reader.fully_connected),
    "AVERAGE_POOL_2D": ("AveragePool", _Reader.pool),
    "MAX_POOL_2D": ("MaxPool", _Reader.pool),
    "MEAN": ("ReduceMean", _Reader.reduction),
    "REDUCE_MAX": ("ReduceMax", _Reader.reduction),
    "ADD": ("Add", _Reader.binary),
    "SUB": ("Sub", _Reader.binary),
    "MUL": ("Mul", _Reader.binary),
    "RELU": ("Relu", _Reader.unary),
    "RELU6": ("Clip", lambda r: r.clip(0, 6)),
    "RELU_N1_TO_1": ("Clip", lambda r: r.clip(-1, 1)),
    "RELU_0_TO_1": ("Clip", lambda r: r.clip(0, 1)),
    "LEAKY_RELU": ("LeakyRelu", _Reader.leaky_relu),
    "LOGISTIC": ("Sigmoid", _Reader.unary),
    "TANH": ("Tanh", _Reader.unary),
    "HARD_SWISH": ("HardSwish", _Reader.unary),
    "ABS": ("Abs", _Reader.unary),
    "ELU": ("Elu", _Reader.unary),
    "EXP": ("Exp", _Reader.unary),
    "GELU": ("Gelu", _Reader.gelu),
    "SOFTMAX": ("Softmax", _Reader.softmax),
    "QUANTIZE": ("QuantizeLinear", _Reader.quantize),
    "DEQUANTIZE": ("DequantizeLinear", _Reader.quantize),
    "RESHAPE": ("Reshape", _Reader.reshape),
    "SQUEEZE": ("Squeeze", _Reader.reshape),
    "EXPAND_DIMS": ("Unsqueeze", _Reader.reshape),
    "TRANSPOSE": ("Transpose", _Reader.transpose),
    "DEPTH_TO_SPACE": ("DepthToSpace", _Reader.blocks),
    "SPACE_TO_DEPTH": ("SpaceToDepth", _Reader.blocks),
    "TILE": ("Tile", _Reader.tile),
    "PAD": ("Pad", _Reader.pad),
    "PADV2": ("Pad", _Reader.pad),
    "CONCATENATION": ("Concat", _Reader.concatenation),
    "STRIDED_SLICE": ("Slice", _Reader.strided_slice),
    "SLICE": ("Slice", _Reader.slice),
    "SPLIT": ("Split", _Reader.split),
    "SPLIT_V": ("Split", _Reader.split),
    "RESIZE_NEAREST_NEIGHBOR": ("Resize", _Reader.resize_nearest),
}
BECOMES = {kind: op_type for kind, (op_type, _) in _RULES.items()}
# Inputs that say what the output's shape says already: a batch of unknown size is in them, and
# what computes it (SHAPE, STRIDED_SLICE, PACK) is not read.
_SHAPE_INPUTS = {"RESHAPE": 1, "SQUEEZE": 1, "EXPAND_DIMS": 1, "TRANSPOSE_CONV": 0}
