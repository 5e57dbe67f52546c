# SPDX-License-Identifier: Apache-2.0
"""Small float graphs for tests: from an op's sample, or a network with every structure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tte.ir import Graph, Role, TensorType
from tte.ir.verify import verify
from tte.ops import FLOAT_OPS
from tte.ops.add import AddAttrs
from tte.ops.avg_pool2d import AvgPool2dAttrs
from tte.ops.conv2d import Conv2dAttrs
from tte.ops.linear import LinearAttrs
from tte.ops.spec import GraphBuilder, Sample
from tte.ops.window import WindowAttrs
from tte.passes.calibrate import calibrate
from tte.passes.differentiate import differentiate
from tte.passes.optimizer import add_optimizer
from tte.passes.prune import prune
from tte.passes.quantize import quantize
from tte.passes.scale_gradients import scale_gradients
from tte.passes.schedule import schedule
from tte.passes.update import plan_update
from tte.reference import run_op
from tte.training import DEFAULT_LOSS, PLAIN_SGD, Loss, Optimizer

RELU6 = (0.0, 6.0)


class Network:
    """Builds a float graph op by op with seeded random weights."""

    def __init__(self, input_shape: Sequence[int], seed: int = 0) -> None:
        self.builder = GraphBuilder("test")
        self.rng = np.random.default_rng(seed)
        self.input = self.builder.tensor("input", input_shape, "float32", Role.INPUT)
        self.last = self.input

    def add(self, kind: str, name: str, attrs: Any, *shapes: Sequence[int], x: Any = None) -> str:
        """Appends an op with random weights of the given shapes; returns its output."""
        inputs = list(x) if isinstance(x, tuple | list) else [x or self.last]
        for position, shape in enumerate(shapes):
            fan_in = max(1, int(np.prod(shapes[0][1:])))
            data = self.rng.normal(0, fan_in**-0.5, shape).astype(np.float32)
            inputs.append(self.builder.constant(f"{name}.c{position}", data))
        types = [self.builder.tensors[n].type for n in inputs]
        inferred: TensorType = FLOAT_OPS[kind].infer(attrs, types)
        self.last = self.builder.tensor(f"{name}.out", inferred.shape, "float32", Role.ACTIVATION)
        self.builder.op(kind, name, inputs, [self.last], attrs)
        return self.last

    def conv(self, name: str, out_c: int, window: WindowAttrs, clamp: Any = RELU6) -> str:
        """A convolution over the last output."""
        in_c = self.builder.tensors[self.last].type.shape[3]
        shape = (out_c, *window.kernel, in_c // window.groups)
        return self.add("conv2d", name, Conv2dAttrs(window, clamp), shape, (out_c,))

    def depthwise(self, name: str, kernel: int, stride: int, clamp: Any = RELU6) -> str:
        """A depthwise convolution over the last output."""
        channels = self.builder.tensors[self.last].type.shape[3]
        pad = kernel // 2
        window = WindowAttrs((kernel, kernel), (stride, stride), (1, 1), (pad,) * 4, channels)
        shape = (channels, kernel, kernel, 1)
        return self.add("depthwise_conv2d", name, Conv2dAttrs(window, clamp), shape, (channels,))

    def head(self, classes: int) -> Graph:
        """Flattens, adds the head, returns the graph."""
        if len(self.builder.tensors[self.last].type.shape) == 4:
            self.add("reshape", "flatten", None)
        features = self.builder.tensors[self.last].type.shape[1]
        self.add("linear", "head", LinearAttrs(), (classes, features), (classes,))
        return self.graph()

    def graph(self) -> Graph:
        """The graph so far."""
        empty = Graph("test", {}, (), (), ())
        return verify(
            empty.with_changes(
                tensors=self.builder.tensors.values(),
                ops=self.builder.ops,
                inputs=[self.input],
                outputs=[self.last],
            )
        )


def sample_graph(sample: Sample, seed: int = 0) -> Graph:
    """The sample's op between 1x1 convolutions (or linear layers) and a head of 4 classes, so
    that gradients have to pass through it. Of several inputs those of the first one's shape are
    the network's input, others are computed from it: poolings make them smaller."""
    shape = tuple(max(sizes) for sizes in zip(*sample.inputs, strict=True))
    network = Network(shape, seed)
    before = [
        network.input if i and x == sample.inputs[0] else _operand(network, f"before{i or ''}", x)
        for i, x in enumerate(sample.inputs)
    ]
    network.add(sample.kind, "op", sample.attrs, *sample.weights, x=before)
    return network.head(4)


