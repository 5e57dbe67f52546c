# SPDX-License-Identifier: Apache-2.0
"""What narrows an update to some channels: gather what it needs, scatter what it trained.

gather: y[outer, j, inner] = x[outer, index[j], inner], the part of an activation that the
update of a narrowed layer reads. scatter: y = base, y[outer, index[j], inner] = values, the
whole weight tensor while a layer runs, of which only the trained part lives in SRAM.
widen: int32 logits for a network that does not end in a linear layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Graph, Op
from tte.ops import params
from tte.ops.spec import (
    Array,
    Backward,
    Contribution,
    Family,
    IntegerOp,
    KernelCall,
    TableArg,
    TensorArg,
)


@dataclass(frozen=True, slots=True)
class ChannelsAttrs:
    """`index`: ascending positions along `axis` of the whole tensor (negative: from the end)."""

    index: tuple[int, ...]
    axis: int


@dataclass(frozen=True, slots=True)
class WidenAttrs:
    """Input: x; output: int32 x - input_zero_point."""

    input_zero_point: int


def _params(op: Op, shape: Sequence[int]) -> params.ChannelsParams:
    axis = op.attrs.axis % len(shape)
    return params.ChannelsParams(
        outer=int(np.prod(shape[:axis], dtype=int)),
        channels=shape[axis],
        inner=int(np.prod(shape[axis + 1 :], dtype=int)),
        count=len(op.attrs.index),
    )


def gather_reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """The listed channels."""
    return [np.take(inputs[0], op.attrs.index, axis=op.attrs.axis)]


def gather_call(op: Op, graph: Graph) -> KernelCall:
    """tte_gather_channels_int8."""
    index = TableArg("index", "uint16_t", op.attrs.index)
    return KernelCall(
        f"tte_{op.kind}",
        _params(op, graph[op.inputs[0]].type.shape),
        (TensorArg(op.inputs[0]), index, TensorArg(op.outputs[0])),
    )


def scatter_reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """The base with the listed channels replaced."""
    y = inputs[0].copy()
    where: list[slice | list[int]] = [slice(None)] * y.ndim
    where[op.attrs.axis] = list(op.attrs.index)
    y[tuple(where)] = inputs[1]
    return [y]


def scatter_call(op: Op, graph: Graph) -> KernelCall:
    """tte_scatter_channels_int8."""
    index = TableArg("index", "uint16_t", op.attrs.index)
    base, values = op.inputs
    return KernelCall(
        f"tte_{op.kind}",
        _params(op, graph[base].type.shape),
        (TensorArg(base), TensorArg(values), index, TensorArg(op.outputs[0])),
    )


def widen_reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int32 codes without the zero point."""
    return [inputs[0].astype(np.int32) - op.attrs.input_zero_point]


def widen_call(op: Op, graph: Graph) -> KernelCall:
    """tte_widen_int32."""
    return KernelCall(
        f"tte_{op.kind}",
        params.WidenParams(
            elems=graph[op.outputs[0]].type.elems, input_zero_point=op.attrs.input_zero_point
        ),
        (TensorArg(op.inputs[0]), TensorArg(op.outputs[0])),
    )


def widen_gradient(op: Op, grad: str, backward: Backward) -> None:
    """One code is one accumulator step."""
    backward.contribute(op.inputs[0], Contribution((1.0,), tensor=grad))


FAMILY = Family(
    integer_ops=(
        IntegerOp("gather_channels_int8", gather_reference, gather_call),
        IntegerOp("scatter_channels_int8", scatter_reference, scatter_call),
        IntegerOp("widen_int32", widen_reference, widen_call, gradient=widen_gradient),
    ),
)
