# SPDX-License-Identifier: Apache-2.0
"""A chain of layers that runs in bands of rows, so that its inner maps never exist whole.

The first layer fills a ring of the rows that the second layer's windows span; everything behind
the second layer works row by row on a band. No row is computed twice. Where the output's rows are
no longer than what the loop has consumed of the input, the output grows into its place.
(MCUNet's patch-based inference recomputes halos; a ring does not.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tte.ir import Graph, Op, Tensor, TensorType
from tte.ops import add, conv2d, depthwise_conv2d
from tte.ops.conv2d import Conv2dInt8Attrs
from tte.ops.spec import (
    Arg,
    Array,
    BandPointer,
    ChainCall,
    Family,
    IntegerOp,
    KernelCall,
    StageCall,
    TensorArg,
)
from tte.ops.window import hwc

STAGES: dict[str, IntegerOp] = {
    op.kind: op
    for family in (conv2d.FAMILY, depthwise_conv2d.FAMILY, add.FAMILY)
    for op in family.integer_ops
    if op.kind in ("conv2d_int8", "depthwise_conv2d_int8", "add_int8")
}
ALIGNMENT_BYTES = 4


@dataclass(frozen=True, slots=True)
class ChainAttrs:
    """`inner`: the tensors between the stages, which are kept in `rings` rows each. `in_place`:
    positions of inputs whose place the output may take."""

    stages: tuple[Op, ...]
    inner: tuple[Tensor, ...]
    rings: tuple[int, ...]
    band_rows: int
    in_place: tuple[int, ...]

    @property
    def has_ring(self) -> bool:
        """Whether the second stage looks at more rows than its own."""
        return is_spatial(self.stages[1])

    def ring_offsets(self) -> dict[str, int]:
        """Where each inner tensor's rows begin in the chain's scratch memory, bytes."""
        offsets, offset = {}, 0
        for tensor, rows in zip(self.inner, self.rings, strict=True):
            offsets[tensor.name] = offset
            offset += _align(rows * row_elems(tensor.type))
        return offsets


def is_spatial(op: Op) -> bool:
    """Whether an output row needs other input rows than its own."""
    if not isinstance(op.attrs, Conv2dInt8Attrs):
        return False
    window = op.attrs.window
    return window.kernel[0] != 1 or window.stride[0] != 1 or any(window.pads[::2])


def row_elems(tensor: TensorType) -> int:
    """Elements of one row of a map."""
    _, width, channels = hwc(tensor)
    return width * channels


def reach(op: Op) -> int:
    """One past the last input row that output row 0 sees: row r sees up to r * stride + reach."""
    window = op.attrs.window
    return int(window.dilation[0] * (window.kernel[0] - 1) + 1 - window.pads[0])


def build(graph: Graph, stages: Sequence[Op], band_rows: int) -> Op:
    """The chain op of consecutive stages; the caller has checked that they form one."""
    inner = tuple(graph[op.outputs[0]] for op in stages[:-1])
    rings = [band_rows] * len(inner)
    if is_spatial(stages[1]):
        window = stages[1].attrs.window
        span, _ = window.span(band_rows, 1)
        rings[0] = min(hwc(inner[0].type)[0], int(span))
    names = {tensor.name for tensor in inner}
    inputs = dict.fromkeys(n for op in stages for n in op.reads if n not in names)
    masks = [n for op in stages for n in op.writes[1:]]
    attrs = ChainAttrs(tuple(stages), inner, tuple(rings), band_rows, ())
    name = f"{stages[0].name}..{stages[-1].name}"
    output = stages[-1].outputs[0]
    op = Op("chain", name, tuple(inputs), (output, *masks), attrs, stages[0].origin)
    if _may_overwrite(graph, op):
        position = op.inputs.index(stages[0].inputs[0])
        op = replace(op, attrs=replace(attrs, in_place=(position,)))
    return op


def _may_overwrite(graph: Graph, op: Op) -> bool:
    """Whether the output may grow at its input's place: rows that are still to be read always
    lie behind the rows already written."""
    attrs: ChainAttrs = op.attrs
    first, x = attrs.stages[0], op.attrs.stages[0].inputs[0]
    x_type, y_type = graph[x].type, graph[op.outputs[0]].type
    readers = [stage for stage in attrs.stages[1:] if x in stage.inputs]
    if any(stage is not attrs.stages[-1] or stage.kind != "add_int8" for stage in readers):
        return False
    if readers and x_type != y_type:
        return False
    x_row, y_row = row_elems(x_type), row_elems(y_type)
    for row in range(0, hwc(y_type)[0], attrs.band_rows):
        end = row + attrs.band_rows
        if end == hwc(y_type)[0]:
            break
        produced = _need(op, graph, end) if attrs.has_ring else end
        unread = produced
        if is_spatial(first):
            window = first.attrs.window
            unread = max(0, produced * window.stride[0] - window.pads[0])
        if end * y_row > unread * x_row:
            return False
    return True


def _need(op: Op, graph: Graph, end: int) -> int:
    """Rows of the first inner map that output rows below `end` need."""
    second = op.attrs.stages[1]
    rows = hwc(op.attrs.inner[0].type)[0]
    return max(0, min(rows, (end - 1) * second.attrs.window.stride[0] + reach(second)))


def inner_graph(op: Op, graph: Graph) -> Graph:
    """The graph with the chain's inner tensors in it."""
    tensors = {**graph.tensors, **{tensor.name: tensor for tensor in op.attrs.inner}}
    return Graph(graph.name, tensors, op.attrs.stages, (), ())


def reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """The stages one after the other."""
    values = dict(zip(op.inputs, inputs, strict=True))
    for stage in op.attrs.stages:
        outputs = STAGES[stage.kind].reference(stage, [values[name] for name in stage.inputs])
        values.update(zip(stage.outputs, outputs, strict=True))
    return [values[name] for name in op.outputs]


def kernel_call(op: Op, graph: Graph) -> ChainCall:
    """The loop over bands."""
    attrs: ChainAttrs = op.attrs
    inside = inner_graph(op, graph)
    rings = {t.name: rows for t, rows in zip(attrs.inner, attrs.rings, strict=True)}
    stages = tuple(
        StageCall(stage, _stage_call(stage, inside, rings, attrs.band_rows), fills)
        for stage, fills in zip(
            attrs.stages, (attrs.has_ring, *[False] * len(attrs.inner)), strict=True
        )
    )
    second = attrs.stages[1]
    return ChainCall(
        stages,
        hwc(graph[op.outputs[0]].type)[0],
        attrs.band_rows,
        hwc(attrs.inner[0].type)[0],
        second.attrs.window.stride[0] if attrs.has_ring else 1,
        reach(second) if attrs.has_ring else 0,
    )


def _stage_call(stage: Op, graph: Graph, rings: dict[str, int], band_rows: int) -> KernelCall:
    spec = STAGES[stage.kind]
    assert spec.kernel_call is not None
    call = spec.kernel_call(stage, graph)
    assert isinstance(call, KernelCall)
    if stage.kind != "add_int8":
        window = replace(
            call.params.window,
            in_ring=rings.get(stage.inputs[0], 0),
            out_ring=rings.get(stage.outputs[0], 0),
        )
        return replace(call, params=replace(call.params, window=window))
    elems = band_rows * row_elems(graph[stage.outputs[0]].type)
    return replace(
        call,
        params=replace(call.params, elems=elems),
        args=tuple(_band(arg, graph, rings) for arg in call.args),
    )


def _band(arg: Arg, graph: Graph, rings: dict[str, int]) -> Arg:
    """The current band of a whole tensor; a ring of one band is where it is."""
    if not isinstance(arg, TensorArg) or not arg.name or arg.name in rings:
        return arg
    tensor = graph[arg.name].type
    elems = row_elems(tensor)
    return BandPointer(arg.name, elems // 8 if tensor.dtype == "bit" else elems)


def scratch_bytes(op: Op, graph: Graph) -> int:
    """The rings, then the largest scratch of a stage."""
    attrs: ChainAttrs = op.attrs
    return _rings_bytes(attrs) + max(
        STAGES[stage.kind].scratch_bytes(stage, _banded(op, graph, stage)) for stage in attrs.stages
    )


def _rings_bytes(attrs: ChainAttrs) -> int:
    return sum(
        _align(rows * row_elems(tensor.type))
        for tensor, rows in zip(attrs.inner, attrs.rings, strict=True)
    )


def stage_scratch_offset(op: Op) -> int:
    """Where the stages' own scratch begins in the chain's, bytes."""
    return _rings_bytes(op.attrs)


def _banded(op: Op, graph: Graph, stage: Op) -> Graph:
    """The inner graph in which the stage's output has only as many rows as one call writes."""
    inside = inner_graph(op, graph)
    rows = op.attrs.band_rows
    if stage is op.attrs.stages[0] and op.attrs.has_ring:
        rows = op.attrs.rings[0]
    output = inside[stage.outputs[0]]
    _, _, width, channels = output.type.shape
    shorter = replace(output, type=TensorType((1, rows, width, channels), output.type.dtype))
    return Graph(inside.name, {**inside.tensors, output.name: shorter}, inside.ops, (), ())


def _align(size: int) -> int:
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


FAMILY = Family(
    integer_ops=(
        IntegerOp(
            "chain",
            reference,
            kernel_call,
            scratch_bytes=scratch_bytes,
            in_place=lambda op: op.attrs.in_place,
            macs=lambda op, graph: sum(
                STAGES[stage.kind].macs(stage, inner_graph(op, graph)) for stage in op.attrs.stages
            ),
        ),
    ),
)
