# SPDX-License-Identifier: Apache-2.0
"""Small int8 TensorFlow Lite models for the tests, written operator by operator."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from tests import tflite_worker
from tests.layerwise import Codes
from tte.ir import QuantParams

Array = NDArray[Any]

UNIT = (0.025, 3)  # scale and zero point of numbers about one
FIRST_VERSION = (
    "ELU",
    "EXPAND_DIMS",
    "HARD_SWISH",
    "RELU_0_TO_1",
    "RELU_N1_TO_1",
    "RESHAPE",
)  # these operators have one alone
RELU, RELU6 = schema.ActivationFunctionType.RELU, schema.ActivationFunctionType.RELU6
SAME, VALID = schema.Padding.SAME, schema.Padding.VALID


@dataclass(frozen=True)
class Ref:
    """A tensor of a model that grows."""

    index: int
    shape: tuple[int, ...]


class TfNet:
    """A model that grows: each method adds an operator and returns its output."""

    def __init__(
        self,
        shape: Sequence[int],
        seed: int = 0,
        quant: tuple[float, int] | None = UNIT,
        dtype: str = "int8",
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.model = schema.ModelT()
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators, self.graph.name = [], [], "main"
        self.model.version, self.model.description = 3, "test"
        self.model.subgraphs, self.model.operatorCodes = [self.graph], []
        self.model.buffers = [schema.BufferT()]
        self.x = self.tensor(shape, quant, name="x", dtype=dtype)
        self.graph.inputs = [self.x.index]

    # ---- tensors --------------------------------------------------------------------------

    def tensor(
        self,
        shape: Sequence[int],
        quant: tuple[Any, int] | None = None,
        data: Array | None = None,
        axis: int = 0,
        name: str = "",
        dtype: str = "int8",
    ) -> Ref:
        """Any tensor; `quant`: scale (or one per channel along `axis`) and zero point."""
        tensor = schema.TensorT()
        tensor.shape = [int(size) for size in shape]
        tensor.type = getattr(
            schema.TensorType, (str(data.dtype) if data is not None else dtype).upper()
        )
        tensor.name = name or f"t{len(self.graph.tensors)}"
        tensor.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        if quant is not None:
            scale = np.atleast_1d(np.asarray(quant[0], np.float32))
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = scale
            tensor.quantization.zeroPoint = np.full(scale.size, quant[1], np.int64)
            tensor.quantization.quantizedDimension = axis
        self.graph.tensors.append(tensor)
        return Ref(len(self.graph.tensors) - 1, tuple(int(size) for size in shape))

    def integers(self, values: Any) -> Ref:
        """A constant of int32 numbers."""
        data = np.asarray(values, np.int32)
        return self.tensor(data.shape, data=data)

    def codes(self, shape: Sequence[int], quant: tuple[float, int] = UNIT) -> Ref:
        """A constant of int8 codes."""
        return self.tensor(shape, quant, self.rng.integers(-128, 128, shape).astype(np.int8))

    def scale(self, ref: Ref) -> float:
        return float(self.graph.tensors[ref.index].quantization.scale[0])

    def weights(
        self, x: Ref, shape: Sequence[int], axis: int, fan_in: int, per_channel: bool = True
    ) -> list[Ref]:
        """int8 weights whose sums are about as large as the input, and an int32 bias."""
        channels = shape[axis]
        scale = self.rng.uniform(0.5, 1.5, channels if per_channel else 1) / np.sqrt(fan_in) / 60
        codes = self.rng.normal(0, 50, shape).clip(-127, 127).astype(np.int8)
        weight = self.tensor(shape, (scale, 0), codes, axis)
        bias_scale = (scale * self.scale(x)).astype(np.float32)
        bias = (self.rng.normal(0, 0.3, channels) / bias_scale).astype(np.int32)
        return [weight, self.tensor((channels,), (bias_scale, 0), bias)]

    # ---- operators ------------------------------------------------------------------------

    def op(
        self,
        kind: str,
        inputs: Sequence[Ref | None],
        shape: Sequence[int],
        quant: tuple[float, int] | None = UNIT,
        options: str = "",
        **fields: Any,
    ) -> Ref:
        """Any operator with one output; `options` is the class of its options."""
        (output,) = self.op_of_many(kind, inputs, [shape], quant, options, **fields)
        return output

    def op_of_many(
        self,
        kind: str,
        inputs: Sequence[Ref | None],
        shapes: Sequence[Sequence[int]],
        quant: tuple[float, int] | None = UNIT,
        options: str = "",
        **fields: Any,
    ) -> list[Ref]:
        """An operator with several outputs."""
        outputs = [
            self.tensor(shape, quant, dtype="int8" if quant else "float32") for shape in shapes
        ]
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = 1 if kind in FIRST_VERSION else 2
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes)
        self.model.operatorCodes.append(code)
        operator.inputs = [-1 if ref is None else ref.index for ref in inputs]
        operator.outputs = [ref.index for ref in outputs]
        if options:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, f"{options}T")()
            for name, value in fields.items():
                assert hasattr(operator.builtinOptions, name), name
                setattr(operator.builtinOptions, name, value)
        self.graph.operators.append(operator)
        return outputs

    def conv(
        self,
        x: Ref,
        out_c: int,
        kernel: int = 3,
        stride: int = 1,
        padding: int = SAME,
        quant: tuple[float, int] = UNIT,
        activation: int = 0,
        per_channel: bool = True,
        dilation: int = 1,
        groups: int = 1,
    ) -> Ref:
        """CONV_2D."""
        in_c = x.shape[3] // groups
        shape = (out_c, kernel, kernel, in_c)
        weights = self.weights(x, shape, 0, kernel * kernel * in_c, per_channel)
        return self.op(
            "CONV_2D",
            [x, *weights],
            (*window(x.shape, kernel, stride, padding, dilation), out_c),
            quant,
            "Conv2DOptions",
            padding=padding,
            strideH=stride,
            strideW=stride,
            dilationHFactor=dilation,
            dilationWFactor=dilation,
            fusedActivationFunction=activation,
        )

    def depthwise(
        self,
        x: Ref,
        multiplier: int = 1,
        stride: int = 1,
        padding: int = SAME,
        activation: int = 0,
        quant: tuple[float, int] = UNIT,
    ) -> Ref:
        """DEPTHWISE_CONV_2D, 3x3."""
        out_c = x.shape[3] * multiplier
        return self.op(
            "DEPTHWISE_CONV_2D",
            [x, *self.weights(x, (1, 3, 3, out_c), 3, 9)],
            (*window(x.shape, 3, stride, padding), out_c),
            quant,
            "DepthwiseConv2DOptions",
            padding=padding,
            strideH=stride,
            strideW=stride,
            depthMultiplier=multiplier,
            dilationHFactor=1,
            dilationWFactor=1,
            fusedActivationFunction=activation,
        )

    def dense(
        self,
        x: Ref,
        out: int,
        quant: tuple[float, int] = UNIT,
        activation: int = 0,
        per_channel: bool = False,
        bias: bool = True,
    ) -> Ref:
        """FULLY_CONNECTED."""
        features = int(np.prod(x.shape[1:]))
        weights = self.weights(x, (out, features), 0, features, per_channel)
        return self.op(
            "FULLY_CONNECTED",
            [x, weights[0], weights[1] if bias else None],
            (1, out),
            quant,
            "FullyConnectedOptions",
            fusedActivationFunction=activation,
            keepNumDims=False,
        )

    def pool(
        self,
        kind: str,
        x: Ref,
        size: int = 2,
        stride: int = 2,
        padding: int = VALID,
        activation: int = 0,
    ) -> Ref:
        """MAX_POOL_2D or AVERAGE_POOL_2D; the quantisation stays."""
        quant = self.graph.tensors[x.index].quantization
        return self.op(
            kind,
            [x],
            (*window(x.shape, size, stride, padding), x.shape[3]),
            (quant.scale[0], quant.zeroPoint[0]),
            "Pool2DOptions",
            padding=padding,
            strideH=stride,
            strideW=stride,
            filterHeight=size,
            filterWidth=size,
            fusedActivationFunction=activation,
        )

    def mean(self, x: Ref, quant: tuple[float, int] = (0.01, 1), keep: bool = False) -> Ref:
        """MEAN over height and width."""
        shape = (1, 1, 1, x.shape[3]) if keep else (1, x.shape[3])
        return self.op(
            "MEAN", [x, self.integers([1, 2])], shape, quant, "ReducerOptions", keepDims=keep
        )

    def binary(
        self, kind: str, a: Ref, b: Ref, quant: tuple[float, int] = (0.05, -7), activation: int = 0
    ) -> Ref:
        """ADD, SUB or MUL."""
        shape = np.broadcast_shapes(a.shape, b.shape)
        options = f"{kind.capitalize()}Options"
        return self.op(kind, [a, b], shape, quant, options, fusedActivationFunction=activation)

    def reshape(self, x: Ref, shape: Sequence[int]) -> Ref:
        """RESHAPE; the quantisation stays."""
        quant = self.graph.tensors[x.index].quantization
        return self.op(
            "RESHAPE",
            [x, self.integers(shape)],
            shape,
            (quant.scale[0], quant.zeroPoint[0]),
            "ReshapeOptions",
            newShape=list(shape),
        )

    def data(self, output: Ref, watched: bool = False) -> bytes:
        """The file with this output, or, to watch an interpreter, with all activations as such."""
        given = [index for op in self.graph.operators for index in op.outputs]
        self.graph.outputs = [output.index, *(i for i in given if watched and i != output.index)]
        return self.pack(self.model)

    @staticmethod
    def pack(model: schema.ModelT) -> bytes:
        """A file."""
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    @property
    def last(self) -> Ref:
        """The last operator's output."""
        index = self.graph.operators[-1].outputs[0]
        return Ref(index, tuple(self.graph.tensors[index].shape))

    def save(
        self, folder: Path, output: Ref, name: str = "net.tflite", watched: bool = False
    ) -> Path:
        """Writes the model."""
        path = folder / name
        path.write_bytes(self.data(output, watched))
        return path


