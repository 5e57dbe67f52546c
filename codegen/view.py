# SPDX-License-Identifier: Apache-2.0
"""What the templates see: a program as plain strings and numbers, every name made safe."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from tte import __version__
from tte.codegen import cformat
from tte.ir import Graph, Op, Role, Tensor
from tte.ops import INTEGER_OPS
from tte.ops.arith import to_factor
from tte.ops.chain import inner_graph, stage_scratch_offset
from tte.ops.params import Window, c_type_name
from tte.ops.spec import (
    BandPointer,
    ChainCall,
    KernelCall,
    RowsArg,
    SaturationsArg,
    ScratchArg,
    TableArg,
)
from tte.program import Program

C_TYPES = {
    "int8": "int8_t",
    "int32": "int32_t",
    "int16": "int16_t",
    "bit": "uint8_t",
    "uint8": "uint8_t",
}
# What the templates call their own.
RESERVED = (
    *("arena", "step", "label", "training", "sgd_step", "sample_share", "AT", "OP", "MASK"),
    *("row", "end", "done", "need", "seen"),
)
SCALARS = {
    "label": "&label",
    "learning_rate": "&tte_settings.learning_rate",
    "loss": "&tte_loss",
    "step": "&step",
    "sgd_step": "&sgd_step",
    "sample_share": "&sample_share",
}


@dataclass(frozen=True, slots=True)
class ArrayView:
    """A C array."""

    symbol: str
    c_type: str
    elems: int
    comment: str
    lines: list[str]


@dataclass(frozen=True, slots=True)
class CallView:
    """One kernel call. `index` is also its place in program.json."""

    index: int
    name: str
    comment: str
    symbol: str
    params_type: str
    params: list[str]
    args: str
    macs: int
    window: Window | None
    has_mask: bool
    fills_ring: bool = False


@dataclass(frozen=True, slots=True)
class OpView:
    """One function: a call, or a chain's loop over bands of rows."""

    index: int
    name: str
    calls: list[CallView]
    training_only: bool
    loop: ChainCall | None = None


@dataclass(frozen=True, slots=True)
class StateView:
    """A trained array, for the state table."""

    symbol: str
    name: str
    bytes: int


