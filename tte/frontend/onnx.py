# SPDX-License-Identifier: Apache-2.0
"""ONNX becomes a float graph: NHWC activations of rank 4, or [1, C], with N = 1.

What an operator means is told by the rules in tte/ops (ONNX_RULES). Only what is no computation
on a device is handled here: constants, aliases, shape arithmetic (fold_constants.py), the order
of axes (tte/ops/layout.py), and quantisation. A DequantizeLinear of a constant is a constant that
keeps its codes; a QuantizeLinear followed by DequantizeLinear annotates the activation before
them with its scale and zero point.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tte.errors import TteError
from tte.frontend.fold_constants import FOLDED, LAYOUTS, check_cost
from tte.frontend.onnx_file import (
    EXPORT_HINT,
    SUBGRAPH,
    OnnxFile,
    OnnxValue,
    live_nodes,
    read_onnx,
)
from tte.frontend.qoperator import decompose
from tte.frontend.unsupported import unsupported
from tte.ir import Graph, QuantParams, Role, TensorType
from tte.ops import FLOAT_OPS, ONNX_RULES
from tte.ops.clip import ClipAttrs
from tte.ops.layout import Layout, channels_last, moves
from tte.ops.quantized import NO_CLAMP
from tte.ops.reshape import VIEW_RULES, ReshapeAttrs
from tte.ops.spec import Array, GraphBuilder, OnnxNode
from tte.ops.transpose import MAX_DIMS, TransposeAttrs

MAX_ACTIVATION_ELEMS = 1 << 24
MAX_DOTS = 100  # that a tensor's name keeps
MAX_CONSTANT_ELEMS = 1 << 25  # as often as nodes use them
# Tensors that training adds.
RESERVED = frozenset(
    {"label", "target", "learning_rate", "loss", "step"} | {"sgd_step", "sgd_count", "sample_share"}
)
DERIVED = (
    ".grad_input",
    ".grad_weight",
    ".grad_bias",
    ".sgd_weight",
    ".sgd_bias",
)  # ops that passes add to an op


def load_model(path: Path) -> Graph:
    """The float graph of an ONNX file; TteError for whatever is wrong with it.

    An input of three or four dimensions is read as [N, C, ...], unless fewer transposes are left
    where it is [N, ..., C]. One that is flattened at once is no reason for either: then axis 1 is
    the channels if it is shorter than the last one, as in a picture.
    """
    return import_file(read_onnx(path), str(path))


def import_file(file: OnnxFile, where: str, channels_last: bool = False) -> Graph:
    """The float graph of what a file holds; `channels_last`: its input is known to be."""
    try:
        file = decompose(file, where)
        if channels_last:
            return _Importer(file, where, channels_last).run()
        return _in_the_better_order(file, where)
    except TteError:
        raise
    except Exception as error:
        raise TteError(
            "the model cannot be imported",
            where=where,
            why=f"{type(error).__name__}: {error}",
            hint=EXPORT_HINT,
        ) from error


def _in_the_better_order(file: OnnxFile, where: str) -> Graph:
    """The graph with the input's channels first or last in the file."""
    first = _Importer(file, where)
    try:
        graph = first.run()
    except TteError as error:
        try:
            return _Importer(file, where, channels_last=True).run()
        except TteError:
            raise error from None
    if not first.transposes:
        return graph
    last = _Importer(file, where, channels_last=True)
    try:
        other = last.run()
    except TteError:
        return graph
    return other if last.transposes < first.transposes else graph


@dataclass(frozen=True, slots=True)
class _Constant:
    """A constant as in the file; with `quant`, `data` are its codes."""

    data: Array
    quant: QuantParams | None = None

    @property
    def real(self) -> Array:
        return self.data if self.quant is None else self.quant.dequantize(self.data)


@dataclass(frozen=True, slots=True)
class _Activation:
    """A tensor of the graph that is built, and what it is in the file."""

    tensor: str
    layout: Layout


@dataclass(frozen=True, slots=True)
class _Codes:
    """A quantised activation; `quant` is None at an integer input, until it is dequantised."""

    tensor: str
    layout: Layout
    dtype: str
    quant: QuantParams | None


_Value = _Constant | _Activation | _Codes


