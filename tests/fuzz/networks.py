# SPDX-License-Identifier: Apache-2.0
"""Random networks of all supported operators, as ONNX models, for hypothesis.

A network grows node by node: each takes values that are there already, so that it branches and
joins; what nobody has read in the end flows into the head. Weights keep activations near unit
scale, so that rounding to int8 does not hide everything else.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import onnx
import onnxruntime
from hypothesis import strategies as st
from onnx import defs, helper

from tests.onnx_models import Net

CLASSES = 4
MAX_ELEMS = 1200  # of an activation
MAX_FEATURES = 400  # that the head reads
OPSETS = (13, 17, 18, 21, min(23, defs.onnx_opset_version()))
SAME = ("SAME_UPPER", "SAME_LOWER")
Shape = tuple[int, ...]
QUIET = onnxruntime.SessionOptions()
QUIET.log_severity_level = 4
QUIET.intra_op_num_threads = 1

# Functions of one element, with attributes that change their form.
FUNCTIONS: tuple[tuple[str, dict[str, Any], int], ...] = (  # operator, attributes, first opset
    ("Abs", {}, 13),
    ("Celu", {"alpha": 0.7}, 13),
    ("Cos", {}, 13),
    ("Elu", {"alpha": 1.2}, 13),
    ("Erf", {}, 13),
    ("Gelu", {}, 20),
    ("Gelu", {"approximate": "tanh"}, 20),
    ("HardSigmoid", {}, 13),
    ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, 13),
    ("HardSwish", {}, 14),
    ("LeakyRelu", {}, 13),
    ("LeakyRelu", {"alpha": 0.3}, 13),
    ("Mish", {}, 18),
    ("Neg", {}, 13),
    ("Relu", {}, 13),
    ("Selu", {}, 13),
    ("Sigmoid", {}, 13),
    ("Sin", {}, 13),
    ("Softplus", {}, 13),
    ("Softsign", {}, 13),
    ("Tanh", {}, 13),
    ("ThresholdedRelu", {"alpha": 0.5}, 13),
)
UPDATES = ("full", "full", "full", "last:1", "bias:2", "head", "narrow", "narrow")
POSITIVE = ("Sqrt", "Log", "Reciprocal")  # of an argument above 0


@dataclass(frozen=True)
class Network:
    """`update`: head, full, bias:K, last:K with K at most what is there, or "narrow": some
    channels of some layers, chosen by `seed`."""

    model: onnx.ModelProto
    update: str
    seed: int

    def __repr__(self) -> str:
        """The nodes, for hypothesis' report."""
        graph = self.model.graph
        shape = [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
        shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
        lines = [f"x {shape}, opset {self.model.opset_import[0].version}, {self.update}"]
        for node in graph.node:
            inputs = ", ".join(f"{i}{shapes.get(i, '')}" for i in node.input)
            attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            lines.append(f"{', '.join(node.output)} = {node.op_type}({inputs}) {attrs or ''}")
        return "\n".join([f"Network(seed={self.seed})", *lines])


class RandomNet(Net):
    """Adds nodes whose form is drawn. `shapes`: of all activations; `unread`: by nobody yet."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        sizes = {4: ((1, 4), (1, 9), (1, 9)), 3: ((1, 4), (1, 24)), 2: ((1, 24),)}
        rank = self.pick(4, 4, 4, 3, 2)
        shape = (1, *(self.number(*limits) for limits in sizes[rank]))
        super().__init__(shape, self.number(0, 2**16), self.pick(*OPSETS))
        self.shapes: dict[str, Shape] = {"x": shape}
        self.unread = ["x"]

    # ---- drawing --------------------------------------------------------------------------

    def number(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def pick(self, *options: Any) -> Any:
        return self.random.choice(options)

    def value(self, accepted: Callable[[Shape], bool] = lambda shape: True) -> str:
        """An activation, rather a new one; "" where none is accepted."""
        found = [name for name, shape in self.shapes.items() if accepted(shape)]
        if not found:
            return ""
        return found[max(0, len(found) - 1 - self.number(0, 9) // 3)]

    def divisor(self, number: int) -> int:
        return int(self.pick(*(i for i in range(1, number + 1) if number % i == 0)))

    # ---- adding ---------------------------------------------------------------------------

    def add(self, op_type: str, *inputs: str, outputs: int = 1, **attrs: Any) -> str:
        """A node, whose output shapes are inferred; returns its first output."""
        first = self.node(op_type, *inputs, **attrs)
        del self.nodes[-1].output[:]
        self.nodes[-1].output.extend([first, *(f"{first}_{i}" for i in range(1, outputs))])
        self.shapes.update(self.inferred(self.nodes[-1]))
        self.unread += [name for name in self.nodes[-1].output if name in self.shapes]
        assert 0 not in self.shapes.get(first, (0,)), f"{op_type} {attrs}: its shape is not known"
        self.unread = [name for name in self.unread if name not in inputs]
        return first

    def inferred(self, node: onnx.NodeProto) -> dict[str, Shape]:
        """Shapes of the node's outputs, by onnxruntime: onnx knows not all."""
        inputs = sorted({*node.input} & {*self.shapes})
        graph = helper.make_graph(
            [node],
            "node",
            [self.value_info(name, self.shapes[name]) for name in inputs],
            [self.value_info(name, None) for name in node.output],
            [tensor for tensor in self.initializers if tensor.name in node.input],
        )
        opset = helper.make_opsetid("", self.opset)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
        session = onnxruntime.InferenceSession(model.SerializeToString(), QUIET)
        zeros = {name: np.zeros(self.shapes[name], np.float32) for name in inputs}
        results = session.run(list(node.output), zeros)
        return dict(zip(node.output, (result.shape for result in results), strict=True))

    @staticmethod
    def value_info(name: str, shape: Shape | None) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    def weights(self, *shape: int) -> str:
        """Random numbers that keep the scale of what they are multiplied with."""
        fan_in = max(1, math.prod(shape[1:]))
        return self.const(self.rng.normal(0, fan_in**-0.5, shape))

    def integers(self, *values: int) -> str:
        return self.const(values, np.int64)

    def axes(self, op_type: str, x: str, axes: Sequence[int], since: int, **attrs: Any) -> str:
        """A node whose axes are an attribute before an operator set and an input since."""
        if self.opset < since:
            return self.add(op_type, x, axes=list(axes), **attrs)
        return self.add(op_type, x, self.integers(*axes), **attrs)

    # ---- layers ---------------------------------------------------------------------------

    def windows(self, sizes: Shape, most: int, pads_below_kernel: bool = False) -> dict[str, Any]:
        """kernel_shape, strides, dilations and padding that fit."""
        kernel = [self.number(1, min(most, size)) for size in sizes]
        attrs: dict[str, Any] = {"kernel_shape": kernel}
        attrs["strides"] = [self.number(1, 3) for _ in sizes]
        form = self.pick("VALID", *SAME, "pads", "pads", "none")
        if form == "pads":
            limits = [k - 1 if pads_below_kernel else 2 for k in kernel] * 2
            attrs["pads"] = [self.number(0, min(2, limit)) for limit in limits]
        elif form != "none":
            attrs["auto_pad"] = form
        if form in SAME:  # onnxruntime knows neither steps over the kernel nor dilation here
            attrs["strides"] = [min(pair) for pair in zip(attrs["strides"], kernel, strict=True)]
        else:
            fits = [size >= 2 * k - 1 for size, k in zip(sizes, kernel, strict=True)]
            attrs["dilations"] = [self.pick(1, 2) if fit else 1 for fit in fits]
        return attrs

    def convolution(self) -> str:
        """Plain, grouped, depthwise with a multiplier, in one or two dimensions."""
        x = self.value(lambda shape: len(shape) in (3, 4))
        if not x:
            return ""
        channels, sizes = self.shapes[x][1], self.shapes[x][2:]
        attrs = self.windows(sizes, 4)
        group = self.pick(1, 1, self.divisor(channels), channels)
        out_c = group * self.number(1, max(1, 8 // group))
        inputs = [self.weights(out_c, channels // group, *attrs["kernel_shape"])]
        if self.pick(True, True, False):
            inputs.append(self.normal(out_c))
        if self.pick(True, False):
            del attrs["kernel_shape"]
        return self.add("Conv", x, *inputs, group=group, **attrs)

    def transposed_convolution(self) -> str:
        x = self.value(lambda shape: len(shape) in (3, 4) and math.prod(shape[2:]) <= 40)
        if not x:
            return ""
        channels, sizes = self.shapes[x][1], self.shapes[x][2:]
        kernel = [self.number(1, 4) for _ in sizes]
        strides = [self.number(1, 3) for _ in sizes]
        group = self.pick(1, 1, self.divisor(channels))
        share = self.number(1, 4)
        dilations = [self.pick(1, 1, 2) for _ in sizes]
        spare = [self.number(0, s - 1) for s in strides]
        extents = [
            (n - 1) * s + d * (k - 1) + 1
            for n, s, d, k in zip(sizes, strides, dilations, kernel, strict=True)
        ]
        pads = [self.number(0, min(1, (extent - 1) // 2)) for extent in (*extents, *extents)]
        attrs = {"strides": strides, "dilations": dilations, "output_padding": spare, "pads": pads}
        data = self.rng.normal(0, (channels * math.prod(kernel)) ** -0.5 * 2, (channels, share))
        weight = self.const(
            np.repeat(data[..., None], math.prod(kernel), -1).reshape(channels, share, *kernel)
            * self.rng.uniform(0.5, 1.5, (channels, share, *kernel))
        )
        bias = [self.normal(share * group)] if self.pick(True, False) else []
        return self.add("ConvTranspose", x, weight, *bias, group=group, **attrs)

    def batch_norm(self, x: str = "", channels: int = 0) -> str:
        x = x or self.value()
        channels = channels or self.shapes[x][1]
        positive = [self.const(self.rng.uniform(0.5, 2, channels)) for _ in range(2)]
        offset, mean = self.normal(channels), self.normal(channels)
        return self.add("BatchNormalization", x, positive[0], offset, mean, positive[1])

    def matmul(self) -> str:
        """A matrix along the last axis, or from the left along the last but one."""
        x = self.value(lambda shape: len(shape) in (2, 3, 4))
        shape, out = self.shapes[x], self.number(1, 8)
        if len(shape) > 2 and self.pick(True, False, False):
            return self.add("MatMul", self.weights(out, shape[-2]), x)
        matrix = self.rng.normal(0, shape[-1] ** -0.5, (shape[-1], out))
        return self.add("MatMul", x, self.const(matrix))

    def linear(self, x: str = "", out: int = 0) -> str:
        """Gemm of whatever was flattened."""
        x = self.flat(x or self.value())
        size, out = self.shapes[x][1], out or self.number(1, 24)
        weight, transposed = self.rng.normal(0, size**-0.5, (out, size)), self.pick(True, False)
        inputs = [self.const(weight if transposed else weight.T)]
        if self.pick(True, True, False):
            inputs.append(self.normal(*self.pick((out,), (1, out))))
        attrs = self.pick({}, {"alpha": 0.5, "beta": 2.0})
        return self.add("Gemm", x, *inputs, transB=int(transposed), **attrs)

    def flat(self, x: str) -> str:
        shape = self.shapes[x]
        if len(shape) == 2:
            return x
        form = self.pick("Flatten", "Reshape", "chain")
        if form == "Flatten":
            return self.add("Flatten", x)
        if form == "Reshape":
            return self.add("Reshape", x, self.integers(*self.pick((1, -1), (0, -1))))
        # As PyTorch's tracing exporter writes x.view(x.size(0), -1).
        size = self.node("Gather", self.node("Shape", x), self.const(0, np.int64), axis=0)
        size = self.node("Unsqueeze", size, self.integers(0))
        target = self.node("Concat", size, self.integers(-1), axis=0)
        flat = self.node("Reshape", x, target)
        self.shapes[flat] = (1, math.prod(shape))  # which onnx cannot infer
        self.unread = [name for name in self.unread if name != x] + [flat]
        return flat

    # ---- pooling --------------------------------------------------------------------------

    def pool(self) -> str:
        x = self.value(lambda shape: len(shape) in (3, 4))
        if not x:
            return ""
        op_type = self.pick("MaxPool", "AveragePool")
        attrs = self.windows(self.shapes[x][2:], 3, pads_below_kernel=True)
        if op_type == "AveragePool":
            attrs.pop("dilations", None)
            attrs["count_include_pad"] = self.pick(0, 1)
        elif not {"auto_pad", "pads"} & {*attrs}:
            # onnx and onnxruntime disagree on windows that begin behind the end.
            inside = all(map(operator.le, attrs["strides"], attrs["kernel_shape"]))
            attrs["ceil_mode"] = self.pick(0, int(inside))
        return self.add(op_type, x, **attrs)

    def global_pool(self) -> str:
        x = self.value(lambda shape: len(shape) in (3, 4))
        return self.add(self.pick("GlobalAveragePool", "GlobalMaxPool"), x) if x else ""

    def reduction(self) -> str:
        x = self.value()
        rank = len(self.shapes[x])
        axes = self.pick((1,), (-1,), (-1, -2), (1, 2, 3), *[(1,)] * 2)[: rank - 1]
        axes = tuple(range(1, rank)) if len(axes) == rank - 1 else axes
        keepdims = self.pick(0, 1) if rank - len(axes) > 1 else 1
        return self.axes(self.pick("ReduceMean", "ReduceMax"), x, axes, 18, keepdims=keepdims)

    # ---- element by element ---------------------------------------------------------------

    def function(self) -> str:
        known = [entry for entry in FUNCTIONS if entry[2] <= self.opset]
        op_type, attrs, _ = self.pick(*known)
        return self.add(op_type, self.value(), **attrs)

    def positive(self) -> str:
        """Functions of positive numbers."""
        x = self.add("Add", self.add("Sigmoid", self.value()), self.const(0.5))
        if self.pick(True, False, False, False):
            return self.add("Pow", x, self.const(self.pick(2.0, 0.5, -1.0)))
        return self.add(self.pick(*POSITIVE), x)

    def clip(self) -> str:
        low, high = self.pick((0.0, 6.0), (-1.0, 1.0), (0.0, None), (None, 0.5), (-0.25, 2.0))
        bounds = ["" if bound is None else self.const(bound) for bound in (low, high)]
        return self.add("Clip", self.value(), *bounds)

    def prelu(self) -> str:
        """With one slope, or one for each channel."""
        x = self.value()
        if self.pick(True, False):
            return self.add("PRelu", x, self.const([0.2]))
        _, channels, *positions = self.shapes[x]
        slopes = self.rng.uniform(-0.5, 1.5, (channels, *[1] * len(positions)))
        return self.add("PRelu", x, self.const(slopes))

    def hard_swish(self) -> str:
        """In four nodes, as exporters write it."""
        x = self.value()
        gate = self.add("Add", x, self.const(3.0))
        gate = self.add("Clip", gate, self.const(0.0), self.const(6.0))
        return self.add("Div", self.add("Mul", x, gate), self.const(6.0))

    def binary(self) -> str:
        """Two activations of shapes that go together."""
        a = self.value()
        shape = self.shapes[a]

        def fits(other: Shape) -> bool:
            pairs = zip(shape, other, strict=False)
            return len(other) == len(shape) and all(p == q or 1 in (p, q) for p, q in pairs)

        both = [a, self.value(fits)]
        if self.pick(True, False):
            both.reverse()
        return self.add(self.pick("Add", "Add", "Sub", "Mul"), *both)

    def binary_constant(self) -> str:
        x = self.value()
        shape = self.shapes[x]
        per_channel = (shape[1], *(1,) * (len(shape) - 2)) if len(shape) > 1 else ()
        op_type = self.pick("Add", "Sub", "Mul", "Div")
        other = self.pick((), per_channel, (1, *shape[1:]), (*(1,) * (len(shape) - 1), shape[-1]))
        if op_type == "Div":
            return self.add("Div", x, self.const(self.pick(2.0, -1.5)))
        constant = self.const(self.rng.uniform(0.5, 1.5, other) * self.pick(1, -1))
        if op_type != "Div" and self.pick(True, False):
            return self.add(op_type, constant, x)
        return self.add(op_type, x, constant)

    def sum(self) -> str:
        x = self.value()
        same = [self.value(lambda other: other == self.shapes[x]) for _ in range(2)]
        return self.add("Sum", x, *same)

    def squeeze_excite(self) -> str:
        x = self.value(lambda shape: len(shape) == 4)
        if not x:
            return ""
        channels = self.shapes[x][1]
        middle = self.number(1, 4)
        gate = self.add("GlobalAveragePool", x)
        gate = self.add("Conv", gate, self.weights(middle, channels, 1, 1), self.normal(middle))
        gate = self.add("Relu", gate)
        gate = self.add("Conv", gate, self.weights(channels, middle, 1, 1), self.normal(channels))
        gate = self.add(self.pick("Sigmoid", "HardSigmoid"), gate)
        return self.add("Mul", *self.pick((x, gate), (gate, x)))

    def softmax(self) -> str:
        x = self.value()
        return self.add("Softmax", x, axis=self.pick(1, -1))

    # ---- parts and orders -----------------------------------------------------------------

    def concat(self) -> str:
        x = self.value()
        shape = self.shapes[x]
        axis = self.number(1, len(shape) - 1)

        def fits(other: Shape) -> bool:
            cut = (*shape[:axis], *shape[axis + 1 :])
            return len(other) == len(shape) and (*other[:axis], *other[axis + 1 :]) == cut

        parts = [x, *(self.value(fits) for _ in range(self.number(1, 3)))]
        return self.add("Concat", *parts, axis=self.pick(axis, axis - len(shape)))

    def slice(self) -> str:
        x = self.value(lambda shape: max(shape[1:]) > 1)
        if not x:
            return ""
        shape = self.shapes[x]
        axis = self.pick(*(axis for axis, size in enumerate(shape) if axis and size > 1))
        size = shape[axis]
        form = self.pick("Slice", "Split", "Gather")
        if form == "Split":
            first = self.number(1, size - 1)
            sizes = self.integers(first, size - first)
            one = self.add("Split", x, sizes, axis=axis, outputs=2)
            return self.add("Concat", f"{one}_1", one, axis=axis) if self.pick(True, False) else one
        first, last = sorted((self.number(0, size - 1), self.number(0, size - 1)))
        if form == "Gather":
            return self.add("Gather", x, self.integers(*range(first, last + 1)), axis=axis)
        step = self.number(1, 2)
        bounds = (first, last + 1, step)
        if self.pick(True, False):
            bounds = (last, first - 1 if first else -(2**31), -step)
        return self.add(
            "Slice", x, *(self.integers(n) for n in (bounds[0], bounds[1], axis, bounds[2]))
        )

    def pad(self) -> str:
        x = self.value()
        rank = len(self.shapes[x])
        pads = [self.number(0, 2) if axis % rank else 0 for axis in range(2 * rank)]
        value = self.pick([], [self.const(0.0)], [self.const(0.7)])
        return self.add("Pad", x, self.integers(*pads), *value)

    def resize(self) -> str:
        x = self.value(lambda shape: len(shape) == 4)
        if not x:
            return ""
        n, channels, h, w = self.shapes[x]
        height, width = (self.pick(0.75 if size > 1 else 1, 1.25, 1.5, 2, 3) for size in (h, w))
        if (int(h * height), int(w * width)) == (h, w):
            height = 2  # onnxruntime copies a map that keeps its size, whatever ONNX's formula says
        attrs = {
            "coordinate_transformation_mode": self.pick(
                "asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners"
            ),
            "nearest_mode": self.pick("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"),
        }
        if self.pick(True, False):
            inputs = ("", self.const([1, 1, height, width]))
        else:
            inputs = ("", "", self.integers(n, channels, int(h * height), int(w * width)))
        return self.add("Resize", x, *inputs, mode="nearest", **attrs)

    def tile(self) -> str:
        x = self.value()
        repeats = [self.pick(1, 1, 2, 3) if axis else 1 for axis in range(len(self.shapes[x]))]
        return self.add("Tile", x, self.integers(*repeats))

    def view(self) -> str:
        """Reshape, Transpose, Squeeze, Unsqueeze, Flatten, and blocks to channels and back."""
        x = self.value()
        shape = self.shapes[x]
        form = self.pick("Reshape", "Transpose", "Transpose", "Squeeze", "Unsqueeze", "blocks")
        if form == "Reshape":
            total = math.prod(shape)
            first = self.divisor(total)
            second = self.divisor(total // first)
            target = self.pick((1, -1), (1, first, -1), (1, first, second, -1), (0, first, -1))
            return self.add("Reshape", x, self.integers(*target))
        if form == "Transpose":
            perm = self.random.sample(range(1, len(shape)), len(shape) - 1)
            return self.add("Transpose", x, perm=[0, *perm])
        if form == "Squeeze":
            ones = [axis for axis, size in enumerate(shape) if axis and size == 1]
            if not ones or len(shape) < 3:
                return ""
            return self.add("Squeeze", x, self.integers(self.pick(*ones)))
        if form == "Unsqueeze":
            if len(shape) > 3:
                return ""
            return self.add("Unsqueeze", x, self.integers(self.number(1, len(shape))))
        if len(shape) != 4:
            return ""
        size, mode = self.number(1, 2), self.pick("DCR", "CRD")
        if shape[1] % size**2 == 0:
            return self.add("DepthToSpace", x, blocksize=size, mode=mode)
        if shape[2] % size == 0 and shape[3] % size == 0:
            return self.add("SpaceToDepth", x, blocksize=size)
        return ""

    def nothing(self) -> str:
        """What vanishes."""
        return self.add(self.pick("Identity", "Dropout"), self.value())

    # ---- the whole ------------------------------------------------------------------------

    def grow(self, form: Callable[[RandomNet], str], seed: int) -> None:
        """One more operator; or none, where none of this kind fits."""
        self.random = Random(seed)
        nodes, shapes, unread = len(self.nodes), dict(self.shapes), list(self.unread)
        form(self)
        new = [shape for name, shape in self.shapes.items() if name not in shapes]
        if any(math.prod(shape) > MAX_ELEMS or 0 in shape for shape in new):
            del self.nodes[nodes:]
            self.shapes, self.unread = shapes, unread

    def head(self) -> str:
        """Whatever nobody has read, then the class scores."""
        leaves, features = [], 0
        for name in reversed(self.unread):
            size = math.prod(self.shapes[name])
            if not leaves or features + size <= MAX_FEATURES:
                leaves.append(name)
                features += size
        (last, *others), x = leaves, leaves[0]
        if len(self.shapes[last]) == 4 and not others and self.pick(True, False):
            x = self.add("GlobalAveragePool", last)
        vectors = [self.flat(x), *(self.flat(name) for name in others)]
        whole = self.add("Concat", *vectors, axis=1) if others else vectors[0]
        scores = self.linear(whole, CLASSES)
        return self.add("Softmax", scores) if self.pick(True, False, False) else scores


STEPS: tuple[Callable[[RandomNet], str], ...] = (
    *(RandomNet.convolution,) * 5,
    *(RandomNet.transposed_convolution,) * 2,
    *(RandomNet.function,) * 2,
    *(RandomNet.pool,) * 2,
    *(RandomNet.binary,) * 3,
    *(RandomNet.view,) * 2,
    RandomNet.batch_norm,
    RandomNet.binary_constant,
    RandomNet.clip,
    RandomNet.concat,
    RandomNet.global_pool,
    RandomNet.hard_swish,
    RandomNet.linear,
    RandomNet.matmul,
    RandomNet.nothing,
    RandomNet.pad,
    RandomNet.positive,
    RandomNet.prelu,
    RandomNet.reduction,
    RandomNet.resize,
    RandomNet.slice,
    RandomNet.softmax,
    RandomNet.squeeze_excite,
    RandomNet.sum,
    RandomNet.tile,
)


SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def networks(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Network:
    """A network of up to a dozen operators and a way to train it. hypothesis draws the operators,
    each with a seed for its form, so that it can leave out those that a failure does not need."""
    net = RandomNet(draw(SEEDS))
    for form, seed in draw(st.lists(st.tuples(st.sampled_from(STEPS), SEEDS), max_size=12)):
        net.grow(form, seed)
    net.random = Random(draw(SEEDS))
    model = net.model(net.head())
    return Network(model, draw(st.sampled_from(UPDATES)), draw(SEEDS))