def _operand(network: Network, name: str, shape: tuple[int, ...]) -> str:
    """A layer's output of this shape, computed from the input."""
    network.last = network.input
    if len(shape) == 2:
        features = network.builder.tensors[network.input].type.shape[1]
        return network.add("linear", name, LinearAttrs(), (shape[1], features), (shape[1],))
    height, width = network.builder.tensors[network.input].type.shape[1:3]
    if shape[1:3] != (height, width):
        kernel = height - shape[1] + 1, width - shape[2] + 1
        network.add("avg_pool2d", f"{name}.pool", AvgPool2dAttrs(WindowAttrs(kernel)))
    return network.conv(name, shape[3], WindowAttrs((1, 1)), (-np.inf, np.inf))


def small_network(seed: int = 0, classes: int = 5) -> Graph:
    """Two inverted residual blocks, one with a skip, a strided stem, pooling, a head."""
    n = Network((1, 16, 16, 3), seed)
    linear = (-np.inf, np.inf)
    one = WindowAttrs((1, 1))
    n.conv("stem", 8, WindowAttrs((3, 3), (2, 2), pads=(1, 1, 1, 1)))
    skip = n.last
    n.conv("b0.pw1", 12, one)
    n.depthwise("b0.dw", 3, 1)
    n.conv("b0.pw2", 8, one, linear)
    skip = n.add("add", "b0.add", AddAttrs(), x=[skip, n.last])
    n.conv("b1.pw1", 24, one)
    n.depthwise("b1.dw", 5, 2)
    n.conv("b1.pw2", 16, one, linear)
    trunk = n.last
    n.conv("b2.pw1", 20, one)
    n.depthwise("b2.dw", 3, 1)
    n.conv("b2.pw2", 16, one, linear)
    n.add("add", "b2.add", AddAttrs(), x=[trunk, n.last])
    n.add("avg_pool2d", "gap", AvgPool2dAttrs(WindowAttrs((4, 4))))
    return n.head(classes)


def quantized(graph: Graph, samples: int = 16, seed: int = 0) -> tuple[Graph, NDArray[np.int8]]:
    """The integer forward graph, calibrated on noise, and int8 samples."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (samples, *graph[graph.inputs[0]].type.shape[1:])).astype(np.float32)
    forward = verify(quantize(calibrate(graph, x)))
    quant = forward[forward.inputs[0]].quant
    assert quant is not None
    return forward, quant.quantize(x)


def training_graph(
    graph: Graph,
    update: str = "full",
    seed: int = 0,
    optimizer: Optimizer = PLAIN_SGD,
    loss: Loss = DEFAULT_LOSS,
) -> tuple[Graph, NDArray[np.int8], NDArray[Any]]:
    """The scheduled training graph of a float graph, int8 samples and targets."""
    forward, codes = quantized(graph, seed=seed)
    full = verify(differentiate(forward, loss))
    pruned = verify(prune(full, plan_update(forward, update)))
    pruned = verify(add_optimizer(pruned, optimizer))
    rng, output = np.random.default_rng(seed), forward[forward.outputs[0]].type
    targets: NDArray[Any] = codes.reshape(len(codes), -1)
    if loss.target.kind == "label":
        targets = rng.integers(0, output.shape[1], len(codes))
    elif loss.target.kind != "input":
        low, high = (0, 1) if loss.target.kind == "binary" else (-128, 127)
        targets = rng.integers(low, high, (len(codes), output.elems), np.int8, endpoint=True)
    ordered, _ = schedule(scale_gradients(pruned, codes, targets, run_op))
    return verify(ordered, scheduled=True), codes, targets