class _Importer:
    """Implements tte.ops.spec.Importer for one node after the other."""

    def __init__(self, file: OnnxFile, where: str, channels_last: bool = False) -> None:
        self.file = file
        self.where = where
        self.channels_last = channels_last  # of the input
        self.is_picture = False  # [N, C, ...] with a short axis of channels
        self.transposes = 0  # that are left, but for those of a picture's Reshape
        self.stored_as: dict[tuple[str, ReshapeAttrs | TransposeAttrs], str] = {}
        self.builder = GraphBuilder(file.name)
        self.values: dict[str, _Value] = {}
        self.nodes: list[OnnxNode] = []
        self.node = OnnxNode("", "", (), (), {}, file.opset)
        self.new_weights: set[str] = set()
        self.op_names: set[str] = set()  # of the file's live nodes
        self.constant_elems = 0  # that nodes have used
        self.emitted: set[str] = set()
        self.numbers: Counter[str] = Counter()  # last number behind a name
        self.known_here: dict[str, Callable[[], None]] = {
            "Constant": self.constant_node,
            "Identity": lambda: self.alias(self.node.inputs[0]),
            "Dropout": self.dropout,
            "QuantizeLinear": self.quantize_linear,
            "DequantizeLinear": self.dequantize_linear,
            "Shape": self.shape_node,
            "Cast": self.cast,
        }

    @cached_property
    def file_names(self) -> frozenset[str]:
        """All names of the file's values and live nodes."""
        return self.value_names | self.op_names

    @cached_property
    def value_names(self) -> frozenset[str]:
        """All names of the file's values."""
        names = set(self.file.constants)
        names.update(value.name for value in self.file.inputs)
        names.update(name for node in self.file.nodes for name in node.outputs)
        return frozenset(names)

    def run(self) -> Graph:
        """The whole file."""
        self.check_names()
        model_input, output = self.boundary()
        self.nodes = self.named(live_nodes(self.file.nodes, [output.name]))
        self.check_operators()
        self.op_names = {node.name for node in self.nodes}
        self.values.update((name, _Constant(data)) for name, data in self.file.constants.items())
        self.add_input(model_input)
        for node in self.nodes:
            self.import_node(node)
        return self.graph(model_input, output)

    # ---- the file as a whole --------------------------------------------------------------

    def error(self, what: str, why: str = "", hint: str = "") -> TteError:
        return TteError(what, where=self.where, why=why, hint=hint)

    def check_names(self) -> None:
        """Every value has one source."""
        sources = Counter(list(self.file.constants))
        sources.update(value.name for value in self.file.inputs)
        sources.update(name for node in self.file.nodes for name in node.outputs if name)
        for name, count in sources.items():
            if count > 1 or not name:
                raise self.error(
                    f"the value {name!r} is defined {count} times",
                    "each value of a model has one node, input or initializer that gives it",
                )

    def boundary(self) -> tuple[OnnxValue, OnnxValue]:
        """The input and the output."""
        for kind, values in (("input", self.file.inputs), ("output", self.file.outputs)):
            if len(values) != 1:
                names = ", ".join(value.name for value in values[:8]) or "none"
                raise self.error(
                    f"the model has {len(values)} {kind}s: {names}",
                    "one input and one output (the class scores) are supported",
                    "export the part of the network between the image and the scores",
                )
        return self.file.inputs[0], self.file.outputs[0]

    def named(self, nodes: Sequence[OnnxNode]) -> list[OnnxNode]:
        """The nodes with unique names."""
        taken = {node.name for node in nodes if node.name}
        seen: set[str] = set()
        counts: Counter[str] = Counter()
        result = []
        for node in nodes:
            name = node.name.replace("\n", " ")
            if not name or name in seen or name in RESERVED or name.endswith(DERIVED):
                base = name or node.op_type
                while not name or name in taken:
                    name = f"{base}_{counts[base]}"
                    counts[base] += 1
                taken.add(name)
            seen.add(name)
            result.append(
                OnnxNode(node.op_type, name, node.inputs, node.outputs, node.attrs, node.opset)
            )
        return result

    def check_operators(self) -> None:
        """All operators are known, or an error that names the first and counts the others."""
        supported = {*ONNX_RULES, *self.known_here, *FOLDED}
        unknown = [node for node in self.nodes if node.op_type not in supported]
        if not unknown:
            return
        first = unknown[0]
        raise unsupported(
            first.op_type,
            Counter(node.op_type for node in unknown),
            {*ONNX_RULES, *self.known_here},
            f"{self.where}, node {first.name!r}",
        )

    def add_input(self, value: OnnxValue) -> None:
        """The graph's input: [N, C, H, W], [N, C, L] or [N, C] in the file, or [N, ..., C]."""
        dims = value.dims
        shape_text = "of unknown shape" if dims is None else f"[{_dims_text(dims)}]"
        what = f"the model's input {value.name!r} is {shape_text}, {value.dtype}"
        if dims is None or len(dims) not in (2, 3, 4):
            wanted = "[batch, channels, height, width], [batch, channels, length] or "
            raise self.error(what, f"it must be {wanted}[batch, features]")
        if any(size is None for size in dims[1:]):
            raise self.error(
                what,
                "only the batch dimension may be dynamic",
                "export the model with a fixed input size",
            )
        sizes = [int(size) for size in dims[1:] if size is not None]
        if min(sizes) < 1:
            raise self.error(what, "a size must be at least 1")
        if dims[0] not in (None, 0, 1, -1):
            raise self.error(
                what,
                "the device trains with one sample at a time",
                "export the model with a batch of 1 or a dynamic batch dimension",
            )
        if value.dtype not in ("float", "float16", "double", "int8", "uint8"):
            raise self.error(what, "it must be float, or int8/uint8 before DequantizeLinear")
        self.is_picture = sizes[0] < sizes[-1]
        memory = tuple(range(len(dims))) if self.channels_last else channels_last(len(dims))
        layout = Layout((1, *sizes), memory)
        shape = layout.map_shape
        self.check_size(shape, f"the model's input {value.name!r}")
        tensor = self.activation_name(value.name)
        self.builder.tensor(tensor, shape, "float32", Role.INPUT)
        if value.dtype in ("int8", "uint8"):
            self.values[value.name] = _Codes(tensor, layout, value.dtype, None)
        else:
            self.values[value.name] = _Activation(tensor, layout)

    def check_size(self, shape: Sequence[int], what: str) -> None:
        if math.prod(shape) > MAX_ACTIVATION_ELEMS or max(shape) > 0xFFFF:
            raise self.error(
                f"{what} has the size {'x'.join(map(str, shape[1:]))}",
                "sizes go up to 65535 and 16 Mi elements; a microcontroller has less",
            )

    def graph(self, model_input: OnnxValue, output: OnnxValue) -> Graph:
        """The graph, once all nodes are imported."""
        value = self.values.get(output.name)
        if value is None:
            raise self.error(f"no node gives the model's output {output.name!r}")
        source = self.values[model_input.name]
        assert not isinstance(source, _Constant)
        if isinstance(value, _Constant) or value.tensor == source.tensor:
            raise self.error(f"the model's output {output.name!r} needs no computation")
        builder = self.builder
        self.builder.origin = f"{output.name} (output)"
        result = self.stored(value.tensor, value.layout)
        graph = Graph(
            builder.name, builder.tensors, tuple(builder.ops), (source.tensor,), (result,)
        )
        if source.tensor not in graph.consumers:
            raise self.error(f"the model's output does not depend on {model_input.name!r}")
        return graph

    # ---- one node -------------------------------------------------------------------------

    def import_node(self, node: OnnxNode) -> None:
        """Adds what a node stands for."""
        self.node = node
        self.new_weights = set()
        self.builder.origin = f"{node.name} ({node.op_type})"
        self.check_schema()
        for name in node.inputs:
            if name and name not in self.values:
                later = any(name in other.outputs[:1] for other in self.nodes)
                second = any(name in other.outputs[1:] for other in self.nodes)
                raise self.fail(
                    f"its input {name!r} is "
                    + (
                        "the output of a later node: the nodes are out of order or form a cycle"
                        if later
                        else "a second output of a node, which is not supported"
                        if second
                        else "given by no node, input or initializer"
                    )
                )
        inputs = [self.values[name] for name in node.inputs if name]
        folded = FOLDED.get(node.op_type)
        if node.op_type in self.known_here:
            self.known_here[node.op_type]()
        elif folded and inputs and all(isinstance(value, _Constant) for value in inputs):
            self.fold_constant(folded)
        elif node.op_type not in ONNX_RULES:
            raise self.fail("it is supported for constants only", "do this outside of the network")
        else:
            codes = [name for name in node.inputs if isinstance(self.values.get(name), _Codes)]
            if codes and node.op_type not in VIEW_RULES:
                raise self.fail(
                    f"its input {codes[0]!r} is quantised",
                    "export with QuantizeLinear and DequantizeLinear around each operator (QDQ)",
                )
            ONNX_RULES[node.op_type](node, self)
        if not node.outputs or node.outputs[0] not in self.values:
            raise self.fail("it has no output")

    def check_schema(self) -> None:
        """Number of inputs and outputs and the attributes' names and types, by the standard."""
        from onnx import defs

        node = self.node
        try:
            schema = defs.get_schema(node.op_type, node.opset, "")
        except defs.SchemaError as error:
            raise self.fail(f"operator set {node.opset} has no {node.op_type}") from error
        if schema.deprecated:
            raise self.fail(f"{node.op_type} is deprecated in operator set {node.opset}")
        for what, names, least, most in (
            ("inputs", node.inputs, schema.min_input, schema.max_input),
            ("outputs", node.outputs, schema.min_output, schema.max_output),
        ):
            if not least <= len(names) <= most:
                raise self.fail(f"it has {len(names)} {what}, the standard says {least} to {most}")
        if any(not name for name in node.inputs[: schema.min_input]):
            raise self.fail("one of its inputs is missing")
        for name, value in node.attrs.items():
            attribute = schema.attributes.get(name)
            if attribute is None:
                listed = ", ".join(sorted(schema.attributes)) or "none"
                raise self.fail(f"it has the unknown attribute {name!r}", f"known are: {listed}")
            kind = str(attribute.type).rpartition(".")[2]
            types = _ATTRIBUTE_TYPES.get(kind)
            if value is SUBGRAPH or (types and not isinstance(value, types)):
                raise self.fail(f"its attribute {name!r} is not of type {kind}")
            if isinstance(value, tuple) and value and types is tuple:
                wanted = {"INTS": int, "FLOATS": float, "STRINGS": str}[kind]
                if not isinstance(value[0], wanted):
                    raise self.fail(f"its attribute {name!r} is not of type {kind}")
        for name, attribute in schema.attributes.items():
            if attribute.required and name not in node.attrs:
                raise self.fail(f"its attribute {name!r} is missing")

    # ---- what rules may ask (tte.ops.spec.Importer) ------------------------------------------

    def type_of(self, name: str) -> TensorType:
        """Type of an activation as convolutions take it."""
        layout = self.layout(name)
        if len(layout.shape) > 2 and layout.shape[0] != 1:
            raise self.fail(
                f"its input {name!r} of shape {list(layout.shape)} is a batch of samples",
                "the device computes one sample at a time",
            )
        return TensorType(
            self.map_shape(layout.ordered(channels_last(len(layout.shape)))), "float32"
        )

    def layout(self, name: str) -> Layout:
        """An activation's shape in the file, and how it lies in memory now."""
        value = self.values.get(name)
        if value is None or isinstance(value, _Constant):
            raise self.fail(f"its input {name!r} must be an activation, not a constant")
        return value.layout

    def map_shape(self, layout: Layout) -> tuple[int, ...]:
        try:
            return layout.map_shape
        except ValueError as error:
            shape = list(layout.shape)
            raise self.fail(
                f"an activation of shape {shape} has {error}",
                "up to three (height, width and channels) are supported",
            ) from error

    def constant(self, name: str) -> Array | None:
        """Real values of a constant, or None for an activation."""
        value = self.values.get(name)
        if not isinstance(value, _Constant):
            return None
        self.spend(value.data.size)
        return value.real

    def spend(self, elems: int) -> None:
        """Bounds the work on constants: a small file can ask for it any number of times."""
        self.constant_elems += elems
        if self.constant_elems > MAX_CONSTANT_ELEMS:
            raise self.error(
                f"the model's nodes use more than {MAX_CONSTANT_ELEMS >> 20} Mi numbers",
                "that is too much for a microcontroller",
            )

    def weight(
        self, name: str, layout: Callable[[Array], Array], axis: int, scale: float = 1.0
    ) -> str:
        """Adds a constant laid out anew; keeps its quantisation where each code's scale still
        depends on `axis` alone."""
        value = self.values.get(name)
        if not isinstance(value, _Constant):
            raise self.fail(f"its input {name!r} must be a constant")
        self.spend(value.data.size)
        if value.data.size == 0:
            raise self.fail(f"its constant {name!r} has no elements: {value.data.shape}")
        quant = _moved_quant(value, layout, axis)
        if quant is not None and scale > 0:
            data = np.ascontiguousarray(layout(value.data))
            quant = replace(quant, scale=tuple(one * scale for one in quant.scale))
        else:
            quant = None
            with np.errstate(over="ignore", invalid="ignore"):
                data = np.ascontiguousarray(layout(value.real) * scale, np.float32)
            if not np.isfinite(data).all():
                raise self.fail(
                    f"its constant {name!r} holds NaN, infinity or numbers too large",
                    "the network was not trained well; train it again",
                )
        tensor = self.unique(name, own=True)
        self.builder.constant(tensor, data, quant)
        self.new_weights.add(tensor)
        return tensor

    def emit(
        self,
        kind: str,
        inputs: Sequence[str],
        attrs: Any,
        order: Sequence[int] | None = None,
        output: str = "",
    ) -> None:
        """Adds a float op that stands for the node."""
        spec = FLOAT_OPS[kind]
        layouts = [self.layout(name) for name in inputs if name not in self.new_weights]
        main = max(layouts, key=lambda layout: (len(layout.shape), math.prod(layout.shape)))
        if order is None:
            usual = channels_last(len(main.shape))
            order = main.settled.memory if spec.any_order else usual
        tensors = []
        for name in inputs:
            if name not in self.new_weights:
                value = self.values[name]
                assert not isinstance(value, _Constant)
                layout = _of_rank(value.layout, len(order))
                name = self.stored(value.tensor, layout, order)
            tensors.append(name)
        types = [self.builder.tensors[name].type for name in tensors]
        try:
            result = spec.infer(attrs, types)
        except ValueError as error:
            raise self.fail(str(error)) from error
        self.check_size(result.shape, f"the output of node {self.node.name!r}")
        output = output or self.node.outputs[0]
        tensor = self.activation_name(output)
        self.builder.tensor(tensor, result.shape, result.dtype, Role.ACTIVATION)
        self.builder.op(kind, self.op_name(), tensors, [tensor], attrs)
        self.values[output] = _Activation(tensor, main.ordered(order).resized(result.shape))

    def stored(self, tensor: str, layout: Layout, order: Sequence[int] | None = None) -> str:
        """The tensor with its elements in another order, and in the shape that goes with it."""
        wanted = layout.ordered(layout.memory if order is None else order)
        shape = self.map_shape(wanted)
        if wanted.moving != layout.moving:
            return self.transposed(tensor, layout, wanted.moving, shape)
        if self.builder.tensors[tensor].type.shape == shape:
            return tensor
        return self.derived("reshape", tensor, ReshapeAttrs(shape))

    def transposed(
        self, tensor: str, layout: Layout, moving: Sequence[int], shape: tuple[int, ...]
    ) -> str:
        """The tensor behind a transpose op."""
        dims, perm = moves(layout, moving)
        if len(dims) > MAX_DIMS:
            raise self.fail(f"a transpose of {len(dims)} dimensions is needed, which is too many")
        return self.derived("transpose", tensor, TransposeAttrs(dims, perm, shape))

    def derived(self, kind: str, tensor: str, attrs: ReshapeAttrs | TransposeAttrs) -> str:
        """The output of an op that changes the order or the shape alone; made once."""
        key = (tensor, attrs)
        if key not in self.stored_as:
            quant = self.builder.tensors[tensor].quant
            name = self.unique(f"{tensor}_{kind}d")
            self.builder.tensor(name, attrs.shape, "float32", Role.ACTIVATION, quant=quant)
            op_name, number = f"{self.node.name}_{kind}", 2
            while op_name in self.emitted or op_name in self.op_names:
                op_name, number = f"{self.node.name}_{kind}_{number}", number + 1
            self.emitted.add(op_name)
            self.builder.op(kind, op_name, [tensor], [name], attrs)
            self.stored_as[key] = name
            self.transposes += kind == "transpose"
        return self.stored_as[key]

    def reshape(self, name: str, shape: Sequence[int]) -> None:
        """The node's output is the activation `name` seen in another shape of the file."""
        layout, value = self.layout(name), self.values[name]
        assert not isinstance(value, _Constant)
        first, after = layout.reshaped(shape)
        if first.moving != layout.moving:
            counted = self.transposes
            tensor = self.transposed(value.tensor, layout, first.moving, self.flat_shape(after))
            if self.is_picture:
                self.transposes = counted
            value = replace(value, tensor=tensor)
        self.values[self.node.outputs[0]] = replace(value, layout=after)

    def flat_shape(self, layout: Layout) -> tuple[int, ...]:
        """The layout's shape here, or one row where it has too many dimensions."""
        try:
            return layout.map_shape
        except ValueError:
            return (1, math.prod(layout.shape))

    def transpose(self, name: str, perm: Sequence[int]) -> None:
        """The node's output is the activation `name` with its axes in another order."""
        layout, value = self.layout(name), self.values[name]
        assert not isinstance(value, _Constant)
        self.values[self.node.outputs[0]] = replace(value, layout=layout.transposed(perm))

    def alias(self, name: str) -> None:
        """The node's output is its input `name`."""
        self.values[self.node.outputs[0]] = self.values[name]

    def fail(self, why: str, hint: str = "") -> TteError:
        """An error that names the node."""
        return TteError(
            f"node {self.node.name!r} ({self.node.op_type}) cannot be imported",
            where=self.where,
            why=why,
            hint=hint,
        )

    # ---- names ----------------------------------------------------------------------------

    def unique(self, name: str, own: bool = False) -> str:
        """A tensor name that is still free; only the value itself may have a value's name."""
        base = candidate = "".join(c if c.isprintable() else "_" for c in name) or "tensor"
        while (
            candidate in RESERVED
            or candidate in self.builder.tensors
            or (candidate in self.value_names and not (own and candidate == name))
        ):
            self.numbers[base] += 1
            candidate = f"{base}_{self.numbers[base] + 1}"
        return candidate

    def op_name(self) -> str:
        """The node's name, for its first op."""
        name, number = self.node.name, 2
        while name in self.emitted or (number > 2 and name in self.op_names):
            name, number = f"{self.node.name}_{number}", number + 1
        self.emitted.add(name)
        return name

    def activation_name(self, name: str) -> str:
        """`<op>.weight`, `<tensor>.grad` and the like are names that passes give."""
        dots = [position for position, char in enumerate(name) if char == "."]
        prefixes = {name[:position] for position in dots[:MAX_DOTS]}
        if name in RESERVED or prefixes & self.file_names or len(dots) > MAX_DOTS:
            return self.unique(name.replace(".", "_"))
        return self.unique(name, own=True)

    # ---- constants and aliases ------------------------------------------------------------

    def constant_node(self) -> None:
        """Constant in all its forms."""
        attrs = self.node.attrs
        if len(attrs) != 1:
            raise self.fail("it must have one attribute, its value")
        ((name, value),) = attrs.items()
        if name.startswith("value_string"):
            raise self.fail("strings are not supported")
        dtype = np.float32 if name.startswith("value_float") else np.int64
        data = value if isinstance(value, np.ndarray) else np.asarray(value, dtype)
        self.values[self.node.outputs[0]] = _Constant(data)

    def dropout(self) -> None:
        """Nothing at inference."""
        if len(self.node.inputs) > 2 and self.node.inputs[2]:
            training = self.constant(self.node.inputs[2])
            if training is None or training.any():
                raise self.fail("training_mode is not false", "export the model in eval mode")
        self.alias(self.node.inputs[0])

    def cast(self) -> None:
        """Nothing, where floats stay floats and codes stay codes; codes that are the model's
        input, cast to float, stand for themselves."""
        source = self.values[self.node.inputs[0]]
        dtype = _CAST_TYPES.get(self.node.attrs["to"])
        if isinstance(source, _Constant):
            self.fold_constant(FOLDED["Cast"])
        elif dtype == source.dtype if isinstance(source, _Codes) else dtype in _FLOATS:
            self.alias(self.node.inputs[0])
        elif isinstance(source, _Codes) and dtype in _FLOATS and source.quant is None:
            quant = QuantParams((1.0,), -128 if source.dtype == "uint8" else 0)
            self.builder.replace_tensor(source.tensor, quant=quant)
            self.values[self.node.outputs[0]] = _Activation(source.tensor, source.layout)
        else:
            raise self.fail(f"activations cannot be cast to {dtype or 'this type'}")

    def shape_node(self) -> None:
        """The shape in the file's order of axes, as a constant."""
        value = self.values[self.node.inputs[0]]
        shape = value.data.shape if isinstance(value, _Constant) else value.layout.shape
        first, last = self.node.attrs.get("start", 0), self.node.attrs.get("end", len(shape))
        self.values[self.node.outputs[0]] = _Constant(np.asarray(shape[first:last], np.int64))

    def fold_constant(self, folded: Callable[..., Array]) -> None:
        """A node whose inputs are all constants."""
        first, *more = (self.values[name] if name else None for name in self.node.inputs)
        assert isinstance(first, _Constant)
        rest = [value.real if isinstance(value, _Constant) else None for value in more]
        self.spend(sum(x.size for x in (first.data, *rest) if x is not None))

        def layout(data: Array) -> Array:
            return np.asarray(folded(self.node.attrs, data, *rest))

        try:
            check_cost(self.node.op_type, [first.real, *rest])
            with np.errstate(all="ignore"):
                result = layout(first.real)
                if first.quant is not None and self.node.op_type in LAYOUTS:
                    found = (_moved_quant(first, layout, axis) for axis in range(result.ndim))
                    quant = next((quant for quant in found if quant is not None), None)
                    if quant is not None:
                        self.values[self.node.outputs[0]] = _Constant(layout(first.data), quant)
                        return
        except (ValueError, IndexError, TypeError, KeyError, OverflowError) as error:
            raise self.fail(f"its constants do not fit: {error}") from error
        self.values[self.node.outputs[0]] = _Constant(result)

    # ---- quantisation ---------------------------------------------------------------------

    def quantization(self, default_dtype: str) -> tuple[Array, Array, str]:
        """Scale, zero point (of one shape) and the codes' type, of a (De)QuantizeLinear."""
        node = self.node
        if node.attrs.get("block_size", 0):
            raise self.fail("blocked quantisation is not supported", "quantise per channel")
        scale = self.constant(node.inputs[1])
        has_zero_point = len(node.inputs) > 2 and node.inputs[2] != ""
        zero_point = self.constant(node.inputs[2]) if has_zero_point else None
        if scale is None or (has_zero_point and zero_point is None):
            raise self.fail("its scale and zero point must be constants")
        if scale.ndim > 1 or scale.size == 0:
            raise self.fail(f"its scale has the shape {scale.shape}; use one, or one per channel")
        with np.errstate(invalid="ignore"):
            real = scale.astype(np.float64).reshape(-1)
        if scale.dtype.kind != "f" or not np.isfinite(real).all() or real.min() <= 0:
            raise self.fail("its scale must be a positive finite number")
        if zero_point is None:
            dtype = default_dtype
            zero_point = np.zeros(scale.shape, np.int64)
        else:
            dtype = str(zero_point.dtype)
        if zero_point.shape != scale.shape and zero_point.size != real.size:
            raise self.fail(f"{zero_point.size} zero points do not fit {real.size} scales")
        return real, zero_point.astype(np.int64).reshape(-1), dtype

    def channel_axis(self, ndim: int, default: int = 1) -> int:
        axis = int(self.node.attrs.get("axis", default))
        if not -ndim <= axis < ndim:
            raise self.fail(f"axis {axis} is not one of the {ndim} dimensions")
        return axis % ndim

    def activation_quant(self, default_dtype: str) -> tuple[QuantParams, str]:
        """int8 quantisation of an activation, and its type in the file."""
        scale, zero_point, dtype = self.quantization(default_dtype)
        if scale.size != 1:
            raise self.fail("activations are quantised per tensor, not per channel")
        if dtype not in ("int8", "uint8"):
            raise self.fail(f"activations of type {dtype} are not supported; int8 and uint8 are")
        # uint8 codes become int8 by subtracting 128, and so does their zero point.
        offset = 128 if dtype == "uint8" else 0
        return QuantParams((float(scale[0]),), int(zero_point[0]) - offset), dtype

    def quantize_linear(self) -> None:
        """Annotates an activation, or rounds a constant to codes."""
        source = self.values[self.node.inputs[0]]
        output = self.node.outputs[0]
        output_dtype = _QUANTIZED_TYPES.get(self.node.attrs.get("output_dtype", 0), "uint8")
        if isinstance(source, _Constant):
            scale, zero_point, dtype = self.quantization(output_dtype)
            if dtype not in ("int8", "uint8", "int32") or source.real.dtype.kind != "f":
                raise self.fail(f"a constant cannot be quantised to {dtype}")
            self.spend(source.data.size + scale.size)
            shape = self.per_channel_shape(source.data, scale)
            with np.errstate(invalid="ignore", over="ignore"):
                codes = np.rint(source.real / scale.reshape(shape)) + zero_point.reshape(shape)
            if not np.isfinite(codes).all():
                raise self.fail(f"its input {self.node.inputs[0]!r} holds NaN or infinity")
            limits = np.iinfo(dtype)
            self.values[output] = _Constant(codes.clip(limits.min, limits.max).astype(dtype))
            return
        if isinstance(source, _Codes):
            raise self.fail("its input is quantised already")
        quant, dtype = self.activation_quant(output_dtype)
        present = self.builder.tensors[source.tensor].quant
        if present is not None and present != quant:
            # Quantised anew: a clip without bounds, which the passes merge or drop.
            self.emit("clip", [self.node.inputs[0]], ClipAttrs(NO_CLAMP))
            source = self.values[output]
            assert isinstance(source, _Activation)
        self.builder.replace_tensor(source.tensor, quant=quant)
        self.values[output] = _Codes(source.tensor, source.layout, dtype, quant)

    def dequantize_linear(self) -> None:
        """The annotated activation again, or a constant with its codes."""
        source = self.values[self.node.inputs[0]]
        output = self.node.outputs[0]
        if isinstance(source, _Constant):
            self.values[output] = self.dequantized_constant(source)
            return
        if isinstance(source, _Activation):
            raise self.fail("its input is not quantised")
        quant, dtype = self.activation_quant(source.dtype)
        if dtype != source.dtype or source.quant not in (None, quant):
            raise self.fail(
                "its scale, zero point or type differ from the QuantizeLinear before it",
                "quantise and dequantise with the same parameters",
            )
        if source.quant is None:
            present = self.builder.tensors[source.tensor].quant
            if present not in (None, quant):
                raise self.fail("the input is dequantised twice, with different parameters")
            self.builder.replace_tensor(source.tensor, quant=quant)
        self.values[output] = _Activation(source.tensor, source.layout)

    def per_channel_shape(self, data: Array, scale: Array) -> list[int]:
        """The shape in which one scale per channel meets the data."""
        shape = [1] * data.ndim
        if scale.size > 1:
            axis = self.channel_axis(data.ndim) if data.ndim else 0
            if data.ndim == 0 or data.shape[axis] != scale.size:
                raise self.fail(f"{scale.size} scales do not fit the shape {data.shape}")
            shape[axis] = scale.size
        return shape

    def dequantized_constant(self, source: _Constant) -> _Constant:
        """Weights whose codes fit int8 without their zero point keep them, and so do int32 biases;
        others become real."""
        data = source.data
        scale, zero_point, dtype = self.quantization(str(data.dtype))
        if source.quant is not None or dtype != str(data.dtype):
            raise self.fail(f"a constant of type {data.dtype} cannot be dequantised as {dtype}")
        if dtype not in ("int8", "uint8", "int16", "uint16", "int32"):
            raise self.fail(f"constants of type {dtype} are not supported; int8 and int32 are")
        self.spend(data.size + scale.size)
        shape = self.per_channel_shape(data, scale)
        centred = data.astype(np.int64) - zero_point.reshape(shape)
        if dtype == "int32" and np.abs(centred).max(initial=0) > 2**31:
            raise self.fail("its zero point is out of range")
        axis = self.channel_axis(data.ndim) if scale.size > 1 else None
        quant = QuantParams(tuple(scale.tolist()), 0, axis)
        middle = bool((zero_point == (128 if dtype == "uint8" else 0)).all())
        low, high = centred.min(initial=0), centred.max(initial=0)
        if dtype in ("int8", "uint8") and high <= 127 and (low >= -127 or middle):
            # Weights are in -127..127 here; -128 moves by one code.
            return _Constant(centred.clip(-127, 127).astype(np.int8), quant)
        if middle and dtype == "int32":
            return _Constant(data, quant)
        return _Constant(centred * scale.reshape(shape))


