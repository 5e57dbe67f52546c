# SPDX-License-Identifier: Apache-2.0
"""Makes the float graph what a device runs: fewer ops, each with its clamp and its order.

What computes one function of one tensor in several operators becomes one. Batch normalisation
joins the layer before it, relu and clip become clamp ranges, a 1x1
convolution of a 1x1 map becomes a linear layer, a transpose (Flatten counts channel first) moves
into the weights behind it, and the softmax at the end goes: the loss has it.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tte.errors import TteError
from tte.ir import Graph, Op, QuantParams, Role, Tensor, TensorType
from tte.ops.clip import ClipAttrs
from tte.ops.conv2d import Conv2dAttrs
from tte.ops.expression import MAX_NODES, Expression, call
from tte.ops.function import FunctionAttrs
from tte.ops.linear import LinearAttrs, is_logits
from tte.ops.quantized import NO_CLAMP, real_data
from tte.ops.reshape import ReshapeAttrs
from tte.ops.window import WindowAttrs

Array = NDArray[Any]

LAYERS = ("conv2d", "depthwise_conv2d", "conv_transpose2d", "linear")
CLAMPED = (*LAYERS, "add", "mul")
BINARY = ("add", "mul", "div")
# Their output's elements are their input's.
MOVERS = ("reshape", "transpose", "max_pool2d", "slice", "resize_nearest2d")
MAX_DIAGONAL = 1024  # channels of a batch_norm that becomes a linear layer


def fold(graph: Graph) -> Graph:
    """The same function in fewer ops."""
    graph = drop_softmax(graph)
    graph = fuse_functions(graph)
    graph = fuse_functions(fold_batch_norms(graph))
    graph = pointwise_to_linear(graph)
    graph = fuse_clips(hoist_clips(graph))
    graph = absorb_transposes(fold_pads(graph))
    graph = finish_output(graph)
    return saturate(graph)


@dataclass
class _Draft:
    """A graph while one step rewrites it: tensors, ops, and renamed activations."""

    tensors: dict[str, Tensor]
    ops: list[Op]
    op_names: set[str]
    renamed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph) -> _Draft:
        return cls(dict(graph.tensors), [], {op.name for op in graph.ops})

    def append(self, op: Op) -> None:
        inputs = tuple(self.renamed.get(name, name) for name in op.inputs)
        self.ops.append(replace(op, inputs=inputs))

    def constant(self, name: str, data: Array, quant: QuantParams | None = None) -> str:
        """A new constant; its name is made unique."""
        tensor_type = TensorType(data.shape, str(data.dtype))
        return self.add(Tensor(name, tensor_type, Role.CONSTANT, quant, data))

    def add(self, tensor: Tensor) -> str:
        name = _free(self.tensors, tensor.name)
        self.tensors[name] = replace(tensor, name=name)
        return name

    def flatten(self, source: str, op: Op) -> str:
        """Adds a reshape of a 1x1 map to [1, C], for the sake of `op`; returns its output."""
        tensor = self.tensors[source]
        view = self.add(
            Tensor(
                f"{source}_flat",
                TensorType((1, tensor.type.elems), "float32"),
                Role.ACTIVATION,
                tensor.quant,
            )
        )
        name = _free(self.op_names, f"{op.name}_flatten")
        self.op_names.add(name)
        self.ops.append(Op("reshape", name, (source,), (view,), None, op.origin))
        return view

    def finish(self, graph: Graph) -> Graph:
        outputs = [self.renamed.get(name, name) for name in graph.outputs]
        return graph.with_changes(tensors=self.tensors.values(), ops=self.ops, outputs=outputs)


def _free(taken: Container[str], name: str) -> str:
    base, number = name, 2
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    return name


def compose(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """The range of one clamp after another."""
    low, high = (min(max(bound, second[0]), second[1]) for bound in first)
    return low, high


def code_range(quant: QuantParams) -> tuple[float, float]:
    """The real numbers that int8 codes reach."""
    scale = quant.per_tensor_scale
    return (-128 - quant.zero_point) * scale, (127 - quant.zero_point) * scale


def _sole_consumer(graph: Graph, name: str) -> Op | None:
    consumers = graph.consumers.get(name, ())
    return consumers[0] if len(consumers) == 1 and name not in graph.outputs else None


# ---- softmax ------------------------------------------------------------------------------


def drop_softmax(graph: Graph) -> Graph:
    """Without the softmax that gives the output, if all of it is one row of probabilities."""
    while True:
        op = graph.producers.get(graph.outputs[0])
        while op is not None and op.kind == "reshape" and _sole_consumer(graph, op.inputs[0]) is op:
            op = graph.producers.get(op.inputs[0])
        if op is None or op.kind != "softmax":
            return graph
        row = graph[op.inputs[0]].type
        if row.shape[-1] != row.elems:
            return graph
        draft = _Draft.of(graph)
        draft.renamed[op.outputs[0]] = op.inputs[0]
        for other in graph.ops:
            draft.append(other)
        graph = draft.finish(graph)
        graph = graph.with_changes(ops=_needed(graph, graph.outputs[0]))


def drop_sigmoid(graph: Graph) -> Graph:
    """Without the sigmoid that gives the output: the loss has it."""
    output = graph.outputs[0]
    if ends_in(graph) != "sigmoid":
        return graph
    output = graph.producers[output].inputs[0]
    return graph.with_changes(ops=_needed(graph, output), outputs=[output])


def ends_in(graph: Graph) -> str:
    """The kind of the operator that gives the output, "sigmoid" for that function."""
    op = graph.producers.get(graph.outputs[0])
    if op is None:
        return ""
    is_sigmoid = op.kind == "function" and op.attrs.expression == call("sigmoid")
    return "sigmoid" if is_sigmoid else op.kind


def _needed(graph: Graph, output: str) -> list[Op]:
    """The ops that the output needs."""
    wanted, found = {output}, []
    for op in reversed(graph.ops):
        if wanted.intersection(op.writes):
            wanted.update(op.reads)
            found.append(op)
    return found[::-1]


# ---- functions of one tensor --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Function:
    """A tensor as a function of each element of another one, `root`."""

    root: str
    expression: Expression


def fuse_functions(graph: Graph) -> Graph:
    """Operators that together compute one function of each element of a tensor (hard-swish, SiLU,
    GELU as exporters write them) become one op. What layers take as their clamp or fold into their
    weights is left to them."""
    found: dict[str, _Function] = {}
    joined: dict[str, str] = {}  # output of a layer and of what it takes in -> the layer's kind
    for op in graph.ops:
        x, y = op.inputs[0], op.outputs[0]
        if _joins_layer(graph, op, joined.get(x)):
            joined[y] = "clipped" if op.kind == "clip" else joined[x]
            continue
        function = _function_of(graph, op, found)
        if function is not None and function.expression.nodes <= MAX_NODES:
            found[y] = function
        elif op.kind in CLAMPED:
            joined[y] = op.kind
    fused = {
        y: function
        for y, function in found.items()
        if not function.expression.is_simple or graph.producers[y].kind == "function"
    }
    ops = [
        replace(
            op,
            kind="function",
            inputs=(fused[op.outputs[0]].root,),
            attrs=FunctionAttrs(fused[op.outputs[0]].expression),
        )
        if op.outputs[0] in fused
        else op
        for op in graph.ops
    ]
    graph = graph.with_changes(ops=ops)
    return graph.with_changes(ops=_needed(graph, graph.outputs[0]))


def _joins_layer(graph: Graph, op: Op, layer: str | None) -> bool:
    """Whether a layer takes the op behind it."""
    x = op.inputs[0]
    scaled = op.kind == "batch_norm" and layer in LAYERS and graph[x].quant is None
    clipped = op.kind == "clip" and layer is not None
    return (scaled or clipped) and _sole_consumer(graph, x) is op


def _function_of(graph: Graph, op: Op, found: dict[str, _Function]) -> _Function | None:
    """The op's output as a function of one tensor; None where it is none."""
    name = _binary(graph, op)
    if name:
        first, second = (_operand(graph, name, found) for name in op.inputs)
        if first.root == op.inputs[1]:  # the tensor itself, and a function of it
            second = _Function(op.inputs[1], Expression())
        elif second.root == op.inputs[0]:
            first = _Function(op.inputs[0], Expression())
        if first.root != second.root:
            return None
        return _Function(first.root, Expression(name, (first.expression, second.expression)))
    own = _own_expression(op)
    if own is None:
        return None
    x = _operand(graph, op.inputs[0], found)
    if own.nodes * x.expression.nodes > MAX_NODES:
        return _Function(op.inputs[0], own)
    return _Function(x.root, own.of(x.expression))


