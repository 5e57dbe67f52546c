# SPDX-License-Identifier: Apache-2.0
"""The calibrated float graph becomes the integer graph, op by op (docs/numerics.md, section 1)."""

from __future__ import annotations

from tte.errors import TteError
from tte.ir import Graph, QuantParams, Role
from tte.ops import FLOAT_OPS
from tte.ops.channels import WidenAttrs
from tte.ops.linear import is_logits
from tte.ops.spec import GraphBuilder


class _Quantizer:
    """What the ops' rules may ask (tte.ops.spec.Quantizer)."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.builder = GraphBuilder(graph.name)

    def quant(self, name: str) -> QuantParams:
        """Quantisation of an activation."""
        quant = self.graph[name].quant
        if quant is None:
            raise ValueError(f"{name!r} has no quantisation; calibrate first")
        return quant

    def is_logits(self, name: str) -> bool:
        """Whether `name` leaves the network as int32."""
        return is_logits(self.graph, name)


def quantize(graph: Graph) -> Graph:
    """The integer graph. Its output is int32 with a scale per class if it is [1, classes]; a map
    stays int8."""
    quantizer = _Quantizer(graph)
    builder = quantizer.builder
    names = [*graph.inputs, *(op.outputs[0] for op in graph.ops)]
    for name in names:
        if not is_logits(graph, name):
            role = Role.INPUT if name in graph.inputs else Role.ACTIVATION
            shape = graph[name].type.shape
            builder.tensor(name, shape, "int8", role, quant=quantizer.quant(name))
    for op in graph.ops:
        rule = FLOAT_OPS[op.kind].quantize
        if rule is None:
            raise TteError(
                f"{op.kind} cannot be computed in integers",
                where=op.origin or op.name,
                why="its operands are computed, and it is no part of a known function of one",
                hint="train with something else, e.g. BatchNormalization for layer normalisation",
            )
        builder.origin = op.origin
        try:
            rule(op, quantizer)
        except (ValueError, OverflowError, FloatingPointError) as error:
            raise TteError(
                "a layer cannot be quantised",
                where=op.origin or op.name,
                why=str(error),
                hint="its scales differ too much; train the network again, or calibrate anew",
            ) from error
    output = graph.outputs[0]
    if builder.tensors[output].type.dtype == "int8" and len(graph[output].type.shape) == 2:
        output = _widen(builder, output)
    return Graph(graph.name, builder.tensors, tuple(builder.ops), graph.inputs, (output,))


def _widen(builder: GraphBuilder, name: str) -> str:
    """int32 logits of a network that does not end in a linear layer."""
    tensor = builder.tensors[name]
    quant = tensor.quant
    assert quant is not None
    shape = tensor.type.shape
    wide_quant = QuantParams((quant.per_tensor_scale,) * shape[-1], 0, len(shape) - 1)
    wide = f"{name}.wide"
    builder.tensor(wide, shape, "int32", Role.ACTIVATION, quant=wide_quant)
    builder.op("widen_int32", wide, [name], [wide], WidenAttrs(quant.zero_point))
    return wide
