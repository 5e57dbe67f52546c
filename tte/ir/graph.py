# SPDX-License-Identifier: Apache-2.0
"""Graph, tensors and ops: single assignment, in execution order, nothing mutable.

A tensor that is updated in place appears twice: `w` before, `w'` after; `w'` says
`stored_in="w"`, and the verifier demands that every reader of `w` runs before the op that
writes `w'`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from tte.ir.quant import QuantParams

DTYPE_BITS = {"int8": 8, "uint8": 8, "int16": 16, "int32": 32, "float32": 32, "bit": 1}


@dataclass(frozen=True, slots=True)
class TensorType:
    """Shape and element type. Activations are NHWC with N = 1 (or [1, C]), convolution
    weights OHWI, depthwise weights [C, kernel_h, kernel_w, 1]. `bit` is a packed mask,
    `uint8` an index."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def elems(self) -> int:
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return (self.elems * DTYPE_BITS[self.dtype] + 7) // 8

    def __str__(self) -> str:
        return f"{self.dtype}[{'x'.join(map(str, self.shape))}]"


class Role(Enum):
    """What a tensor is for; decides where it lives."""

    INPUT = "input"  # written from outside before a step
    CONSTANT = "constant"  # never changes: flash
    PARAMETER = "parameter"  # trained: SRAM for ever, initial value in flash
    ACTIVATION = "activation"  # arena
    GRADIENT = "gradient"  # arena; int8, scale relative to the loss gradient
    SCALAR = "scalar"  # a few bytes of their own: label, loss, learning rate


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value. `data` is set for constants and parameters. `stored_in` names the tensor whose
    place this one takes over (an update, a reshape)."""

    name: str
    type: TensorType
    role: Role
    quant: QuantParams | None = None
    data: NDArray[Any] | None = field(default=None, repr=False, compare=False)
    stored_in: str | None = None


@dataclass(frozen=True, slots=True)
class Op:
    """An operation. `attrs` is the kind's own frozen dataclass; `origin` names the ONNX node
    that it comes from. An input that an op may leave out is the empty string."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Any = field(default=None, repr=False, compare=False)
    origin: str = ""

    @property
    def reads(self) -> tuple[str, ...]:
        """The inputs that are there."""
        return tuple(name for name in self.inputs if name)

    @property
    def writes(self) -> tuple[str, ...]:
        """The outputs that are there."""
        return tuple(name for name in self.outputs if name)


@dataclass(frozen=True)
class Graph:
    """Ops in execution order over named tensors."""

    name: str
    tensors: Mapping[str, Tensor]
    ops: tuple[Op, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    @cached_property
    def producers(self) -> Mapping[str, Op]:
        """Tensor name -> the op that writes it."""
        return {name: op for op in self.ops for name in op.writes}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Op, ...]]:
        """Tensor name -> the ops that read it, in order; missing where nobody does."""
        found: dict[str, list[Op]] = {}
        for op in self.ops:
            for name in dict.fromkeys(op.reads):
                found.setdefault(name, []).append(op)
        return {name: tuple(ops) for name, ops in found.items()}

    def with_changes(
        self,
        *,
        tensors: Iterable[Tensor] = (),
        ops: Sequence[Op] | None = None,
        inputs: Sequence[str] | None = None,
        outputs: Sequence[str] | None = None,
    ) -> Graph:
        """A copy with tensors added or replaced, and other ops; tensors that nothing mentions
        any more are dropped."""
        merged = dict(self.tensors)
        merged.update((tensor.name, tensor) for tensor in tensors)
        new_ops = self.ops if ops is None else tuple(ops)
        new_inputs = self.inputs if inputs is None else tuple(inputs)
        new_outputs = self.outputs if outputs is None else tuple(outputs)
        used = {*new_inputs, *new_outputs}
        for op in new_ops:
            used.update(op.reads)
            used.update(op.writes)
        for name in list(used):
            stored_in = merged[name].stored_in
            while stored_in is not None:
                used.add(stored_in)
                stored_in = merged[stored_in].stored_in
        return replace(
            self,
            tensors={name: tensor for name, tensor in merged.items() if name in used},
            ops=new_ops,
            inputs=new_inputs,
            outputs=new_outputs,
        )

    def storage(self, name: str) -> str:
        """The tensor whose place `name` occupies: itself, or the end of its stored_in chain."""
        stored_in = self.tensors[name].stored_in
        while stored_in is not None:
            name = stored_in
            stored_in = self.tensors[name].stored_in
        return name