def _binary(graph: Graph, op: Op) -> str:
    """The name of an expression of two activations of one shape; "" for other ops."""
    if op.kind not in BINARY or any(graph[name].data is not None for name in op.inputs):
        return ""
    if graph[op.inputs[0]].type.shape != graph[op.inputs[1]].type.shape:
        return ""
    return "sub" if op.kind == "add" and op.attrs.signs[1] < 0 else op.kind


def _operand(graph: Graph, name: str, found: dict[str, _Function]) -> _Function:
    """An input as a function; where the file quantises it, within what its codes reach."""
    function = found.get(name)
    if function is None:
        return _Function(name, Expression())
    quant = graph[name].quant
    if quant is None:
        return function
    limits = Expression("clip", (function.expression,), code_range(quant))
    return _Function(function.root, limits)


def _own_expression(op: Op) -> Expression | None:
    if op.kind == "function":
        expression: Expression = op.attrs.expression
        return expression
    if op.kind == "clip":
        return call("clip", *op.attrs.clamp)
    if op.kind == "batch_norm" and len(set(op.attrs.scale)) == len(set(op.attrs.offset)) == 1:
        return call("affine", op.attrs.scale[0], op.attrs.offset[0])
    return None


# ---- batch normalisation ------------------------------------------------------------------