def window(
    shape: Sequence[int], kernel: int, stride: int, padding: int, dilation: int = 1
) -> tuple[int, ...]:
    """[1, height, width] of a window's output."""
    extent = dilation * (kernel - 1) + 1
    return (
        1,
        *(
            -(-size // stride) if padding == SAME else (size - extent) // stride + 1
            for size in shape[1:3]
        ),
    )


def small_tflite() -> tuple[TfNet, Ref]:
    """Convolution, depthwise, residual sum, pooling, head: what most tests break."""
    net = TfNet((1, 8, 8, 3))
    a = net.conv(net.x, 8, stride=2, activation=RELU6, quant=(0.0235, -128))
    b = net.conv(net.depthwise(a, activation=RELU, quant=(0.02, -128)), 8, kernel=1)
    y = net.mean(net.binary("ADD", a, b))
    return net, net.dense(y, 4)


def interpreter_codes(path: Path, x: Array) -> dict[str, Codes]:
    """int8 codes of a watched model's activations, by name, for samples x [N, ...]:
    ai-edge-litert's."""
    return _codes(tflite_worker.codes("ai_edge_litert", str(path), x))


def older_interpreter_codes(
    jobs: Sequence[tuple[Path, Array]], worker: Path
) -> list[dict[str, Codes]]:
    """The same for several models by tflite-runtime, in another Python environment."""
    arguments: list[Path] = []
    for path, x in jobs:
        arguments += [path, path.with_suffix(".npy"), path.with_suffix(".npz")]
        np.save(arguments[-2], x)
    command = [worker, tflite_worker.__file__, "tflite_runtime", *arguments]
    subprocess.run(list(map(str, command)), check=True)
    return [_codes(dict(np.load(target))) for target in arguments[2::3]]


def _codes(found: Mapping[str, Array]) -> dict[str, Codes]:
    codes = {}
    for name, data in found.items():
        if data.dtype in (np.int8, np.uint8):
            scale, zero_point = found[f"{name}/quant"]
            offset = 128 if data.dtype == np.uint8 else 0
            centred = (data.astype(np.int16) - offset).astype(np.int8)
            codes[name] = Codes(centred, QuantParams((float(scale),), int(zero_point) - offset))
    return codes
