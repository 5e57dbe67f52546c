# SPDX-License-Identifier: Apache-2.0
"""What an op has to tell about itself, and the builder that its rules write with.

A *float op* is what a frontend imports: shape rule, float reference, quantisation rule. An
*integer op* is what runs: its kind is the kernel's symbol without `tte_`, and it has an integer
reference, a gradient rule and a kernel call. Both are plain records of functions, one family a
file, listed in tte/ops/__init__.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tte.errors import TteError
from tte.ir import Graph, Op, QuantParams, Role, Tensor, TensorType
from tte.ops.layout import Layout

Array = NDArray[Any]


# ---- kernel calls -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TensorArg:
    """A pointer to a tensor; the empty name is NULL."""

    name: str


@dataclass(frozen=True, slots=True)
class TableArg:
    """A pointer to a constant table. `c_type`: an integer of C or tte_factor."""

    name: str
    c_type: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class ScratchArg:
    """A pointer to the op's scratch memory."""

    c_type: str


@dataclass(frozen=True, slots=True)
class SaturationsArg:
    """A pointer to the saturation counter of the op's output."""


@dataclass(frozen=True, slots=True)
class RowsArg:
    """A range of output rows by value: two arguments, 0 and `count` for a whole map; a chain
    puts its own rows there."""

    count: int


@dataclass(frozen=True, slots=True)
class BandPointer:
    """A pointer to a chain's current band of rows in a tensor: tensor + row * row_bytes."""

    name: str
    row_bytes: int


Arg = RowsArg | BandPointer | TensorArg | TableArg | ScratchArg | SaturationsArg


@dataclass(frozen=True, slots=True)
class KernelCall:
    """`symbol(&params, args...)`; params is a dataclass of tte.ops.params or None."""

    symbol: str
    params: Any
    args: tuple[Arg, ...]


@dataclass(frozen=True, slots=True)
class StageCall:
    """A call inside a chain's loop. Its RowsArg is `row, end`, or `done, need` for the stage
    that fills the ring."""

    op: Op
    call: KernelCall
    fills_ring: bool


@dataclass(frozen=True, slots=True)
class ChainCall:
    """for row in 0, band_rows .. out_rows: the stages, on rows row .. row + band_rows. The ring is
    filled up to `need` = min(ring_map_rows, (end - 1) * stride + reach)."""

    stages: tuple[StageCall, ...]
    out_rows: int
    band_rows: int
    ring_map_rows: int
    stride: int
    reach: int


# ---- importing ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OnnxNode:
    """An ONNX node, freed from protobuf. Absent optional inputs are empty strings."""

    op_type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any]
    opset: int


class Importer(Protocol):
    """What an op's import rule may ask of the frontend. Activations are NHWC maps or [1, C] here,
    whatever they are in the file (tte/ops/layout.py); constants come as they are in the file."""

    def type_of(self, name: str) -> TensorType:
        """Type of an activation as convolutions take it: the file's axis 1 is the channels; one
        spatial dimension is the width."""
        ...

    def layout(self, name: str) -> Layout:
        """An activation's shape in the file, and how it lies in memory now."""
        ...

    def constant(self, name: str) -> Array | None:
        """Real values of a constant, or None for an activation."""
        ...

    def weight(
        self, name: str, layout: Callable[[Array], Array], axis: int, scale: float = 1.0
    ) -> str:
        """Adds a constant laid out anew by `layout` (a pure transpose or reshape, after which
        the output channels are at `axis`), times `scale`; keeps its quantisation. Returns the
        tensor's name."""
        ...

    def emit(
        self,
        kind: str,
        inputs: Sequence[str],
        attrs: Any,
        order: Sequence[int] | None = None,
        output: str = "",
    ) -> None:
        """Adds a float op that stands for the node; `output`: which of the node's, if not the
        first. `order`: of the file's axes in memory, for all activations among the inputs;
        without it channels last, or for an op of any order as they are. Inputs that are stored
        otherwise are transposed first."""
        ...

    def reshape(self, name: str, shape: Sequence[int]) -> None:
        """The node's output is the activation `name` seen in another shape of the file."""
        ...

    def transpose(self, name: str, perm: Sequence[int]) -> None:
        """The node's output is the activation `name` with its axes in another order."""
        ...

    def alias(self, name: str) -> None:
        """The node's output is its input `name`."""
        ...

    def fail(self, why: str, hint: str = "") -> TteError:
        """An error that names the node."""
        ...


# ---- builder ------------------------------------------------------------------------------


@dataclass
class GraphBuilder:
    """Collects tensors and ops for a new graph. Only rules and passes hold one."""

    name: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    origin: str = ""  # of the ops that are added

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        role: Role,
        *,
        quant: QuantParams | None = None,
        data: Array | None = None,
        stored_in: str | None = None,
    ) -> str:
        """Adds a tensor and returns its name."""
        if name in self.tensors:
            raise ValueError(f"tensor {name!r} exists already")
        self.tensors[name] = Tensor(
            name, TensorType(tuple(shape), dtype), role, quant, data, stored_in
        )
        return name

    def constant(self, name: str, data: Array, quant: QuantParams | None = None) -> str:
        """Adds a constant of data's own dtype and returns its name."""
        return self.tensor(name, data.shape, str(data.dtype), Role.CONSTANT, quant=quant, data=data)

    def op(
        self, kind: str, name: str, inputs: Sequence[str], outputs: Sequence[str], attrs: Any = None
    ) -> Op:
        """Appends an op."""
        op = Op(kind, name, tuple(inputs), tuple(outputs), attrs, self.origin)
        self.ops.append(op)
        return op

    def replace_tensor(self, name: str, **changes: Any) -> None:
        """Changes fields of a tensor."""
        self.tensors[name] = replace(self.tensors[name], **changes)


