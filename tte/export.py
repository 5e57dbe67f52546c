# SPDX-License-Identifier: Apache-2.0
"""An integer forward graph as an ONNX file in QDQ form, and trained weights in it.

What the device computes, node by node: inputs dequantised, one operator on real numbers, a clamp,
the output quantised. Activations are [N, C, H, W] or [N, features], weights and biases keep their
codes; functions by table are a Gather. The initialisers of weights have the names of the graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tte.errors import TteError
from tte.ir import Graph, Op, QuantParams, TensorType, TrainPlan

Array = NDArray[Any]
OPSET, IR_VERSION = 19, 9
TO_MAP = (0, 3, 1, 2)  # NHWC to NCHW, OHWI to OIHW
TO_MEMORY = (0, 2, 3, 1)
MAP_AXIS = (0, 2, 3, 1)  # where an axis of NHWC is in NCHW
BIAS_CODES = 2**30  # docs/numerics.md, section 3


@dataclass(frozen=True, slots=True)
class TrainedWeight:
    """Where a trained tensor lies in the file. `shape`: of the whole weight in the graph; its axes
    in the order `perm` are the initialiser's. `channels` of its axis `axis` are trained; None: all.
    """

    state: str
    initializer: str
    shape: tuple[int, ...]
    perm: tuple[int, ...]
    channels: tuple[int, ...] | None
    axis: int

    def from_file(self, whole: Array) -> Array:
        """The trained codes of an initialiser."""
        moved = whole.reshape([self.shape[axis] for axis in self.perm])
        codes = moved.transpose(np.argsort(self.perm))
        return codes if self.channels is None else np.take(codes, self.channels, self.axis)

    def into_file(self, codes: Array, whole: Array) -> Array:
        """An initialiser with these trained codes."""
        moved = whole.reshape([self.shape[axis] for axis in self.perm])
        mixed = moved.transpose(np.argsort(self.perm)).copy()
        where: list[Any] = [slice(None)] * mixed.ndim
        if self.channels is not None:
            where[self.axis] = list(self.channels)
        mixed[tuple(where)] = codes.reshape(mixed[tuple(where)].shape)
        return np.ascontiguousarray(mixed.transpose(self.perm).reshape(whole.shape))

    def state_shape(self) -> tuple[int, ...]:
        sizes = list(self.shape)
        if self.channels is not None:
            sizes[self.axis] = len(self.channels)
        return tuple(sizes)


def trained_weights(forward: Graph, plan: TrainPlan, trained: Sequence[str]) -> list[TrainedWeight]:
    """Those of the trained tensors that are weights or biases of the forward graph."""
    found = []
    for op in forward.ops:
        update = plan.of(op.name)
        if update is None:
            continue
        for name in op.inputs[1:3]:
            is_weight = name == op.inputs[1]
            state = next((one for one in (name, f"{name}.trained") if one in trained), None)
            if state is None:
                continue
            shape = forward[name].type.shape
            channels = update.channels if is_weight and state != name else None
            axis = 0 if op.kind.startswith("depthwise") else len(shape) - 1
            perm = _perm(op, shape)
            found.append(TrainedWeight(state, name, shape, perm, channels, axis))
    return found


def _perm(op: Op, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) < 4:
        return tuple(range(len(shape)))
    is_transposed = op.kind.startswith("conv_transpose") and op.attrs.window.groups == 1
    return (3, 0, 1, 2) if is_transposed else TO_MAP


def to_onnx(forward: Graph, ending: str = "") -> bytes:
    """The file. `ending`: "softmax" or "sigmoid", which the network ended in before it became part
    of the loss."""
    try:
        return _file(forward, ending)
    except TteError:
        raise
    except Exception as error:  # onnx raises many kinds, on names for example
        raise TteError(
            "the network cannot be written as ONNX", why=f"{type(error).__name__}: {error}"
        ) from error


def _file(forward: Graph, ending: str) -> bytes:
    from onnx import TensorProto, checker, helper, numpy_helper

    writer = _Writer(forward)
    for op in forward.ops:
        rule = _RULES.get(op.kind)
        if rule is None:
            raise TteError(f"{op.kind} cannot be written as ONNX", where=op.origin or op.name)
        rule(op, writer)
    name = forward.outputs[0]
    output = writer.real(name)
    last = {"softmax": "Softmax", "sigmoid": "Sigmoid"}.get(ending, "Identity")
    result = writer.name("output" if name in writer.taken else name)
    writer.add(last, [output], result, **({"axis": 1} if ending == "softmax" else {}))
    source = forward.inputs[0]
    shapes = [_file_shape(forward[one].type) for one in (source, name)]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output], name=output, **attrs)
         for kind, inputs, output, attrs in writer.nodes],
        forward.name or "model",
        [helper.make_tensor_value_info(writer.input, TensorProto.FLOAT, ["N", *shapes[0]])],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, ["N", *shapes[1]])],
        [numpy_helper.from_array(data, name) for name, data in writer.constants.items()],
    )  # fmt: skip
    model = helper.make_model(
        graph, producer_name="tte", opset_imports=[helper.make_opsetid("", OPSET)]
    )
    model.ir_version = IR_VERSION
    checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _file_shape(tensor: TensorType) -> list[int]:
    """Without the batch."""
    shape = tensor.shape
    return [shape[3], shape[1], shape[2]] if len(shape) == 4 else list(shape[1:])


class _Writer:
    """Collects nodes and initialisers. Every tensor of the graph has up to two values in the file:
    its codes and its real numbers."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[tuple[str, list[str], str, dict[str, Any]]] = []
        self.constants: dict[str, Array] = {}
        # Weights keep their names.
        self.taken = {tensor.name for tensor in graph.tensors.values() if tensor.data is not None}
        self._codes: dict[str, str] = {}
        self._reals: dict[str, str] = {}
        source = graph.inputs[0]
        self.input = self.name(source)
        quant = graph[source].quant
        assert quant is not None
        self._codes[source] = self.quantize(self.input, source, quant)

    def name(self, wanted: str) -> str:
        """A name that nothing else has."""
        found, count = wanted, 2
        while found in self.taken:
            found, count = f"{wanted}_{count}", count + 1
        self.taken.add(found)
        return found

    def add(self, kind: str, inputs: Sequence[str], output: str, **attrs: Any) -> str:
        """A node; its output is named already."""
        self.nodes.append((kind, list(inputs), output, attrs))
        return output

    def node(self, kind: str, inputs: Sequence[str], wanted: str, **attrs: Any) -> str:
        return self.add(kind, inputs, self.name(wanted), **attrs)

    def constant(self, wanted: str, data: Array) -> str:
        name = self.name(wanted)
        self.constants[name] = data
        return name

    # ---- tensors of the graph -------------------------------------------------------------

    def quantize(self, real: str, tensor: str, quant: QuantParams) -> str:
        return self.node("QuantizeLinear", [real, *self.scale_of(tensor, quant)], f"{tensor}.codes")

    def scale_of(self, tensor: str, quant: QuantParams) -> list[str]:
        """Scale and zero point of an activation."""
        scale = self.constant(f"{tensor}.scale", np.float32(quant.per_tensor_scale))
        return [scale, self.constant(f"{tensor}.zero_point", np.int8(quant.zero_point))]

    def codes(self, tensor: str) -> str:
        return self._codes[tensor]

    def real(self, tensor: str) -> str:
        """An activation, or a constant operand, as real numbers."""
        if tensor not in self._reals:
            entry = self.graph[tensor]
            assert entry.quant is not None
            if entry.data is not None:
                data = entry.data.transpose(TO_MAP) if entry.data.ndim == 4 else entry.data
                self._codes[tensor] = tensor
                self.constants[tensor] = np.ascontiguousarray(data)
            inputs = [self._codes[tensor], *self.scale_of(tensor, entry.quant)]
            self._reals[tensor] = self.node("DequantizeLinear", inputs, f"{tensor}.real")
        return self._reals[tensor]

    def finish(self, op: Op, real: str, low: int = -128, high: int = 127) -> None:
        """`real` is the op's output: clamped to a range of codes, then quantised."""
        tensor = op.outputs[0]
        quant = self.graph[tensor].quant
        assert quant is not None
        scale, zero = quant.per_tensor_scale, quant.zero_point
        if low == zero and high == 127:
            real = self.node("Relu", [real], f"{tensor}.relu") if low > -128 else real
        elif (low, high) != (-128, 127):
            bounds = [np.float32((code - zero) * scale) for code in (low, high)]
            least = self.constant(f"{tensor}.min", bounds[0])
            most = self.constant(f"{tensor}.max", bounds[1])
            real = self.node("Clip", [real, least, most], f"{tensor}.clip")
        self._codes[tensor] = self.quantize(real, tensor, quant)

    def keep(self, op: Op, *, codes: str = "", real: str = "") -> None:
        """The op's output is a value of the file as it is."""
        if codes:
            self._codes[op.outputs[0]] = codes
        else:
            self._reals[op.outputs[0]] = real

    def weights(self, op: Op) -> list[str]:
        """Weight and bias of a layer, dequantised, in the order of the file."""
        values = []
        for name in op.inputs[1:3]:
            tensor = self.graph[name]
            assert tensor.data is not None and tensor.quant is not None
            perm = _perm(op, tensor.type.shape)
            data = tensor.data.transpose(perm)
            axis = perm.index(0)
            if op.kind != "conv_transpose2d_int8" and self.is_flat(op):
                data = data.reshape(len(data), -1) if data.ndim == 4 else data
            self.constants[name] = np.ascontiguousarray(data)
            channels = data.shape[axis]
            scale = tensor.quant.scales(channels).astype(np.float32)
            inputs = [name, self.constant(f"{name}.scale", scale)]
            inputs.append(self.constant(f"{name}.zero_point", np.zeros(channels, data.dtype)))
            values.append(self.node("DequantizeLinear", inputs, f"{name}.real", axis=axis))
        return values

    def is_flat(self, op: Op) -> bool:
        return len(self.graph[op.inputs[0]].type.shape) == 2

    # ---- the order of memory --------------------------------------------------------------

    def reshape(self, real: str, sizes: Sequence[int], wanted: str) -> str:
        """Each sample in another shape."""
        shape = self.constant(f"{wanted}.shape", np.asarray([0, *sizes], np.int64))
        return self.node("Reshape", [real, shape], wanted)

    def in_memory(self, tensor: str) -> str:
        """Real numbers in the order in which the device stores them, in any shape."""
        shape, real = self.graph[tensor].type.shape, self.real(tensor)
        if len(shape) == 2 or shape[3] == 1 or shape[1] == shape[2] == 1:
            return real
        return self.node("Transpose", [real], f"{tensor}.memory", perm=TO_MEMORY)

    def from_memory(self, real: str, tensor: str) -> str:
        """The inverse, for the tensor's shape."""
        shape = self.graph[tensor].type.shape
        if len(shape) == 2 or shape[3] == 1 or shape[1] == shape[2] == 1:
            return self.reshape(real, _file_shape(self.graph[tensor].type), f"{tensor}.shaped")
        real = self.reshape(real, shape[1:], f"{tensor}.shaped")
        return self.node("Transpose", [real], f"{tensor}.map", perm=TO_MAP)


