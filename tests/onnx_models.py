# SPDX-License-Identifier: Apache-2.0
"""Small ONNX models for the tests, written node by node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]


class Net:
    """A model that grows: each method adds a node and returns its output's name."""

    def __init__(self, shape: tuple[Any, ...] = (1, 3, 8, 8), seed: int = 0, opset: int = 13):
        self.rng = np.random.default_rng(seed)
        self.shape = shape
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.input_dtype = TensorProto.FLOAT

    def const(self, array: Any, dtype: Any = np.float32, name: str = "") -> str:
        """An initializer."""
        name = name or f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def normal(self, *shape: int) -> str:
        """An initializer of random numbers."""
        return self.const(self.rng.normal(0, 0.5, shape))

    def node(self, op_type: str, *inputs: str, name: str | None = None, **attrs: Any) -> str:
        """Any node with one output."""
        output = f"v{len(self.nodes)}"
        name = f"{op_type.lower()}{len(self.nodes)}" if name is None else name
        self.nodes.append(helper.make_node(op_type, list(inputs), [output], name, **attrs))
        return output

    def conv(self, x: str, out_c: int, in_c: int, kernel: int = 3, **attrs: Any) -> str:
        """Conv with bias; in_c per group."""
        weight, bias = self.normal(out_c, in_c, kernel, kernel), self.normal(out_c)
        return self.node("Conv", x, weight, bias, **attrs)

    def gemm(self, x: str, out_c: int, in_c: int) -> str:
        """Gemm as PyTorch writes it."""
        return self.node("Gemm", x, self.normal(out_c, in_c), self.normal(out_c), transB=1)

    def batch_norm(self, x: str, channels: int) -> str:
        """BatchNormalization with random statistics."""
        positive = [self.const(self.rng.uniform(0.5, 2, channels)) for _ in range(2)]
        offset, mean = self.normal(channels), self.normal(channels)
        return self.node("BatchNormalization", x, positive[0], offset, mean, positive[1])

    def quantized(self, x: str, scale: float, zero_point: int, dtype: Any = np.int8) -> str:
        """QuantizeLinear and DequantizeLinear."""
        parameters = self.const(scale), self.const(zero_point, dtype)
        return self.node(
            "DequantizeLinear", self.node("QuantizeLinear", x, *parameters), *parameters
        )

    def dequantized(
        self, codes: Array, scale: Any, dtype: Any = np.int8, zero_point: Any = None, axis: int = 0
    ) -> str:
        """A constant behind DequantizeLinear."""
        scale = np.asarray(scale, np.float32)
        zero_point = np.zeros(scale.shape, dtype) if zero_point is None else zero_point
        inputs = self.const(codes, dtype), self.const(scale), self.const(zero_point, dtype)
        return self.node("DequantizeLinear", *inputs, **({"axis": axis} if scale.ndim else {}))

    def model(self, output: str) -> onnx.ModelProto:
        """The model with this output."""
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", self.input_dtype, self.shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.initializers,
        )
        opset = helper.make_opsetid("", self.opset)
        return helper.make_model(graph, opset_imports=[opset], ir_version=8)

    def save(self, folder: Path, output: str) -> Path:
        """Writes the model."""
        return save(self.model(output), folder)


class QuantisedNet(Net):
    """Also writes quantised operators."""

    def code(self, x: str, scale: float, zero_point: int, dtype: Any = np.int8) -> str:
        """QuantizeLinear."""
        return self.node("QuantizeLinear", x, self.const(scale), self.const(zero_point, dtype))

    def params(self, scale: Any, zero_point: Any, dtype: Any = np.int8) -> tuple[str, str]:
        """Constants: scale and zero point."""
        return self.const(scale), self.const(zero_point, dtype)

    def contrib(self, op_type: str, *inputs: str, **attrs: Any) -> str:
        """An operator of onnxruntime's own."""
        output = self.node(op_type, *inputs, **attrs)
        self.nodes[-1].domain = "com.microsoft"
        return output

    def model(self, output: str) -> onnx.ModelProto:
        """The model with this output."""
        model = super().model(output)
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        return model


def save(model: onnx.ModelProto, folder: Path, name: str = "net.onnx") -> Path:
    """Writes a model, valid or not."""
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def small_classifier() -> onnx.ModelProto:
    """Conv, depthwise, residual add, pooling, linear: what most tests break."""
    net = Net((1, 3, 8, 8))
    a = net.node("Relu", net.conv("x", 8, 3, pads=[1, 1, 1, 1], strides=[2, 2]))
    b = net.conv(a, 8, 1, pads=[1, 1, 1, 1], group=8)
    b = net.node("Add", a, net.node("Clip", b, net.const(0.0), net.const(6.0)))
    flat = net.node("Flatten", net.node("GlobalAveragePool", b))
    return net.model(net.gemm(flat, 4, 8))


def nhwc(x: Array) -> Array:
    """NCHW to NHWC, [N, C, L] to [N, 1, L, C]; [N, C] as it is."""
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else nhwc(x[:, :, None]) if x.ndim == 3 else x


def nchw(x: Array) -> Array:
    """NHWC to NCHW; [N, C] as it is."""
    return x.transpose(0, 3, 1, 2) if x.ndim == 4 else x


def run_onnx(path: Path, x: Array) -> Array:
    """onnxruntime's output, sample by sample, without graph optimisations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: x[i : i + 1]})[0] for i in range(len(x))])
