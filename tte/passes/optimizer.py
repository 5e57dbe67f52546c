# SPDX-License-Identifier: Apache-2.0
"""Gives a pruned training graph an optimiser: momentum, batches, weight decay.

The update ops add to an int8 (int32) value and its residual; with a velocity they add to that, in
the same format, and an sgd op moves the value once a batch. So every gradient kernel serves both,
and plain gradient descent stays as it is. Source: docs/numerics.md, section 5.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tte.ir import Graph, Op, Role
from tte.ops.arith import to_factor
from tte.ops.loss import LossAttrs, step_tensor
from tte.ops.quantized import UpdateAttrs
from tte.ops.sgd import SgdAttrs, SgdStepAttrs
from tte.ops.spec import GraphBuilder
from tte.training import Optimizer

LEARNING_RATE, STEP, COUNT, SHARE = "learning_rate", "sgd_step", "sgd_count", "sample_share"


def add_optimizer(graph: Graph, optimizer: Optimizer) -> Graph:
    """The graph with its updates made the optimiser's; the same where that is plain."""
    if not optimizer.has_state:
        return graph
    builder = GraphBuilder(graph.name, dict(graph.tensors), [])
    renamed: dict[str, str] = {}
    for op in graph.ops:
        builder.origin = op.origin
        if isinstance(op.attrs, LossAttrs):
            builder.ops.append(_loss(builder, op, optimizer))
            _add_step(builder, optimizer)
        elif isinstance(op.attrs, UpdateAttrs):
            renamed.update(_update(builder, op, optimizer))
        else:
            builder.ops.append(op)
    outputs = [renamed.get(name, name) for name in graph.outputs]
    return graph.with_changes(
        tensors=builder.tensors.values(), ops=builder.ops, outputs=[*outputs, f"{COUNT}'"]
    )


def _loss(builder: GraphBuilder, op: Op, optimizer: Optimizer) -> Op:
    """Velocities gather gradients without the learning rate, and of a batch their mean."""
    if not optimizer.has_velocity:
        return op
    share = step_tensor(to_factor(1 / optimizer.batch))
    builder.tensor(SHARE, (2,), "int32", Role.SCALAR, data=share)
    return replace(op, inputs=tuple(SHARE if n == LEARNING_RATE else n for n in op.inputs))


def _add_step(builder: GraphBuilder, optimizer: Optimizer) -> None:
    builder.tensor(COUNT, (2,), "int32", Role.PARAMETER, data=np.zeros(2, np.int32))
    builder.tensor(f"{COUNT}'", (2,), "int32", Role.PARAMETER, stored_in=COUNT)
    builder.tensor(STEP, (6,), "int32", Role.SCALAR)
    attrs = SgdStepAttrs(optimizer.batch, optimizer.weight_decay)
    builder.op("sgd_step_int32", "sgd_step", [LEARNING_RATE, COUNT], [STEP, f"{COUNT}'"], attrs)


def _update(builder: GraphBuilder, op: Op, optimizer: Optimizer) -> dict[str, str]:
    """Adds an update op and what follows it; which outputs are now called otherwise."""
    attrs: UpdateAttrs = op.attrs
    if not optimizer.has_velocity and attrs.param == "bias":  # biases do not decay
        builder.ops.append(op)
        return {}
    value, updated = op.inputs[-2:], op.outputs
    if optimizer.has_velocity:
        names = f"{value[0]}.velocity", f"{value[0]}.velocity.residual"
        velocity = [_like(builder, *pair) for pair in zip(value, names, strict=True)]
        gathered = [_written(builder, name, f"{name}'") for name in velocity]
        settled = [_written(builder, name, f"{name}'") for name in gathered]
        inputs = (*op.inputs[:-2], *velocity)
        attrs = replace(attrs, gathers=True)
        builder.ops.append(replace(op, inputs=inputs, outputs=tuple(gathered), attrs=attrs))
    else:
        gathered, settled = ["", ""], ["", ""]
        builder.ops.append(op)
        value, updated = op.outputs, tuple(_written(builder, n, f"{n}'") for n in op.outputs)
    kind = "sgd_int32" if attrs.param == "bias" else "sgd_int8"
    builder.op(
        kind,
        f"{attrs.layer}.sgd_{attrs.param}",
        [STEP, *gathered, *value],
        [*updated, *settled],
        SgdAttrs(attrs.layer, attrs.param, optimizer.momentum),
    )
    return dict(zip(op.outputs, updated, strict=True))


def _like(builder: GraphBuilder, source: str, name: str) -> str:
    kind = builder.tensors[source].type
    data = np.zeros(kind.shape, kind.dtype)
    return builder.tensor(name, kind.shape, kind.dtype, Role.PARAMETER, data=data)


def _written(builder: GraphBuilder, name: str, new_name: str) -> str:
    tensor = builder.tensors[name]
    builder.tensors[new_name] = replace(tensor, name=new_name, data=None, stored_in=name)
    return new_name
