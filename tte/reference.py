# SPDX-License-Identifier: Apache-2.0
"""Runs any graph in numpy: the oracle. Slow, exact, and readable beside each op's formula."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tte.ir import Graph, Op, Role, Tensor
from tte.ops import FLOAT_OPS, INTEGER_OPS
from tte.ops.quantized import real_data

Array = NDArray[Any]
Values = dict[str, Array]


def real_constant(tensor: Tensor) -> Array:
    """Real values of a constant, float32."""
    return real_data(tensor).astype(np.float32)


def run_float(graph: Graph, x: Array, keep: bool = True) -> Values:
    """Runs a float graph on a batch, float32 [N, ...]; returns all activations by name.

    With keep=False tensors are dropped after their last reader; outputs stay.
    """
    values: Values = {graph.inputs[0]: x.astype(np.float32)}
    last = {name: ops[-1] for name, ops in graph.consumers.items()}
    for op in graph.ops:
        inputs = [
            real_constant(graph[name]) if graph[name].data is not None else values[name]
            for name in op.reads
        ]
        values[op.outputs[0]] = FLOAT_OPS[op.kind].reference(op, inputs)
        if not keep:
            for name in op.reads:
                if last.get(name) is op and name not in graph.outputs:
                    values.pop(name, None)
    return values


def run_op(graph: Graph, op: Op, values: Mapping[str, Array]) -> list[Array]:
    """One integer op on given values; absent inputs are None, masks are bool arrays."""
    inputs: list[Any] = [_value(graph[name], values) if name else None for name in op.inputs]
    outputs = INTEGER_OPS[op.kind].reference(op, inputs)
    if op.kind == "reshape":
        shape = graph[op.outputs[0]].type.shape
        outputs = [outputs[0].reshape(len(outputs[0]), *shape[1:])]
    return outputs


def _value(tensor: Tensor, values: Mapping[str, Array]) -> Array:
    if tensor.name in values:
        return values[tensor.name]
    if tensor.data is None:
        raise KeyError(tensor.name)
    return tensor.data


def initial_state(graph: Graph) -> Values:
    """Values of the trained tensors before the first step."""
    return {
        name: tensor.data.copy()
        for name, tensor in graph.tensors.items()
        if tensor.role is Role.PARAMETER and tensor.data is not None
    }


class Interpreter:
    """An integer graph with its trained state."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.state = initial_state(graph)
        self.saturations: dict[str, int] = {}

    def run(self, feeds: Mapping[str, Array], until: int | None = None) -> Values:
        """Runs the first `until` ops (default all) and returns every value by name; the state
        takes over what the updates wrote."""
        values: Values = {**self.state, **feeds}
        for op in self.graph.ops[:until]:
            outputs = run_op(self.graph, op, values)
            values.update(
                (name, out) for name, out in zip(op.outputs, outputs, strict=False) if name
            )
            if INTEGER_OPS[op.kind].counts:
                name = op.outputs[0]
                self.saturations[name] = self.saturations.get(name, 0) + int(outputs[-1][0])
        for op in self.graph.ops[:until]:
            for name in op.writes:
                if self.graph[name].role is Role.PARAMETER:
                    self.state[self.graph.storage(name)] = values[name]
        return values
