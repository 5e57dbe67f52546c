# SPDX-License-Identifier: Apache-2.0
"""Cuts the full training graph down to a plan: dead-code elimination and channel narrowing.

What no kept update needs goes: gradients below the first trained layer, unused masks. A layer of
which only some channels are trained keeps its whole weights in flash and the trained slice, with
its residual, in SRAM: a convolution takes both, for other layers a scatter puts them together
while the layer runs; a gather saves only those input channels that the update reads. Sparse
update: section 2.2 of "On-Device Training Under 256KB Memory" (NeurIPS 2022).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tte.errors import TteError
from tte.ir import Graph, Op, QuantParams, Role, TrainPlan
from tte.ops import INTEGER_OPS
from tte.ops.channels import ChannelsAttrs
from tte.ops.quantized import UpdateAttrs
from tte.ops.spec import GraphBuilder

TAKE_BOTH = ("conv2d_int8", "conv2d_grad_input_int8")  # frozen and trained weights


def prune(graph: Graph, plan: TrainPlan) -> Graph:
    """The training graph of `plan`, from the full one of passes/differentiate.py."""
    _check_gradients(graph, plan)
    kept: list[Op] = []
    for op in graph.ops:
        update = plan.of(op.attrs.layer) if isinstance(op.attrs, UpdateAttrs) else None
        if isinstance(op.attrs, UpdateAttrs):
            if update is None:
                continue
            if not (update.bias if op.attrs.param == "bias" else update.channels != ()):
                continue
        kept.append(op)
    fixed = [name for name in graph.outputs if graph[name].role is not Role.PARAMETER]
    updated = [name for op in kept if isinstance(op.attrs, UpdateAttrs) for name in op.outputs]
    pruned = eliminate_dead_code(graph.with_changes(ops=kept, outputs=(*fixed, *updated)))
    for op in pruned.ops:
        if isinstance(op.attrs, UpdateAttrs) and op.attrs.param == "weight":
            update = plan.of(op.attrs.layer)
            assert update is not None
            if update.channels is not None:
                pruned = _narrow(pruned, op, update.channels)
    trained = [
        replace(tensor, role=Role.PARAMETER)
        for op in pruned.ops
        if isinstance(op.attrs, UpdateAttrs)
        for tensor in (pruned[op.inputs[-2]],)
    ]
    return pruned.with_changes(tensors=trained)


def _check_gradients(graph: Graph, plan: TrainPlan) -> None:
    """Every op between a trained layer and the loss has a gradient; what lies in the frozen part
    needs none."""
    trained = {update.layer for update in plan.updates}
    behind: dict[str, str] = {}  # tensor -> the first trained layer that it depends on
    for op in graph.ops:
        layer = next((behind[name] for name in op.reads if name in behind), None)
        if any(graph[name].role is Role.GRADIENT for name in op.writes):
            return  # the loss: all before it is the forward pass
        if layer is not None and INTEGER_OPS[op.kind].gradient is None:
            raise TteError(
                f"{op.kind.rpartition('_')[0]} has no gradient, so that the layer {layer!r} "
                "behind it cannot be trained",
                where=op.origin or op.name,
                hint="train only layers between this one and the output: --update head, last:K "
                "with a smaller K, or an update file",
            )
        layer = layer or (op.name if op.name in trained else None)
        if layer is not None:
            behind.update(dict.fromkeys(op.writes, layer))


def eliminate_dead_code(graph: Graph) -> Graph:
    """Drops ops whose outputs nobody needs, and optional outputs that nobody reads."""
    needed = set(graph.outputs)
    kept: list[Op] = []
    for op in reversed(graph.ops):
        if needed.isdisjoint(op.writes):
            continue
        needed.update(op.reads)
        outputs = tuple(
            name if position == 0 or name in needed else ""
            for position, name in enumerate(op.outputs)
        )
        kept.append(replace(op, outputs=outputs))
    return graph.with_changes(ops=kept[::-1])


def _narrow(graph: Graph, update: Op, channels: tuple[int, ...]) -> Graph:
    """Trains only `channels` of the weight that `update` writes."""
    builder = GraphBuilder(graph.name, dict(graph.tensors), [])
    attrs: UpdateAttrs = update.attrs
    x, grad, step, weight, residual = update.inputs
    tensor = graph[weight]
    assert tensor.data is not None and tensor.quant is not None
    depthwise = "depthwise" in update.kind
    axis = 0 if depthwise else -1
    merge = ChannelsAttrs(channels, axis)
    groups = 1 if depthwise else attrs.window.groups
    share = graph[weight].type.shape[-1]
    picked = tuple(g * share + c for g in range(groups) for c in channels)
    gather = ChannelsAttrs(picked if not depthwise else channels, -1)

    data = np.take(tensor.data, channels, axis=axis)
    scales, quant = attrs.param_scale, tensor.quant
    if depthwise:
        scales = tuple(scales[c] for c in channels)
        quant = QuantParams(scales, 0, 0)
    trained = builder.tensor(
        f"{weight}.trained", data.shape, "int8", Role.PARAMETER, quant=quant, data=data
    )
    builder.replace_tensor(residual, type=builder.tensors[trained].type, data=np.zeros_like(data))
    updated = builder.tensor(
        f"{trained}'", data.shape, "int8", Role.PARAMETER, quant=quant, stored_in=trained
    )
    builder.replace_tensor(update.outputs[1], type=builder.tensors[trained].type)

    def merged(reader: Op) -> str:
        whole = builder.tensor(
            f"{reader.name}.weight.merged", tensor.type.shape, "int8", Role.ACTIVATION, quant=quant
        )
        builder.origin = reader.origin
        name = f"{reader.name}.merge"
        builder.op("scatter_channels_int8", name, [weight, trained], [whole], merge)
        return whole

    def gathered(source: str, name: str) -> str:
        whole = builder.tensors[source]
        part = builder.tensor(
            f"{attrs.layer}.{name}",
            (*whole.type.shape[:-1], len(gather.index)),
            "int8",
            whole.role if whole.role is Role.GRADIENT else Role.ACTIVATION,
            quant=whole.quant,
        )
        builder.op("gather_channels_int8", f"{attrs.layer}.save_{name}", [source], [part], gather)
        return part

    saved = ""
    for op in graph.ops:
        builder.origin = op.origin
        if op is update:
            narrow_grad = gathered(grad, "narrow_grad") if depthwise else grad
            window = replace(attrs.window, groups=len(channels)) if depthwise else attrs.window
            builder.op(
                update.kind,
                update.name,
                [saved, narrow_grad, step, trained, residual],
                [updated, update.outputs[1]],
                replace(attrs, window=window, param_scale=scales),
            )
            continue
        if op.name == attrs.layer:
            saved = gathered(x, "narrow_input")
        if weight in op.inputs and op.kind in TAKE_BOTH:
            # The trained weights follow the other weights, and the bias if there is one.
            position = 3 if op.kind == "conv2d_int8" else 2
            inputs = (*op.inputs[:position], trained, *op.inputs[position:])
            op = replace(op, inputs=inputs, attrs=replace(op.attrs, channels=channels))
        elif weight in op.inputs:
            whole = merged(op)
            op = replace(op, inputs=tuple(whole if name == weight else name for name in op.inputs))
        builder.ops.append(op)
    outputs = [updated if name == update.outputs[0] else name for name in graph.outputs]
    return graph.with_changes(tensors=builder.tensors.values(), ops=builder.ops, outputs=outputs)