class ProgramView:
    """Everything the templates of model.c and data.c ask for. `for_reading`: arrays are for a
    reader too, not for a compiler alone."""

    def __init__(self, program: Program, for_reading: bool = True) -> None:
        self._program = program
        self._for_reading = for_reading
        self._graph = program.graph
        self._names = cformat.Names(reserved=RESERVED)
        self._tables: dict[str, ArrayView] = {}
        self._rings: dict[str, int] = {}
        self.saturations: list[str] = []
        self.has_masks = False
        self.calls: list[CallView] = []
        views = [self._op(position, op) for position, op in enumerate(self._graph.ops)]
        backward = program.schedule.backward_start
        self.forward = [view for view in views[:backward] if view is not None]
        self.backward = [view for view in views[backward:] if view is not None]
        self.state = [
            StateView(self._names(name), name, self._graph[name].type.size_bytes)
            for name in program.trained
        ]
        self.trained = [self._array(self._graph[name]) for name in program.trained]
        read = {name for op in self._graph.ops for name in op.reads}
        self.constants = [
            self._array(tensor)
            for tensor in self._graph.tensors.values()
            if tensor.role is Role.CONSTANT and tensor.name in read
        ]
        self.target = self._target()
        self.tables = list(self._tables.values())

    def values(self) -> dict[str, Any]:
        """Template variables."""
        program, graph = self._program, self._graph
        rate, output = program.learning_rate, graph[graph.outputs[0]]
        return {
            "title": cformat.comment(f"{program.name} for {program.board.name}"),
            "version": __version__,
            "model_sha256": program.model_sha256,
            "model_id": ", ".join(f"0x{byte:02x}" for byte in bytes.fromhex(program.state_id)),
            "update": cformat.comment(program.plan.spec.rsplit("/", 1)[-1]),
            "arena_bytes": program.memory.arena_bytes,
            "lower_bound_bytes": program.memory.lower_bound_bytes,
            "trainable_bytes": program.trainable_bytes,
            "input_bytes": graph[graph.inputs[0]].type.size_bytes,
            **self.target,
            "output_bytes": output.type.size_bytes,
            "output_type": C_TYPES[output.type.dtype],
            "output": self._tensor(output.name),
            "op_count": len(self.calls),
            "saturation_count": len(self.saturations),
            "learning_rate": to_factor(rate),
            "learning_rate_text": f"{rate:.9g}",
            "input_offset": self._offset(graph.inputs[0]),
            "has_masks": self.has_masks,
            "optimizer": program.optimizer,
            "sample_share": to_factor(1 / program.optimizer.batch),
            "state": self.state,
            "trained": self.trained,
            "constants": self.constants,
            "tables": self.tables,
            "forward": self.forward,
            "backward": self.backward,
        }

    def _target(self) -> dict[str, Any]:
        """What the loss compares with: a label, values in the arena, or the input."""
        graph, kind = self._graph, self._program.loss.target.kind
        classes = graph[graph.outputs[0]].type.shape[-1] if kind == "label" else 0
        name = {"label": "label", "input": graph.inputs[0]}.get(kind, "target")
        tensor = graph[name].type
        comments = {
            "label": f"a label, 0 to {classes - 1}",
            "binary": "0 or 1, one an output",
            "codes": 'one an output, see "target" of program.json',
            "input": "the input is the target",
        }
        return {
            "classes": classes,
            "target_bytes": 0 if kind == "input" else tensor.size_bytes,
            "target_type": C_TYPES[tensor.dtype],
            "target": self._tensor(name),
            "target_comment": comments[kind],
        }

    # ---- parts ----------------------------------------------------------------------------

    def _offset(self, name: str) -> int:
        return self._program.memory.placements[self._graph.storage(name)].offset_bytes

    def _array(self, tensor: Tensor) -> ArrayView:
        assert tensor.data is not None
        as_text = tensor.type.dtype == "int8" and not self._for_reading
        return ArrayView(
            self._names(tensor.name),
            C_TYPES[tensor.type.dtype],
            tensor.type.elems,
            cformat.comment(f"{tensor.name} {tensor.type}"),
            cformat.text(tensor.data) if as_text else cformat.numbers(tensor.data),
        )

    def _op(self, position: int, op: Op) -> OpView | None:
        spec = INTEGER_OPS[op.kind]
        if spec.kernel_call is None:
            return None
        call = spec.kernel_call(op, self._graph)
        first = len(self.calls)
        training_only = position in self._program.schedule.training_only
        name = cformat.comment(op.name)
        if isinstance(call, KernelCall):
            place = self._program.memory.placements.get(f"{op.name}.scratch")
            scratch = place.offset_bytes if place else 0
            view = self._call(op, call, self._graph, scratch, spec.macs(op, self._graph))
            return OpView(first, name, [view], training_only)
        return OpView(first, name, self._chain(op, call), training_only, call)

    def _chain(self, op: Op, chain: ChainCall) -> list[CallView]:
        graph = inner_graph(op, self._graph)
        base = self._program.memory.placements[f"{op.name}.scratch"].offset_bytes
        for tensor, offset in op.attrs.ring_offsets().items():
            self._rings[tensor] = base + offset
        return [
            self._call(
                stage.op,
                stage.call,
                graph,
                base + stage_scratch_offset(op),
                INTEGER_OPS[stage.op.kind].macs(stage.op, graph),
                "done, need" if stage.fills_ring else "row, end",
            )
            for stage in chain.stages
        ]

    def _call(
        self, op: Op, call: KernelCall, graph: Graph, scratch: int, macs: int, rows: str = ""
    ) -> CallView:
        index = len(self.calls)
        args = []
        for arg in call.args:
            if isinstance(arg, RowsArg):
                args.append(rows or f"0, {arg.count}")
            elif isinstance(arg, TableArg):
                args.append(self._table(index, arg))
            elif isinstance(arg, ScratchArg):
                args.append(f"AT({arg.c_type}, {scratch})")
            elif isinstance(arg, SaturationsArg):
                self.saturations.append(op.outputs[0])
                args.append(f"&tte_saturations[{len(self.saturations) - 1}]")
            elif isinstance(arg, BandPointer):
                band = f" + row * {arg.row_bytes}"
                is_mask = graph[arg.name].type.dtype == "bit"
                args.append(self._tensor(arg.name, band) + ("" if is_mask else band))
            else:
                args.append(self._tensor(arg.name))
        if call.params is not None:
            args.insert(0, f"&params_{index}")
        view = CallView(
            index,
            cformat.comment(op.name),
            self._comment(op, graph),
            call.symbol,
            "" if call.params is None else c_type_name(type(call.params)),
            _struct_lines(call.params),
            _wrapped(args),
            macs,
            getattr(call.params, "window", None),
            len(op.outputs) > 1 and bool(op.outputs[1]),
            rows == "done, need",
        )
        self.calls.append(view)
        return view

    def _comment(self, op: Op, graph: Graph) -> str:
        """`name: what, input -> output (ONNX node)`."""
        names = [name for name in op.reads if graph[name].role is not Role.CONSTANT]
        source = f"{graph[names[0]].type} -> " if names else ""
        window = getattr(op.attrs, "window", None)
        what = ""
        if window is not None and window.kernel != (1, 1):
            what = f"{window.kernel[0]}x{window.kernel[1]} stride {window.stride[0]}, "
        origin = f" ({op.origin})" if op.origin and op.origin.split(" ")[0] != op.name else ""
        return cformat.comment(f"{op.name}: {what}{source}{graph[op.writes[0]].type}{origin}")

    def _tensor(self, name: str, band: str = "") -> str:
        if not name:
            return "NULL"
        if name in self._rings:
            return f"AT(int8_t, {self._rings[name]})"
        root = self._graph[self._graph.storage(name)]
        if root.role is Role.SCALAR:
            return SCALARS[root.name]
        if root.role in (Role.CONSTANT, Role.PARAMETER):
            return self._names(root.name)
        if root.type.dtype in ("bit", "uint8"):
            self.has_masks = True
            return f"MASK({self._offset(name)}{band})"
        return f"AT({C_TYPES[root.type.dtype]}, {self._offset(name)})"

    def _table(self, index: int, arg: TableArg) -> str:
        if not arg.values:
            return "NULL"
        symbol = self._names(f"op_{index}_{arg.name}")
        lines = (
            cformat.factors(arg.values)
            if arg.c_type == "tte_factor"
            else cformat.numbers(np.asarray(arg.values, np.int64))
        )
        self._tables[symbol] = ArrayView(symbol, arg.c_type, len(arg.values), "", lines)
        return symbol


def _struct_lines(params: Any) -> list[str]:
    """One designated field a line."""
    if params is None:
        return []
    lines = []
    for field in fields(params):
        value = getattr(params, field.name)
        text = cformat.struct(value) if hasattr(value, "__dataclass_fields__") else str(int(value))
        lines += _folded(f".{field.name} = {text}")
    return lines


def _folded(text: str) -> list[str]:
    """A long initialiser over several lines, broken after commas."""
    parts, line = [], ""
    for word in text.split(", "):
        if len(line) + len(word) > cformat.COLUMNS - 16:
            parts.append(line)
            line = " " * 4
        line += word + ", "
    parts.append(line)
    return ["\n        ".join(part.rstrip(" ") for part in parts).rstrip(",")]


def _wrapped(args: list[str]) -> str:
    """Arguments, broken into lines."""
    lines, line = [], ""
    for arg in args:
        if len(line) + len(arg) > cformat.COLUMNS - 16:
            lines.append(line.rstrip())
            line = " " * 8
        line += arg + ", "
    lines.append(line.rstrip(", "))
    return "\n".join(lines)