def fold_batch_norms(graph: Graph) -> Graph:
    """Each batch_norm becomes part of the layer before or behind it, or a layer."""
    draft = _Draft.of(graph)
    position: dict[str, int] = {}  # tensor -> index of its op in the draft
    pending: dict[str, tuple[Array, Array]] = {}  # input of a linear -> scale, offset
    for op in graph.ops:
        if op.kind == "batch_norm":
            x, y = op.inputs[0], op.outputs[0]
            scale, offset = np.asarray(op.attrs.scale), np.asarray(op.attrs.offset)
            at = position.get(x)
            before = None if at is None else draft.ops[at]
            behind = _sole_consumer(graph, y)
            if (
                before is not None
                and at is not None
                and before.kind in LAYERS
                and before.attrs.clamp == NO_CLAMP
                and draft.tensors[x].quant is None
                and _sole_consumer(graph, x) is op
            ):
                layer = _scaled_layer(draft, before, scale, offset)
                draft.ops[at] = replace(layer, outputs=(y,))
                position[y] = at
                continue
            if (
                len(draft.tensors[y].type.shape) == 2
                and draft.tensors[y].quant is None
                and behind is not None
                and behind.kind == "linear"
            ):
                pending[y] = scale, offset
                draft.renamed[y] = draft.renamed.get(x, x)
                continue
            op = _as_layer(draft, op, scale, offset)
        elif op.kind == "linear" and op.inputs[0] in pending:
            op = _scaled_columns(draft, op, *pending[op.inputs[0]])
        position[op.outputs[0]] = len(draft.ops)
        draft.append(op)
    return draft.finish(graph)


def _bias(draft: _Draft, op: Op, channels: int) -> Array:
    if len(op.inputs) > 2 and op.inputs[2]:
        return real_data(draft.tensors[op.inputs[2]])
    return np.zeros(channels)


def _finite(values: Array, op: Op) -> Array:
    result = values.astype(np.float32)
    if not np.isfinite(result).all():
        raise TteError(
            "folding a batch normalisation gives infinite weights",
            where=op.origin,
            why="its variance is too small or its scale too large",
        )
    return result


def _scaled_layer(draft: _Draft, layer: Op, scale: Array, offset: Array) -> Op:
    """layer(x) * scale + offset."""
    weight = layer.inputs[1]
    data = draft.tensors[weight]
    bias = _bias(draft, layer, len(scale)) * scale + offset
    if (scale != 1).any():
        real = real_data(data)
        real = real * scale.reshape(-1, *[1] * (real.ndim - 1))
        weight = draft.constant(f"{weight}_folded", _finite(real, layer))
    bias_name = draft.constant(f"{layer.inputs[1]}_folded_bias", _finite(bias, layer))
    return replace(layer, inputs=(layer.inputs[0], weight, bias_name))


def _scaled_columns(draft: _Draft, layer: Op, scale: Array, offset: Array) -> Op:
    """layer(x * scale + offset)."""
    real = real_data(draft.tensors[layer.inputs[1]])
    bias = _bias(draft, layer, len(real)) + real @ offset
    weight = draft.constant(f"{layer.inputs[1]}_folded", _finite(real * scale, layer))
    bias_name = draft.constant(f"{layer.inputs[1]}_folded_bias", _finite(bias, layer))
    return replace(layer, inputs=(layer.inputs[0], weight, bias_name))


