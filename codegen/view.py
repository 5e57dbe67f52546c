# SPDX-License-Identifier: Apache-2.0
"""What the templates see: a program as plain strings and numbers, every name made safe."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from tte import __version__
from tte.codegen import cformat
from tte.ir import Op, Role, Tensor
from tte.ops import INTEGER_OPS
from tte.ops.arith import to_factor
from tte.ops.params import c_type_name
from tte.ops.spec import (
    Arg,
    IntArg,
    KernelCall,
    SaturationsArg,
    ScratchArg,
    TableArg,
    TensorArg,
)
from tte.program import Program

C_TYPES = {"int8": "int8_t", "int32": "int32_t", "int16": "int16_t", "bit": "uint8_t"}
SCALARS = {
    "label": "&tte_label",
    "learning_rate": "&tte_learning_rate",
    "loss": "&tte_loss",
    "step": "&step",
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
class OpView:
    """One call. `index` is also its place in program.json."""

    index: int
    name: str
    comment: str
    symbol: str
    params_type: str
    params: list[str]
    args: str
    training_only: bool
    macs: int


@dataclass(frozen=True, slots=True)
class StateView:
    """A trained array, for the state table."""

    symbol: str
    name: str
    bytes: int


class ProgramView:
    """Everything the templates of model.c and data.c ask for."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._graph = program.graph
        self._names = cformat.Names(reserved=("arena", "step", "AT", "OP"))
        self._tables: dict[str, ArrayView] = {}
        self.saturations: list[str] = []
        views = [self._op(position, op) for position, op in enumerate(self._graph.ops)]
        self.ops = [view for view in views if view is not None]
        backward = program.schedule.backward_start
        count = sum(view is not None for view in views[:backward])
        self.forward, self.backward = self.ops[:count], self.ops[count:]
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
        self.tables = list(self._tables.values())

    def values(self) -> dict[str, Any]:
        """Template variables."""
        program, graph = self._program, self._graph
        rate = program.learning_rate
        return {
            "title": cformat.comment(f"{program.name} for {program.board.name}"),
            "version": __version__,
            "model_sha256": program.model_sha256,
            "update": cformat.comment(program.plan.spec.rsplit("/", 1)[-1]),
            "arena_bytes": program.memory.arena_bytes,
            "lower_bound_bytes": program.memory.lower_bound_bytes,
            "trainable_bytes": program.trainable_bytes,
            "input_bytes": graph[graph.inputs[0]].type.size_bytes,
            "classes": graph[graph.outputs[0]].type.shape[1],
            "op_count": len(self.ops),
            "saturation_count": len(self.saturations),
            "learning_rate": to_factor(rate),
            "learning_rate_text": f"{rate:.9g}",
            "input_offset": self._offset(graph.inputs[0]),
            "logits_offset": self._offset(graph.outputs[0]),
            "state": self.state,
            "trained": self.trained,
            "constants": self.constants,
            "tables": self.tables,
            "forward": self.forward,
            "backward": self.backward,
        }

    # ---- parts ----------------------------------------------------------------------------

    def _offset(self, name: str) -> int:
        return self._program.memory.placements[self._graph.storage(name)].offset_bytes

    def _array(self, tensor: Tensor) -> ArrayView:
        assert tensor.data is not None
        return ArrayView(
            self._names(tensor.name),
            C_TYPES[tensor.type.dtype],
            tensor.type.elems,
            cformat.comment(f"{tensor.name} {tensor.type}"),
            cformat.numbers(tensor.data),
        )

    def _op(self, position: int, op: Op) -> OpView | None:
        spec = INTEGER_OPS[op.kind]
        if spec.kernel_call is None:
            return None
        call = spec.kernel_call(op, self._graph)
        index = sum(INTEGER_OPS[o.kind].kernel_call is not None for o in self._graph.ops[:position])
        args = [self._arg(index, op, arg) for arg in call.args]
        if call.params is not None:
            args.insert(0, f"&params_{index}")
        return OpView(
            index,
            cformat.comment(op.name),
            self._comment(op, call),
            call.symbol,
            "" if call.params is None else c_type_name(type(call.params)),
            _struct_lines(call.params),
            _wrapped(args),
            position in self._program.schedule.training_only,
            spec.macs(op, self._graph),
        )

    def _comment(self, op: Op, call: KernelCall) -> str:
        """`name: kernel, input -> output (ONNX node)`."""
        names = [name for name in op.reads if self._graph[name].role is not Role.CONSTANT]
        source = self._graph[names[0]].type if names else ""
        target = self._graph[op.writes[0]].type
        origin = f" (ONNX {op.origin})" if op.origin else ""
        return cformat.comment(f"{op.name}: {source} -> {target}{origin}")

    def _arg(self, index: int, op: Op, arg: Arg) -> str:
        if isinstance(arg, IntArg):
            return str(arg.value)
        if isinstance(arg, TableArg):
            return self._table(index, op, arg)
        if isinstance(arg, ScratchArg):
            place = self._program.memory.placements[f"{op.name}.scratch"]
            return f"AT({arg.c_type}, {place.offset_bytes})"
        if isinstance(arg, SaturationsArg):
            self.saturations.append(op.outputs[0])
            return f"&tte_saturations[{len(self.saturations) - 1}]"
        return self._tensor(arg)

    def _tensor(self, arg: TensorArg) -> str:
        if not arg.name:
            return "NULL"
        root = self._graph[self._graph.storage(arg.name)]
        if root.role is Role.SCALAR:
            return SCALARS[root.name]
        if root.role in (Role.CONSTANT, Role.PARAMETER):
            return self._names(root.name)
        return f"AT({C_TYPES[root.type.dtype]}, {self._offset(arg.name)})"

    def _table(self, index: int, op: Op, arg: TableArg) -> str:
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
