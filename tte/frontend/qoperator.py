# SPDX-License-Identifier: Apache-2.0
"""Quantised operators (QOperator format) rewritten as the real operator between DequantizeLinear
and QuantizeLinear (QDQ format), which is what the importer reads.

QLinearConv and QLinearMatMul are of the ONNX standard; the others are contributed operators of
onnxruntime (domain com.microsoft), as its quantiser writes them. Sources: the operators' schemas in
the ONNX standard and in onnxruntime's ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tte.errors import TteError
from tte.frontend.onnx_file import FreeNames, OnnxFile
from tte.ops.spec import OnnxNode

Array = NDArray[Any]

CONTRIB = "com.microsoft."
MAX_SCALE_ELEMS = 1 << 22  # as often as operators use them
PER_CHANNEL_OPSET = 13  # from which (De)QuantizeLinear has an axis
DYNAMIC = frozenset({"DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"})
# Operators that may work on codes as on numbers: they move, pick or compare elements.
ON_CODES = frozenset(
    {
        *("Concat", "Flatten", "Identity", "MaxPool", "Pad", "Reshape", "Resize", "Slice"),
        *("Split", "Squeeze", "Transpose", "Unsqueeze"),
    }
)


@dataclass(frozen=True, slots=True)
class _Quantised:
    """Names of a value's codes, scale and zero point; the last may be empty."""

    codes: str
    scale: str
    zero_point: str


def decompose(file: OnnxFile, where: str) -> OnnxFile:
    """The file without quantised operators; `where` names it in errors."""
    return _Decomposer(file, where).run()