def _as_layer(draft: _Draft, op: Op, scale: Array, offset: Array) -> Op:
    """A depthwise 1x1 convolution, or a diagonal linear layer; a function where all channels are
    treated alike."""
    channels = len(scale)
    expression = _own_expression(op)
    if expression is not None:
        return replace(op, kind="function", attrs=FunctionAttrs(expression))
    kind, attrs, data = "depthwise_conv2d", _pointwise(channels), scale.reshape(-1, 1, 1, 1)
    if len(draft.tensors[op.inputs[0]].type.shape) == 2:
        if channels > MAX_DIAGONAL:
            raise TteError(
                "a batch normalisation cannot be folded",
                where=op.origin,
                why=f"no layer is next to it, and {channels} channels are too many for one",
                hint="put it directly behind a linear or convolution layer",
            )
        kind, attrs, data = "linear", LinearAttrs(), np.diag(scale)
    inputs = (
        op.inputs[0],
        draft.constant(f"{op.outputs[0]}_scale", _finite(data, op)),
        draft.constant(f"{op.outputs[0]}_offset", _finite(offset, op)),
    )
    return replace(op, kind=kind, inputs=inputs, attrs=attrs)


def _pointwise(channels: int) -> Any:
    return Conv2dAttrs(WindowAttrs((1, 1), groups=channels))


# ---- 1x1 maps -----------------------------------------------------------------------------


def _is_vector_map(tensor: Tensor) -> bool:
    return len(tensor.type.shape) == 4 and tensor.type.shape[1:3] == (1, 1)


def pointwise_to_linear(graph: Graph) -> Graph:
    """1x1 convolutions of 1x1 maps become linear layers where all that follows takes [1, C]."""
    flat = _flat_outputs(graph)
    draft = _Draft.of(graph)
    views: dict[str, str] = {}  # 1x1 map -> its view as [1, C]
    for op in graph.ops:
        x, y = op.inputs[0], op.outputs[0]
        source = draft.renamed.get(x, x)
        if op.kind == "reshape" and source in flat:
            quant = draft.tensors[source].quant or draft.tensors[y].quant
            draft.tensors[source] = replace(draft.tensors[source], quant=quant)
            draft.renamed[y] = source
            continue
        if y in flat:
            tensor = draft.tensors[y]
            draft.tensors[y] = replace(tensor, type=TensorType((1, tensor.type.elems), "float32"))
            if op.kind == "conv2d":
                if source not in flat and source not in views:
                    views[source] = draft.flatten(source, op)
                op = _as_linear(draft, op, views.get(source, source))
        draft.append(op)
    return draft.finish(graph)


def _flat_outputs(graph: Graph) -> set[str]:
    """Outputs of pointwise convolutions, and of clips behind them, that may become [1, C]."""
    flat: set[str] = set()
    for op in reversed(graph.ops):
        y = op.outputs[0]
        is_vector = op.kind in ("clip", "function") and graph[y].type.shape[1:-1] == (1, 1)
        if (is_vector or _is_pointwise(graph, op)) and all(
            _flattens(graph, reader) or reader.outputs[0] in flat
            for reader in graph.consumers.get(y, ())
        ):
            flat.add(y)
    for op in graph.ops:
        if op.kind in ("clip", "function") and op.inputs[0] not in flat:
            flat.discard(op.outputs[0])
    return flat


def _flattens(graph: Graph, op: Op) -> bool:
    return op.kind == "reshape" and len(graph[op.outputs[0]].type.shape) == 2


def _is_pointwise(graph: Graph, op: Op) -> bool:
    """Whether the op is a linear layer in the guise of a convolution."""
    if op.kind != "conv2d" or graph[op.inputs[0]].type.shape[1:3] != (1, 1):
        return False
    window = op.attrs.window
    return bool(window.kernel == (1, 1) and not any(window.pads) and window.groups == 1)


def _as_linear(draft: _Draft, op: Op, source: str) -> Op:
    weight = draft.tensors[op.inputs[1]]
    assert weight.data is not None
    data = weight.data.reshape(len(weight.data), -1)
    inputs = (source, draft.constant(f"{weight.name}_matrix", data, weight.quant), *op.inputs[2:])
    return replace(op, kind="linear", inputs=inputs, attrs=LinearAttrs(op.attrs.clamp))