def _moved_quant(
    value: _Constant, layout: Callable[[Array], Array], axis: int
) -> QuantParams | None:
    """The quantisation after `layout`, or None where the scales are not along `axis`."""
    quant = value.quant
    if quant is None or quant.axis is None:
        return quant
    shape = [1] * value.data.ndim
    shape[quant.axis] = -1
    channel = np.arange(len(quant.scale)).reshape(shape)
    moved = layout(np.broadcast_to(channel, value.data.shape))
    along = np.moveaxis(moved, axis, 0).reshape(moved.shape[axis], -1)
    if (along != along[:, :1]).any():
        return None
    return QuantParams(tuple(quant.scale[index] for index in along[:, 0]), 0, axis)


def _of_rank(layout: Layout, rank: int) -> Layout:
    """The layout with axes of size 1 in front, as numpy broadcasts."""
    more = rank - len(layout.shape)
    if more <= 0:
        return layout
    memory = (*range(more), *(axis + more for axis in layout.memory))
    return Layout((1,) * more + layout.shape, memory)


def _dims_text(dims: Sequence[int | None]) -> str:
    return ", ".join("?" if size is None else str(size) for size in dims)


_ATTRIBUTE_TYPES: dict[str, type] = {
    "FLOAT": float,
    "INT": int,
    "STRING": str,
    "TENSOR": np.ndarray,
    "FLOATS": tuple,
    "INTS": tuple,
    "STRINGS": tuple,
}
_FLOATS = ("float32", "float16", "float64")
_CAST_TYPES = {1: "float32", 2: "uint8", 3: "int8", 10: "float16", 11: "float64"}
_QUANTIZED_TYPES = {2: "uint8", 3: "int8", 6: "int32"}
