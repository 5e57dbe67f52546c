# SPDX-License-Identifier: Apache-2.0
"""The full training graph: forward, loss, every gradient and every update, as plain ops.

Walking the forward ops backwards, the shares of dL/dy that y's consumers contributed are summed,
multiplied by the producer's M and masked, all in one op (docs/numerics.md, section 2); then the
producer's own gradient rule runs. Nothing is left out here: passes/prune.py cuts.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tte.errors import TteError
from tte.ir import Graph, Op, Role
from tte.ops import INTEGER_OPS
from tte.ops.loss import LossAttrs, SoftmaxCrossEntropyAttrs
from tte.ops.quantized import GradInputAttrs
from tte.ops.sigmoid_loss import SigmoidCrossEntropyAttrs
from tte.ops.spec import Backward, Contribution, GradScale, GraphBuilder
from tte.ops.squared_loss import MAX_ELEMS, MeanSquaredErrorAttrs
from tte.ops.window import WindowAttrs
from tte.training import BCE, CROSS_ENTROPY, DEFAULT_LOSS, Loss

LABEL, TARGET, LEARNING_RATE, LOSS, STEP = "label", "target", "learning_rate", "loss", "step"


def differentiate(graph: Graph, loss: Loss = DEFAULT_LOSS) -> Graph:
    """Adds the backward pass to an integer forward graph with one output: int32 accumulators, or
    for losses of real values also int8 codes.

    New inputs: label int32[1] or target int8[elements], learning_rate (a factor, int32[2]). New
    outputs: loss int32[1], and every updated tensor.
    """
    builder = GraphBuilder(graph.name, dict(graph.tensors), [])
    for op in graph.ops:
        builder.ops.append(replace(op, outputs=_with_saved(builder, op)))
    forward = tuple(builder.ops)
    backward = Backward(builder, graph, STEP)
    target = _add_loss(graph, loss, backward)
    for op in reversed(forward):
        spec = INTEGER_OPS[op.kind]
        shares = backward.contributions.pop(op.outputs[0], [])
        if shares and spec.gradient is not None:
            builder.origin = op.origin
            factors = spec.output_factors(op) if spec.output_factors else (1.0,)
            masked = len(op.outputs) > 1 and spec.saved == "bit"
            mask = op.outputs[1] if masked else ""
            grad = _combine(builder, op.outputs[0], shares, factors, mask)
            spec.gradient(op, grad, backward)
    updated = [
        name
        for name, tensor in builder.tensors.items()
        if tensor.role is Role.PARAMETER and tensor.stored_in
    ]
    return graph.with_changes(
        tensors=builder.tensors.values(),
        ops=builder.ops,
        inputs=(*dict.fromkeys((*graph.inputs, target)), LEARNING_RATE),
        outputs=(*graph.outputs, LOSS, *updated),
    )


def _with_saved(builder: GraphBuilder, op: Op) -> tuple[str, ...]:
    """Fills an op's second output, which forward graphs leave open: the clamp mask, or what else
    the gradient rule needs."""
    if len(op.outputs) < 2:
        return op.outputs
    shape = builder.tensors[op.outputs[0]].type.shape
    dtype = INTEGER_OPS[op.kind].saved
    suffix = "mask" if dtype == "bit" else "index"
    saved = builder.tensor(f"{op.outputs[0]}.{suffix}", shape, dtype, Role.ACTIVATION)
    return op.outputs[0], saved


def _add_loss(graph: Graph, loss: Loss, backward: Backward) -> str:
    """Adds the loss op; returns the name of its target."""
    builder, output = backward.builder, graph.outputs[0]
    kind, attrs = _loss_op(graph, loss)
    shape = graph[output].type.shape
    grad = builder.tensor(f"{output}.loss_grad", shape, "int8", Role.GRADIENT)
    if loss.target.kind == "label":
        target = builder.tensor(LABEL, (1,), "int32", Role.SCALAR)
    elif loss.target.kind == "input":
        target = graph.inputs[0]
    else:
        target = builder.tensor(TARGET, (graph[output].type.elems,), "int8", Role.INPUT)
    for name, elems in ((LEARNING_RATE, 2), (LOSS, 1), (STEP, 2)):
        builder.tensor(name, (elems,), "int32", Role.SCALAR)
    builder.op(kind, "loss", [output, target, LEARNING_RATE], [grad, LOSS, STEP], attrs)
    backward.contribute(output, Contribution((1.0,), tensor=grad))
    return target


def _loss_op(graph: Graph, loss: Loss) -> tuple[str, LossAttrs]:
    tensor = graph[graph.outputs[0]]
    assert tensor.quant is not None
    scale = tuple(tensor.quant.scales(tensor.type.shape[-1]).tolist())
    zero_point = 0 if tensor.type.dtype == "int32" else tensor.quant.zero_point
    if loss.name == CROSS_ENTROPY:
        attrs = SoftmaxCrossEntropyAttrs(scale, loss.smoothing, loss.weights)
        return "softmax_cross_entropy_int8", attrs
    if loss.name == BCE:
        return "sigmoid_cross_entropy_int8", SigmoidCrossEntropyAttrs(
            scale, zero_point, loss.smoothing, loss.weights
        )
    if tensor.type.elems > MAX_ELEMS:
        raise TteError(
            f"the output has {tensor.type.elems} elements",
            where=graph.outputs[0],
            why=f"a squared error of at most {MAX_ELEMS} is computed",
        )
    return "mean_squared_error_int8", MeanSquaredErrorAttrs(
        scale, zero_point, loss.target.scale, loss.target.offset
    )


def _combine(
    builder: GraphBuilder,
    name: str,
    shares: list[Contribution],
    factors: tuple[float, ...],
    mask: str,
) -> str:
    """dL/d(acc) of the tensor's producer: the sum of all shares, times `factors`, masked.

    At most one unwritten op and one existing gradient fit one epilogue; more are first summed
    without factors and mask.
    """
    shape = builder.tensors[name].type.shape
    pending = [share for share in shares if share.emit]
    existing = [share for share in shares if not share.emit]
    partials = 0

    def per_channel(factor: tuple[float, ...], outer: tuple[float, ...]) -> tuple[float, ...]:
        product = np.asarray(factor) * np.asarray(outer)
        return tuple(np.broadcast_to(product, (shape[-1],)).tolist())

    def write(
        first: Contribution,
        second: Contribution | None,
        outer: tuple[float, ...],
        mask: str,
        output: str,
    ) -> str:
        builder.tensor(output, shape, "int8", Role.GRADIENT)
        addend = second.tensor if second else ""
        scale = GradScale(
            per_channel(first.factor, outer), per_channel(second.factor, outer) if second else ()
        )
        if first.emit:
            first.emit(scale, addend, mask, output)
        else:
            attrs = GradInputAttrs(WindowAttrs((1, 1)), shape, scale)
            inputs = [first.tensor, addend, mask]
            builder.op("grad_add_int8", f"{output}.add", inputs, [output], attrs)
        return output

    def partial(first: Contribution, second: Contribution | None) -> None:
        nonlocal partials
        tensor = write(first, second, (1.0,), "", f"{name}.grad.{partials}")
        existing.append(Contribution((1.0,), tensor=tensor))
        partials += 1

    while len(pending) > 1:
        partial(pending.pop(0), existing.pop() if existing else None)
    while len(existing) > (1 if pending else 2):
        partial(existing.pop(), existing.pop())
    alone = not pending and len(existing) == 1 and not mask
    if alone and set(per_channel(existing[0].factor, factors)) == {1.0}:
        return existing[0].tensor
    queue = pending + existing
    second = queue[1] if len(queue) > 1 else None
    return write(queue[0], second, factors, mask, f"{name}.grad")