class _Decomposer:
    def __init__(self, file: OnnxFile, where: str) -> None:
        self.file = file
        self.where = where
        self.constants: dict[str, Array] = dict(file.constants)
        self.values: dict[str, Array] = {}  # of Constant nodes
        self.names = FreeNames(file.constants)
        for node in file.nodes:
            self.names.taken.update((*node.inputs, *node.outputs))
        self.scale_elems = 0
        self.nodes: list[OnnxNode] = []
        self.node = OnnxNode("", "", (), (), {}, file.opset)
        self.known: dict[str, _Quantised] = {}  # codes that a node here gives

    def run(self) -> OnnxFile:
        for node in self.file.nodes:
            self.node = node
            op_type = node.op_type.removeprefix(CONTRIB)
            if op_type == "Constant" and isinstance(node.attrs.get("value"), np.ndarray):
                self.values.update(dict.fromkeys(node.outputs[:1], node.attrs["value"]))
            if op_type in DYNAMIC or op_type.startswith("DynamicQuantize"):
                raise self.fail(
                    "dynamically quantised models are not supported: scales that change with "
                    "every input leave nothing to train with",
                    "give the float model, or quantise it with "
                    "onnxruntime.quantization.quantize_static",
                )
            rule = RULES.get(node.op_type)
            if rule is not None:
                rule(self)
            elif op_type in ("QuantizeLinear", "DequantizeLinear"):
                self.nodes.append(replace(node, op_type=op_type))
                if op_type == "QuantizeLinear" and len(node.inputs) > 1 and node.outputs:
                    self.know(node.outputs[0], *node.inputs[1:3])
            elif op_type in ON_CODES and any(name in self.known for name in node.inputs):
                self.on_codes()
            else:
                self.nodes.append(node)
        return replace(self.file, nodes=tuple(self.nodes), constants=self.constants)

    def fail(self, why: str, hint: str = "") -> TteError:
        return TteError(
            f"node {self.node.name!r} ({self.node.op_type}) cannot be imported",
            where=self.where,
            why=why,
            hint=hint,
        )

    # ---- names ----------------------------------------------------------------------------

    def know(self, codes: str, scale: str, zero_point: str = "") -> None:
        self.known[codes] = _Quantised(codes, scale, zero_point)

    def input(self, position: int) -> str:
        """An input's name, or "" where it is left out."""
        inputs = self.node.inputs
        return inputs[position] if position < len(inputs) else ""

    def quantised(self, position: int) -> _Quantised:
        """Three inputs: codes, scale, zero point."""
        codes, scale, zero_point = (self.input(position + i) for i in range(3))
        if not codes or not scale:
            raise self.fail(f"its input {position} or the scale of that is missing")
        return _Quantised(codes, scale, zero_point)

    def scale(self, value: _Quantised) -> Array:
        data = self.constants.get(value.scale, self.values.get(value.scale))
        if data is None:
            raise self.fail(f"the scale {value.scale!r} must be a constant")
        self.scale_elems += data.size
        if self.scale_elems > MAX_SCALE_ELEMS:
            raise self.fail(
                f"the model's quantised operators use more than {MAX_SCALE_ELEMS} scales"
            )
        return data.astype(np.float64)

    # ---- nodes ----------------------------------------------------------------------------

    def dequantised(self, value: _Quantised, axis: int | None = None) -> str:
        """Adds a DequantizeLinear; returns its output."""
        output = self.names.free(f"{value.codes}_real")
        inputs = [value.codes, value.scale, value.zero_point]
        attrs: dict[str, Any] = {}
        opset = self.file.opset
        if axis is not None and self.scale(value).size > 1:
            attrs["axis"] = axis
            opset = max(opset, PER_CHANNEL_OPSET)
        self.add("DequantizeLinear", inputs, output, attrs, opset=opset)
        return output

    def bias(self, name: str, scale: Array) -> str:
        """The int32 bias of a layer as a real number, or "" for none."""
        if not name:
            return ""
        scale_name = self.names.free(f"{name}_scale")
        self.constants[scale_name] = scale.reshape(()) if scale.size == 1 else scale.reshape(-1)
        return self.dequantised(_Quantised(name, scale_name, ""), axis=0)

    def add(
        self,
        op_type: str,
        inputs: Sequence[str],
        output: str,
        attrs: Mapping[str, Any],
        name: str = "",
        opset: int | None = None,
    ) -> None:
        """Adds a node; inputs that are left out at the end go."""
        present = list(inputs)
        while present and not present[-1]:
            present.pop()
        opset = self.file.opset if opset is None else opset
        self.nodes.append(OnnxNode(op_type, name, tuple(present), (output,), attrs, opset))

    def real(
        self,
        op_type: str,
        inputs: Sequence[str],
        scale: str,
        zero_point: str,
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        """Adds the real operator with the node's name, and its output's QuantizeLinear."""
        if not self.node.outputs:
            raise self.fail("it has no output")
        output = self.node.outputs[0]
        attrs = dict(self.node.attrs if attrs is None else attrs)
        if attrs.pop("channels_last", 0):
            raise self.fail("channels_last = 1 is not supported", "quantise the model as exported")
        if not scale:
            self.add(op_type, inputs, output, attrs, self.node.name)
            return
        result = self.names.free(f"{output}_real")
        self.add(op_type, inputs, result, attrs, self.node.name)
        self.add("QuantizeLinear", [result, scale, zero_point], output, {})
        self.know(output, scale, zero_point)

    def on_codes(self) -> None:
        """An operator that is the same on codes: dequantised before and quantised after it."""
        quants = [self.known[name] for name in self.node.inputs if name in self.known]
        first = quants[0]
        inputs = list(self.node.inputs)
        for position, name in enumerate(inputs):
            if name in self.known:
                inputs[position] = self.dequantised(self.known[name])
            elif self.node.op_type == "Pad" and position == 2 and name:  # a code, too
                value = _Quantised(name, first.scale, first.zero_point)
                inputs[position] = self.dequantised(value)
        if self.node.op_type == "Pad" and len(inputs) < 3:
            raise self.fail("it pads codes with 0, which is no real 0", "pad with the zero point")
        outputs = [self.names.free(f"{name}_real") if name else "" for name in self.node.outputs]
        self.nodes.append(replace(self.node, inputs=tuple(inputs), outputs=tuple(outputs)))
        for real, codes in zip(outputs, self.node.outputs, strict=True):
            if codes:
                self.add("QuantizeLinear", [real, first.scale, first.zero_point], codes, {})
                self.know(codes, first.scale, first.zero_point)

    # ---- the operators --------------------------------------------------------------------

    def conv(self) -> None:
        """x, w and y, each with scale and zero point, then the bias."""
        x, w = self.quantised(0), self.quantised(3)
        bias = self.bias(self.input(8), self.scale(x).reshape(-1) * self.scale(w).reshape(-1))
        inputs = [self.dequantised(x), self.dequantised(w, axis=0), bias]
        self.real("Conv", inputs, self.input(6), self.input(7))

    def matmul(self) -> None:
        """a, b and y, each with scale and zero point; b's may be per column."""
        a, b = self.quantised(0), self.quantised(3)
        inputs = [self.dequantised(a), self.dequantised(b, axis=-1)]
        self.real("MatMul", inputs, self.input(6), self.input(7))

    def gemm(self) -> None:
        """a and b, c (int32), then y's scale and zero point; without them y is real."""
        a, b = self.quantised(0), self.quantised(3)
        attrs = dict(self.node.attrs)
        scale = self.scale(a).reshape(-1) * self.scale(b).reshape(-1)
        c = self.bias(self.input(6), scale * float(attrs.get("alpha", 1.0)))
        inputs = [self.dequantised(a), self.dequantised(b, 0 if attrs.get("transB") else 1), c]
        self.real("Gemm", inputs, self.input(7), self.input(8), attrs)

    def binary(self, op_type: str) -> None:
        """a and b, each with scale and zero point, then y's."""
        inputs = [self.dequantised(self.quantised(0)), self.dequantised(self.quantised(3))]
        self.real(op_type, inputs, self.input(6), self.input(7))

    def unary(self, op_type: str, dropped: tuple[str, ...] = ()) -> None:
        """x with scale and zero point, then y's."""
        attrs = {name: value for name, value in self.node.attrs.items() if name not in dropped}
        inputs = [self.dequantised(self.quantised(0))]
        self.real(op_type, inputs, self.input(3), self.input(4), attrs)

    def concat(self) -> None:
        """y's scale and zero point, then each part with its own."""
        parts = [
            self.dequantised(self.quantised(position))
            for position in range(2, len(self.node.inputs), 3)
        ]
        self.real("Concat", parts, self.input(0), self.input(1))


RULES: dict[str, Callable[[_Decomposer], None]] = {
    "QLinearConv": _Decomposer.conv,
    "QLinearMatMul": _Decomposer.matmul,
    f"{CONTRIB}QLinearConv": _Decomposer.conv,
    f"{CONTRIB}QGemm": _Decomposer.gemm,
    f"{CONTRIB}QLinearAdd": lambda d: d.binary("Add"),
    f"{CONTRIB}QLinearMul": lambda d: d.binary("Mul"),
    f"{CONTRIB}QLinearConcat": _Decomposer.concat,
    f"{CONTRIB}QLinearGlobalAveragePool": lambda d: d.unary("GlobalAveragePool"),
    f"{CONTRIB}QLinearAveragePool": lambda d: d.unary("AveragePool"),
    f"{CONTRIB}QLinearReduceMean": lambda d: d.unary("ReduceMean"),
    f"{CONTRIB}QLinearSigmoid": lambda d: d.unary("Sigmoid"),
    f"{CONTRIB}QLinearLeakyRelu": lambda d: d.unary("LeakyRelu"),
    f"{CONTRIB}QLinearSoftmax": lambda d: d.unary("Softmax", ("opset",)),
}