# ---- relu, relu6, clip --------------------------------------------------------------------


def hoist_clips(graph: Graph) -> Graph:
    """A clip behind an op that only moves or picks elements goes before it, where a layer may
    take it as its clamp."""
    while True:
        found = next((op for op in graph.ops if op.kind == "clip" and _mover(graph, op)), None)
        if found is None:
            return graph
        mover = graph.producers[found.inputs[0]]
        x, between, y = mover.inputs[0], mover.outputs[0], found.outputs[0]
        ops = []
        for op in graph.ops:
            if op is mover:
                ops.append(replace(found, inputs=(x,), outputs=(between,)))
                ops.append(replace(mover, inputs=(between, *mover.inputs[1:]), outputs=(y,)))
            elif op is not found:
                ops.append(op)
        moved = replace(graph[between], type=graph[x].type)
        graph = graph.with_changes(tensors=[moved], ops=ops)


def _mover(graph: Graph, clip: Op) -> bool:
    """Whether the clip may change places with the op before it."""
    x = clip.inputs[0]
    before = graph.producers.get(x)
    return (
        before is not None
        and before.kind in MOVERS
        and graph[x].quant is None
        and _sole_consumer(graph, x) is clip
        and _sole_consumer(graph, before.inputs[0]) is before
    )


def fuse_clips(graph: Graph) -> Graph:
    """A clip behind a layer or a sum becomes its clamp; one without bounds is dropped."""
    draft = _Draft.of(graph)
    position: dict[str, int] = {}
    for op in graph.ops:
        if op.kind == "clip":
            x, y = op.inputs[0], op.outputs[0]
            source = draft.renamed.get(x, x)
            sole = source == x and _sole_consumer(graph, x) is op
            at = position.get(source)
            before = None if at is None else draft.ops[at]
            quant = draft.tensors[y].quant or draft.tensors[source].quant
            if sole and at is not None and before is not None and before.kind in CLAMPED:
                clamp = before.attrs.clamp
                present = draft.tensors[source].quant
                if present is not None:
                    clamp = compose(clamp, code_range(present))
                attrs = replace(before.attrs, clamp=compose(clamp, op.attrs.clamp))
                draft.ops[at] = replace(before, outputs=(y,), attrs=attrs)
                draft.tensors[y] = replace(draft.tensors[y], quant=quant)
                position[y] = at
                continue
            if op.attrs.clamp == NO_CLAMP and not sole and _cuts(draft, source, y):
                assert quant is not None
                op = replace(op, attrs=ClipAttrs(code_range(quant)))
                draft.tensors[y] = replace(draft.tensors[y], quant=None)
            elif op.attrs.clamp == NO_CLAMP:
                if sole:
                    draft.tensors[source] = replace(draft.tensors[source], quant=quant)
                draft.renamed[y] = source
                continue
        position[op.outputs[0]] = len(draft.ops)
        draft.append(op)
    return draft.finish(graph)


def _cuts(draft: _Draft, x: str, y: str) -> bool:
    """Whether the codes of y reach less than those of x, which others read as well: some files
    write relu so."""
    before, after = draft.tensors[x].quant, draft.tensors[y].quant
    if after is None or before is None:
        return after is not None
    (low, high), (y_low, y_high) = code_range(before), code_range(after)
    step = before.per_tensor_scale
    return y_low > low + step or y_high < high - step


# ---- transposes ---------------------------------------------------------------------------


def absorb_transposes(graph: Graph) -> Graph:
    """A transpose that only linear layers see (an ONNX Flatten of a map counts channel first):
    their columns are put in the order that memory has."""
    orders: dict[str, Array] = {}  # tensor -> its element of the transpose's input, per element
    for op in graph.ops:
        if op.kind == "transpose":
            seen = _absorbing(graph, op.outputs[0])
            orders.update(dict.fromkeys(seen, op.attrs.order()))
    draft = _Draft.of(graph)
    for op in graph.ops:
        order = orders.get(op.outputs[0] if op.kind == "transpose" else op.inputs[0])
        if order is not None and op.kind == "transpose":
            op = replace(op, kind="reshape", attrs=ReshapeAttrs(op.attrs.shape))
        elif order is not None and op.kind == "linear":
            weight = graph[op.inputs[1]]
            assert weight.data is not None
            data = np.empty_like(weight.data)
            data[:, order] = weight.data
            name = draft.constant(f"{weight.name}_ordered", data, weight.quant)
            op = replace(op, inputs=(op.inputs[0], name, *op.inputs[2:]))
        draft.append(op)
    return draft.finish(graph)


