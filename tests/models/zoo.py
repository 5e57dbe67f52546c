# SPDX-License-Identifier: Apache-2.0
"""Models that people put on microcontrollers, written with onnx.helper and random weights.

The first four are the reference topologies of MLPerf Tiny ("MLPerf Tiny Benchmark", Banbury et al.,
NeurIPS 2021 datasets track); the others are named after the papers' networks that they are like.
Batch normalisation is left in where the originals have it, so that folding is exercised too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from tests.onnx_models import Net


@dataclass(frozen=True)
class Entry:
    """A model of the zoo. `input_shape` is (height, width, channels); `loss` as in --loss;
    `update`: what trains in its test; `classes`: labels, 0 where the target is no label."""

    build: Callable[[], onnx.ModelProto]
    input_shape: tuple[int, int, int]
    classes: int
    update: str = "full"
    loss: str = "cross-entropy"


class Layers(Net):
    """Net with layers whose random weights keep the signal's size (He's initialisation)."""

    def __init__(self, shape: tuple[Any, ...], seed: int = 0, opset: int = 13) -> None:
        super().__init__(shape, seed, opset)
        self.channels: dict[str, int] = {"x": shape[1]}

    def scaled(self, *shape: int, gain: float = 2.0) -> str:
        """Weights [out, in, ...] of variance gain / fan-in."""
        return self.const(self.rng.normal(0, math.sqrt(gain / math.prod(shape[1:])), shape))

    def layer(
        self,
        x: str,
        out_c: int,
        kernel: tuple[int, ...] = (1, 1),
        *,
        stride: int | tuple[int, ...] = 1,
        groups: int = 1,
        norm: bool = True,
        act: str = "Relu",
        same: bool = True,
    ) -> str:
        """Convolution, batch normalisation, activation."""
        in_c = self.channels[x]
        strides = (stride,) * len(kernel) if isinstance(stride, int) else stride
        attrs: dict[str, Any] = {"strides": list(strides), "group": groups}
        if same:
            attrs["pads"] = [k // 2 for k in kernel] + [(k - 1) // 2 for k in kernel]
        weight = self.scaled(out_c, in_c // groups, *kernel, gain=2.0 if act else 1.0)
        bias = [] if norm else [self.const(self.rng.normal(0, 0.05, out_c))]
        y = self.node("Conv", x, weight, *bias, **attrs)
        if norm:
            y = self.normalised(y, out_c)
        return self.named(self.activation(y, act), out_c)

    def named(self, y: str, channels: int) -> str:
        """Remembers the channels of a value."""
        self.channels[y] = channels
        return y

    def normalised(self, x: str, channels: int) -> str:
        """Batch normalisation with statistics near 0 and 1."""
        near = [self.const(self.rng.uniform(0.9, 1.1, channels)) for _ in range(2)]
        small = [self.const(self.rng.normal(0, 0.05, channels)) for _ in range(2)]
        return self.node("BatchNormalization", x, near[0], small[0], small[1], near[1])

    def activation(self, x: str, act: str) -> str:
        """Relu, Relu6, HardSwish, or nothing."""
        if act == "Relu6":
            return self.node("Clip", x, self.const(0.0), self.const(6.0))
        return self.node(act, x) if act else x

    def add(self, a: str, b: str) -> str:
        """A residual sum."""
        return self.named(self.node("Add", a, b), self.channels[a])

    def dense(self, x: str, out_c: int, in_c: int, act: str = "") -> str:
        """Gemm and activation on [N, in_c]."""
        weight = self.scaled(out_c, in_c, gain=2.0 if act else 1.0)
        y = self.node("Gemm", x, weight, self.const(np.zeros(out_c)), transB=1)
        return self.activation(y, act)

    def classifier(self, x: str, classes: int) -> onnx.ModelProto:
        """Global average pooling and a linear layer."""
        flat = self.node("Flatten", self.node("GlobalAveragePool", x))
        return self.model(self.dense(flat, classes, self.channels[x]))


# ---- MLPerf Tiny --------------------------------------------------------------------------


def mobilenet_v1() -> onnx.ModelProto:
    """Visual wake words: MobileNetV1, width 0.25, 96x96x3, 2 classes."""
    net = Layers(("batch", 3, 96, 96), seed=1)
    net.channels["x"] = 3
    x = net.layer("x", 8, (3, 3), stride=2)
    for out_c, stride in (
        (16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (128, 1), (128, 1),
        (128, 1), (128, 1), (256, 2), (256, 1),
    ):  # fmt: skip
        in_c = net.channels[x]
        x = net.layer(x, in_c, (3, 3), stride=stride, groups=in_c)
        x = net.layer(x, out_c)
    return net.classifier(x, 2)


def resnet_8() -> onnx.ModelProto:
    """Image classification: ResNet-8 on 32x32x3, 10 classes."""
    net = Layers((1, 3, 32, 32), seed=2)
    x = net.layer("x", 16, (3, 3))
    for out_c, stride in ((16, 1), (32, 2), (64, 2)):
        trunk = net.layer(net.layer(x, out_c, (3, 3), stride=stride), out_c, (3, 3), act="")
        if stride > 1:
            x = net.layer(x, out_c, stride=stride, norm=False, act="")
        x = net.named(net.node("Relu", net.add(x, trunk)), out_c)
    return net.classifier(x, 10)


def ds_cnn() -> onnx.ModelProto:
    """Keyword spotting: DS-CNN on 49x10 cepstral coefficients, 12 classes."""
    net = Layers((1, 1, 49, 10), seed=3)
    x = net.layer("x", 64, (10, 4), stride=2)
    for _ in range(4):
        x = net.layer(net.layer(x, 64, (3, 3), groups=64), 64)
    return net.classifier(x, 12)


def autoencoder() -> onnx.ModelProto:
    """Anomaly detection: fully connected, 640 values to 8 and back."""
    net = Layers((1, 640), seed=4)
    x, width = "x", 640
    for out_c in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        y = net.node("Gemm", x, net.scaled(out_c, width), net.const(np.zeros(out_c)), transB=1)
        x, width = net.node("Relu", net.normalised(y, out_c)), out_c
    return net.model(net.dense(x, 640, width))


# ---- others -------------------------------------------------------------------------------


def lenet_5() -> onnx.ModelProto:
    """LeNet-5 with max pooling, 28x28x1, 10 classes."""
    net = Layers((1, 1, 28, 28), seed=5)
    x = net.layer("x", 6, (5, 5), norm=False)
    x = net.named(net.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), 6)
    x = net.layer(x, 16, (5, 5), norm=False, same=False)
    x = net.node("Flatten", net.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))
    x = net.dense(net.dense(x, 120, 400, "Relu"), 84, 120, "Relu")
    return net.model(net.dense(x, 10, 84))


def accelerometer_cnn() -> onnx.ModelProto:
    """One-dimensional convolutions on 64 samples of 3 axes, 5 classes."""
    net = Layers((1, 3, 64), seed=6)
    x = net.layer("x", 16, (5,), stride=2)
    x = net.layer(x, 32, (5,))
    x = net.named(net.node("MaxPool", x, kernel_shape=[2], strides=[2]), 32)
    x = net.layer(net.layer(x, 32, (3,), groups=32), 48, (1,))
    return net.classifier(x, 5)


def spectrogram_cnn() -> onnx.ModelProto:
    """3x3 convolutions and pooling on a spectrogram of 32 by 30, 10 classes."""
    net = Layers((1, 1, 32, 30), seed=7)
    x = net.layer("x", 12, (3, 3))
    for out_c in (24, 48):
        x = net.named(net.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), net.channels[x])
        x = net.layer(x, out_c, (3, 3))
    x = net.named(net.node("AveragePool", x, kernel_shape=[2, 1], strides=[2, 1]), 48)
    return net.classifier(x, 10)


def mobilenet_v3() -> onnx.ModelProto:
    """Like MobileNetV3-small: hard-swish and squeeze-and-excitation, 48x48x3, 4 classes."""
    net = Layers((1, 3, 48, 48), seed=8, opset=14)

    def squeeze_excite(x: str) -> str:
        channels = net.channels[x]
        y = net.named(net.node("GlobalAveragePool", x), channels)
        y = net.layer(y, max(4, channels // 4), norm=False)
        y = net.node("HardSigmoid", net.layer(y, channels, norm=False, act=""), alpha=1 / 6)
        return net.named(net.node("Mul", x, y), channels)

    def block(x: str, width: int, out_c: int, kernel: int, stride: int, se: bool, act: str) -> str:
        y = net.layer(x, width, act=act)
        y = net.layer(y, width, (kernel, kernel), stride=stride, groups=width, act=act)
        y = net.layer(squeeze_excite(y) if se else y, out_c, act="")
        return net.add(x, y) if stride == 1 and net.channels[x] == out_c else y

    x = net.layer("x", 8, (3, 3), stride=2, act="HardSwish")
    x = block(x, 8, 8, 3, 2, True, "Relu")
    x = block(x, 32, 16, 3, 2, False, "Relu")
    x = block(x, 48, 16, 3, 1, False, "Relu")
    x = block(x, 48, 24, 5, 1, True, "HardSwish")
    x = block(x, 72, 24, 5, 1, True, "HardSwish")
    x = net.layer(x, 96, act="HardSwish")
    flat = net.node("Flatten", net.node("GlobalAveragePool", x))
    return net.model(net.dense(net.dense(flat, 64, 96, "HardSwish"), 4, 64))


def u_net() -> onnx.ModelProto:
    """Like U-Net: two levels, skip connections by Concat, up by ConvTranspose and by Resize."""
    net = Layers((1, 1, 24, 24), seed=9)

    def pool(x: str) -> str:
        y = net.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        return net.named(y, net.channels[x])

    def joined(a: str, b: str) -> str:
        return net.named(net.node("Concat", a, b, axis=1), net.channels[a] + net.channels[b])

    first = net.layer("x", 8, (3, 3), norm=False)
    second = net.layer(pool(first), 12, (3, 3), norm=False)
    x = net.layer(pool(second), 16, (3, 3), norm=False)
    weight = net.const(net.rng.normal(0, 0.2, (16, 12, 2, 2)))
    x = net.named(net.node("ConvTranspose", x, weight, strides=[2, 2], kernel_shape=[2, 2]), 12)
    x = net.layer(joined(x, second), 12, (3, 3), norm=False)
    scales = net.const([1.0, 1.0, 2.0, 2.0])
    x = net.node("Resize", x, "", scales, mode="nearest", nearest_mode="floor",
                 coordinate_transformation_mode="asymmetric")  # fmt: skip
    x = net.layer(joined(net.named(x, 12), first), 8, (3, 3), norm=False)
    return net.model(net.layer(x, 1, norm=False, act=""))


ZOO: dict[str, Entry] = {
    "mobilenet_v1_0.25": Entry(mobilenet_v1, (96, 96, 3), 2, "last:3"),
    "resnet_8": Entry(resnet_8, (32, 32, 3), 10, "last:5"),
    "ds_cnn": Entry(ds_cnn, (49, 10, 1), 12),
    "autoencoder": Entry(autoencoder, (1, 1, 640), 0, "last:2", "mse"),
    "lenet_5": Entry(lenet_5, (28, 28, 1), 10),
    "accelerometer_cnn": Entry(accelerometer_cnn, (1, 64, 3), 5),
    "spectrogram_cnn": Entry(spectrogram_cnn, (32, 30, 1), 10),
    "mobilenet_v3_like": Entry(mobilenet_v3, (48, 48, 3), 4),
    "u_net_like": Entry(u_net, (24, 24, 1), 0, "full", "mse"),
}