# ---- rules --------------------------------------------------------------------------------


def _window(attrs: Any) -> dict[str, Any]:
    window = attrs.window
    named = {"kernel_shape": window.kernel, "strides": window.stride, "pads": window.pads}
    # onnxruntime's optimised AveragePool takes no dilations, not even those of 1.
    return named if window.dilation == (1, 1) else named | {"dilations": window.dilation}


def _convolution(op: Op, writer: _Writer) -> None:
    x, weights, requant = writer.real(op.inputs[0]), writer.weights(op), op.attrs.requant
    wanted = f"{op.outputs[0]}.sum"
    if writer.is_flat(op):
        real = writer.node("Gemm", [x, *weights], wanted, transB=1)
    else:
        group = op.attrs.window.groups
        if op.kind.startswith("depthwise"):
            group = writer.graph[op.inputs[1]].type.shape[0]
        real = writer.node("Conv", [x, *weights], wanted, **_window(op.attrs), group=group)
    writer.finish(op, real, requant.act_min, requant.act_max)


def _transposed_convolution(op: Op, writer: _Writer) -> None:
    attrs, window = op.attrs, op.attrs.window
    weight, bias = writer.weights(op)
    if window.groups > 1:  # scales by output channel have an axis before, not after the move
        out_c, kernel_h, kernel_w, share = writer.graph[op.inputs[1]].type.shape
        name, kernel, groups = op.inputs[1], (kernel_h, kernel_w), window.groups
        sizes = [(groups, out_c // groups, share, *kernel), (-1, out_c // groups, *kernel)]
        shapes = [writer.constant(f"{name}.shape", np.asarray(size, np.int64)) for size in sizes]
        weight = writer.node("Reshape", [weight, shapes[0]], f"{name}.groups")
        weight = writer.node("Transpose", [weight], f"{name}.moved", perm=(0, 2, 1, 3, 4))
        weight = writer.node("Reshape", [weight, shapes[1]], f"{name}.joined")
    in_size = writer.graph[op.inputs[0]].type.shape[1:3]
    more = [
        attrs.size[i]
        - ((in_size[i] - 1) * window.stride[i] + window.dilation[i] * (window.kernel[i] - 1) + 1)
        + window.pads[i]
        + window.pads[i + 2]
        for i in (0, 1)
    ]
    real = writer.node(
        "ConvTranspose", [writer.real(op.inputs[0]), weight, bias], f"{op.outputs[0]}.sum",
        **_window(attrs), group=window.groups, output_padding=more,
    )  # fmt: skip
    writer.finish(op, real, attrs.requant.act_min, attrs.requant.act_max)


def _linear(op: Op, writer: _Writer) -> None:
    inputs = [writer.real(op.inputs[0]), *writer.weights(op)]
    writer.keep(op, real=writer.node("Gemm", inputs, f"{op.outputs[0]}.sum", transB=1))


def _add(op: Op, writer: _Writer) -> None:
    signs = [math.copysign(1.0, factor) for factor in op.attrs.factors]
    a, b = (writer.real(name) for name in op.inputs)
    inputs = [b, a] if signs[0] < 0 else [a, b]
    real = writer.node("Add" if signs[0] == signs[1] else "Sub", inputs, f"{op.outputs[0]}.sum")
    if signs == [-1.0, -1.0]:
        real = writer.node("Neg", [real], f"{op.outputs[0]}.negative")
    writer.finish(op, real, op.attrs.act_min, op.attrs.act_max)


def _mul(op: Op, writer: _Writer) -> None:
    inputs = [writer.real(name) for name in op.inputs]
    real = writer.node("Mul", inputs, f"{op.outputs[0]}.product")
    writer.finish(op, real, op.attrs.requant.act_min, op.attrs.requant.act_max)


def _clip(op: Op, writer: _Writer) -> None:
    writer.finish(op, writer.real(op.inputs[0]), op.attrs.act_min, op.attrs.act_max)


def _table(op: Op, writer: _Writer) -> None:
    """table[code + 128]."""
    y = op.outputs[0]
    index = writer.node("Cast", [writer.codes(op.inputs[0])], f"{y}.code", to=6)  # int32
    first = writer.constant(f"{y}.first", np.int32(128))
    index = writer.node("Add", [index, first], f"{y}.index")
    table = writer.constant(f"{y}.table", np.asarray(op.attrs.table, np.int8))
    writer.keep(op, codes=writer.node("Gather", [table, index], f"{y}.codes", axis=0))


def _softmax(op: Op, writer: _Writer) -> None:
    writer.finish(
        op, writer.node("Softmax", [writer.real(op.inputs[0])], f"{op.outputs[0]}.share", axis=1)
    )


def _avg_pool(op: Op, writer: _Writer) -> None:
    x, y, attrs = writer.real(op.inputs[0]), f"{op.outputs[0]}.mean", op.attrs
    height, width = writer.graph[op.inputs[0]].type.shape[1:3]
    if attrs.window.kernel == (height, width) and not any(attrs.window.pads):
        real = writer.node("GlobalAveragePool", [x], y)
    else:
        counted = int(attrs.count_include_pad)
        real = writer.node("AveragePool", [x], y, **_window(attrs), count_include_pad=counted)
    writer.finish(op, real, attrs.requant.act_min, attrs.requant.act_max)


def _max_pool(op: Op, writer: _Writer) -> None:
    x, y = writer.real(op.inputs[0]), op.outputs[0]
    named, window = _window(op.attrs), op.attrs.window
    if any(pad >= window.kernel[i % 2] for i, pad in enumerate(window.pads)):
        # More than the operator takes.
        quant = writer.graph[op.inputs[0]].quant
        assert quant is not None
        lowest = np.float32((-128 - quant.zero_point) * quant.per_tensor_scale)
        sizes = np.asarray([0, 0, *window.pads[:2], 0, 0, *window.pads[2:]], np.int64)
        constants = writer.constant(f"{y}.pads", sizes), writer.constant(f"{y}.lowest", lowest)
        x, named["pads"] = writer.node("Pad", [x, *constants], f"{y}.padded"), (0, 0, 0, 0)
    writer.finish(op, writer.node("MaxPool", [x], f"{y}.max", **named))


def _concat(op: Op, writer: _Writer) -> None:
    axis = MAP_AXIS[op.attrs.axis] if not writer.is_flat(op) else op.attrs.axis
    inputs = [writer.real(name) for name in op.inputs]
    writer.finish(op, writer.node("Concat", inputs, f"{op.outputs[0]}.joined", axis=axis))


def _strided_copy(op: Op, writer: _Writer) -> None:
    attrs, y = op.attrs, op.outputs[0]
    if attrs.step is None or min(attrs.step) < 1:
        size = writer.graph[op.inputs[0]].type.elems
        flat = writer.reshape(writer.in_memory(op.inputs[0]), [size], f"{y}.flat")
        index = writer.constant(f"{y}.order", attrs.index().astype(np.int64))
        moved = writer.node("Gather", [flat, index], f"{y}.moved", axis=1)
        writer.finish(op, writer.from_memory(moved, y))
        return
    last = [
        first + step * (count - 1) + 1
        for first, step, count in zip(attrs.begin, attrs.step, attrs.sizes, strict=True)
    ]
    rows: dict[str, Sequence[int]] = {"starts": attrs.begin, "ends": last, "axes": (2, 3, 1)}
    rows["steps"] = attrs.step
    if writer.is_flat(op):
        rows = {name: values[2:] for name, values in rows.items()}
    named = [writer.constant(f"{y}.{k}", np.asarray(v, np.int64)) for k, v in rows.items()]
    writer.finish(op, writer.node("Slice", [writer.real(op.inputs[0]), *named], f"{y}.part"))


def _pad(op: Op, writer: _Writer) -> None:
    y, attrs = op.outputs[0], op.attrs
    quant = writer.graph[y].quant
    assert quant is not None
    order = (2,) if writer.is_flat(op) else (2, 0, 1)  # of height, width, channels
    sizes = [0, *(attrs.before[i] for i in order), 0, *(attrs.after[i] for i in order)]
    inputs = [
        writer.real(op.inputs[0]),
        writer.constant(f"{y}.pads", np.asarray(sizes, np.int64)),
        writer.constant(
            f"{y}.fill", np.float32((attrs.fill - quant.zero_point) * quant.per_tensor_scale)
        ),
    ]
    writer.finish(op, writer.node("Pad", inputs, f"{y}.padded"))


def _resize(op: Op, writer: _Writer) -> None:
    y = op.outputs[0]
    if not all(isinstance(copies, int) for copies in op.attrs.factors):
        real = writer.real(op.inputs[0])
        shape = writer.graph[op.inputs[0]].type.shape
        for axis, copies in ((2, op.attrs.factors[0]), (3, op.attrs.factors[1])):
            index = np.arange(shape[axis - 1]).repeat(copies)
            inputs = [real, writer.constant(f"{y}.sources{axis}", index)]
            real = writer.node("Gather", inputs, f"{y}.resized{axis}", axis=axis)
        writer.finish(op, real)
        return
    scales = writer.constant(f"{y}.factors", np.asarray([1, 1, *op.attrs.factors], np.float32))
    real = writer.node(
        "Resize", [writer.real(op.inputs[0]), "", scales], f"{y}.resized",
        mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip
    writer.finish(op, real)


def _reshape(op: Op, writer: _Writer) -> None:
    writer.finish(op, writer.from_memory(writer.in_memory(op.inputs[0]), op.outputs[0]))


def _widen(op: Op, writer: _Writer) -> None:
    writer.keep(op, real=writer.real(op.inputs[0]))


_RULES: Mapping[str, Callable[[Op, _Writer], None]] = {
    "conv2d_int8": _convolution,
    "depthwise_conv2d_int8": _convolution,
    "conv_transpose2d_int8": _transposed_convolution,
    "linear_int32": _linear,
    "add_int8": _add,
    "add_broadcast_int8": _add,
    "mul_int8": _mul,
    "clip_int8": _clip,
    "table_int8": _table,
    "softmax_int8": _softmax,
    "avg_pool2d_int8": _avg_pool,
    "max_pool2d_int8": _max_pool,
    "concat_int8": _concat,
    "strided_copy_int8": _strided_copy,
    "pad_int8": _pad,
    "resize_nearest2d_int8": _resize,
    "reshape": _reshape,
    "widen_int32": _widen,
}


# ---- trained weights in a file ------------------------------------------------------------


def with_weights(
    content: bytes, weights: Mapping[str, Array], metadata: Mapping[str, str]
) -> bytes:
    """The file with other codes in some initialisers, and with metadata."""
    from onnx import helper, load_from_string, numpy_helper

    model = load_from_string(content)
    for entry in model.graph.initializer:
        if entry.name in weights:
            entry.CopyFrom(numpy_helper.from_array(weights[entry.name], entry.name))
    helper.set_model_props(model, dict(metadata))
    result: bytes = model.SerializeToString(deterministic=True)
    return result


def read_weights(content: bytes, where: str) -> tuple[dict[str, Array], dict[str, str]]:
    """All initialisers of a file, and its metadata."""
    from onnx import load_from_string, numpy_helper

    try:
        model = load_from_string(content)
        arrays = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
        metadata = {entry.key: entry.value for entry in model.metadata_props}
    except Exception as error:  # protobuf and onnx raise many kinds on a damaged file
        raise TteError(
            "the file is no ONNX model", where=where, why=f"{type(error).__name__}: {error}"
        ) from error
    return arrays, metadata