def _absorbing(graph: Graph, name: str) -> list[str]:
    """The tensor and those behind it with the same elements, if linear layers alone read them;
    else none."""
    if name in graph.outputs:
        return []
    found = [name]
    for reader in graph.consumers.get(name, ()):
        if reader.kind in ("clip", "function", "reshape"):
            behind = _absorbing(graph, reader.outputs[0])
            if not behind:
                return []
            found += behind
        elif reader.kind != "linear":
            return []
    return found


# ---- padding ------------------------------------------------------------------------------


def fold_pads(graph: Graph) -> Graph:
    """A border that convolutions and poolings alone read becomes their padding."""
    pads = {
        op.outputs[0]: op
        for op in graph.ops
        if op.kind == "pad"
        and op.outputs[0] not in graph.outputs
        and all(_takes_pad(graph, op, reader) for reader in graph.consumers.get(op.outputs[0], ()))
    }
    draft = _Draft.of(graph)
    for op in graph.ops:
        pad = pads.get(op.inputs[0])
        if pad is not None:
            top, left, bottom, right = op.attrs.window.pads
            (before_h, before_w, _), (after_h, after_w, _) = pad.attrs.before, pad.attrs.after
            around = (top + before_h, left + before_w, bottom + after_h, right + after_w)
            changes = {"count_include_pad": True} if op.kind == "avg_pool2d" else {}
            window = replace(op.attrs.window, pads=around)
            op = replace(
                op,
                inputs=(pad.inputs[0], *op.inputs[1:]),
                attrs=replace(op.attrs, window=window, **changes),
            )
        elif op.outputs[0] in pads:
            continue
        elif op.kind == "pad" and np.isinf(op.attrs.value):
            raise TteError(
                "padding with infinity is supported before a max pooling only",
                where=op.origin,
                hint="pad with a number",
            )
        draft.append(op)
    return draft.finish(graph)


def _takes_pad(graph: Graph, pad: Op, reader: Op) -> bool:
    """Whether the border does in the reader's own padding what it does now."""
    if any((pad.attrs.before[2], pad.attrs.after[2])) or reader.inputs[0] != pad.outputs[0]:
        return False
    value = pad.attrs.value
    if reader.kind in ("conv2d", "depthwise_conv2d"):
        return bool(value == 0)
    if reader.kind == "avg_pool2d":
        return value == 0 and (reader.attrs.count_include_pad or not any(reader.attrs.window.pads))
    if reader.kind != "max_pool2d" or any(reader.attrs.window.pads):
        return False
    # 0 is as good as nothing where nothing is below 0, if each window holds an element of the map.
    x = graph.producers.get(pad.inputs[0])
    positive = x is not None and x.kind in (*CLAMPED, "clip") and x.attrs.clamp[0] >= 0
    (before_h, before_w, _), (after_h, after_w, _) = pad.attrs.before, pad.attrs.after
    kernel = reader.attrs.window.kernel
    inside = max(before_h, after_h) < kernel[0] and max(before_w, after_w) < kernel[1]
    return bool(value == -np.inf or (value == 0 and positive)) and inside


# ---- output and saturation ----------------------------------------------------------------


def finish_output(graph: Graph) -> Graph:
    """The output is [1, classes] or a map; a linear layer's is int32, without quantisation."""
    output = graph.outputs[0]
    if _is_vector_map(graph[output]):
        draft = _Draft.of(graph)
        draft.ops = list(graph.ops)
        draft.renamed[output] = draft.flatten(output, graph.producers[output])
        return draft.finish(graph)
    if is_logits(graph, output):
        return graph.with_changes(tensors=[replace(graph[output], quant=None)])
    return graph


def saturate(graph: Graph) -> Graph:
    """A quantised output saturates, and that is how some files write relu: the range of its
    codes joins the clamp, so that the float graph computes the same."""
    ops = []
    for op in graph.ops:
        quant = graph[op.outputs[0]].quant
        if op.kind in CLAMPED and quant is not None:
            clamp = compose(op.attrs.clamp, code_range(quant))
            op = replace(op, attrs=replace(op.attrs, clamp=clamp))
        ops.append(op)
    return graph.with_changes(ops=ops)