# ---- gradients ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GradScale:
    """t = sum * factor + addend * addend_factor, per channel of t, in real numbers; and the
    same as fixed-point multipliers once the gradient scales are known."""

    factor: tuple[float, ...]
    addend_factor: tuple[float, ...] = ()
    multipliers: tuple[int, ...] = ()
    addend_multipliers: tuple[int, ...] = ()
    pre_shift: int = 0


@dataclass(frozen=True, slots=True)
class Contribution:
    """One consumer's share of dL/dt for a tensor t, per integer step of t.

    Either an existing int8 gradient times `factor`, or, with `emit`, a gradient op that is
    still to be written so that the sum, the producer's multiplier and its mask join its
    epilogue: emit(scale, addend, mask, output) adds it.
    """

    factor: tuple[float, ...]
    tensor: str = ""
    emit: Callable[[GradScale, str, str, str], None] | None = None


@dataclass
class Backward:
    """What a gradient rule writes with: the builder, and dL/dt contributions by tensor."""

    builder: GraphBuilder
    graph: Graph
    step: str  # the tensor that holds learning rate * loss gradient scale
    contributions: dict[str, list[Contribution]] = field(default_factory=dict)

    def contribute(self, tensor: str, contribution: Contribution) -> None:
        """Adds a share of dL/d(tensor)."""
        self.contributions.setdefault(tensor, []).append(contribution)


# ---- the two kinds of ops -----------------------------------------------------------------


class Quantizer(Protocol):
    """What a quantisation rule may ask of the quantize pass."""

    builder: GraphBuilder
    graph: Graph

    def quant(self, name: str) -> QuantParams:
        """Quantisation of an activation."""
        ...

    def is_logits(self, name: str) -> bool:
        """Whether `name` is the graph's output."""
        ...


@dataclass(frozen=True, slots=True)
class FloatOp:
    """`infer(attrs, input types) -> output type`; `reference(op, real inputs) -> output`;
    `quantize(op, quantizer)` adds the integer ops; `onnx` maps ONNX op types to import rules;
    `keeps_quant`: the output has the input's quantisation; `any_order`: computes element by
    element, so that the order of the axes does not matter; `kernels` and `grad_kernels`: the
    integer ops that it and its gradient may become, none for a view of the same bytes."""

    kind: str
    infer: Callable[[Any, Sequence[TensorType]], TensorType]
    reference: Callable[[Op, Sequence[Array]], Array]
    quantize: Callable[[Op, Quantizer], None] | None
    onnx: Mapping[str, Callable[[OnnxNode, Importer], None]] = field(default_factory=dict)
    keeps_quant: bool = False
    any_order: bool = False
    kernels: tuple[str, ...] = ()
    grad_kernels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IntegerOp:
    """`reference(op, inputs) -> outputs`, exact, leading dimension any N in forward ops.

    `gradient(op, grad, backward)`: `grad` is the int8 dL/d(acc) of the op's first output.
    `output_factors(op)`: M per channel, which leads from dL/dy to dL/d(acc).
    `accumulate(op, inputs)`: a gradient op's sums, linear, exact in float64 and usable on real
    numbers too (calibration). `scratch_bytes(op, graph)`. `in_place(op)`: inputs whose place
    the first output may take over when they die here. `macs(op, graph)`. `saved`: the type of
    the second output, which training alone needs: a clamp mask (bit), or what the gradient rule
    asks for. `saturates`: the kernel counts saturations, the reference returns them last.
    """

    kind: str
    reference: Callable[[Op, Sequence[Array]], list[Array]]
    kernel_call: Callable[[Op, Graph], KernelCall | ChainCall] | None
    gradient: Callable[[Op, str, Backward], None] | None = None
    output_factors: Callable[[Op], tuple[float, ...]] | None = None
    accumulate: Callable[[Op, Sequence[Array]], Array] | None = None
    real_gradient: Callable[[Op, Sequence[Array]], Array] | None = None
    scratch_bytes: Callable[[Op, Graph], int] = lambda op, graph: 0
    in_place: Callable[[Op], tuple[int, ...]] = lambda op: ()
    macs: Callable[[Op, Graph], int] = lambda op, graph: 0
    saved: str = "bit"
    saturates: bool = False

    @property
    def counts(self) -> bool:
        """Whether saturations are counted: in every gradient op, and where it says so."""
        return self.saturates or self.accumulate is not None


@dataclass(frozen=True, slots=True)
class Sample:
    """A case for the contract tests: a float op with small random inputs. `title` says what is
    special; `weights` are real constants after the activations."""

    title: str
    kind: str
    attrs: Any
    inputs: tuple[tuple[int, ...], ...]  # shapes of the activations
    weights: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Family:
    """One file's ops and samples."""

    float_ops: tuple[FloatOp, ...] = ()
    integer_ops: tuple[IntegerOp, ...] = ()
    samples: tuple[Sample, ...] = ()


def as_real(array: Array, bound: float) -> Array:
    """Integers as floats in which sums up to `bound` are exact: BLAS then does integer work."""
    return array.astype(np.float32 if bound < 2.0**24 else np.float64)
