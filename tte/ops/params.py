# SPDX-License-Identifier: Apache-2.0
"""The kernels' parameter structs: twins, field for field, of runtime_c/include/tte_types.h.

The C name of a class is its name in lower case with `tte_` before it: AvgPool2dParams is
tte_avg_pool2d_params. A field is annotated with its C type; a value that does not fit it is a
ValueError. What the fields mean and their narrower ranges: see the header.
"""

from __future__ import annotations

import ctypes
import functools
import re
import typing
from dataclasses import dataclass, fields
from typing import Annotated, Any

u8 = Annotated[int, "uint8_t"]
u16 = Annotated[int, "uint16_t"]
u32 = Annotated[int, "uint32_t"]
i8 = Annotated[int, "int8_t"]
i32 = Annotated[int, "int32_t"]

_CTYPES: dict[str, Any] = {
    "uint8_t": ctypes.c_uint8,
    "uint16_t": ctypes.c_uint16,
    "uint32_t": ctypes.c_uint32,
    "int8_t": ctypes.c_int8,
    "int32_t": ctypes.c_int32,
}


class Params:
    """Base of the twins; checks the ranges of the fields."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for name, c_type in c_fields(type(self)):
            value = getattr(self, name)
            where = f"{type(self).__name__}.{name}"
            if not isinstance(c_type, str):
                if type(value) is not c_type:
                    raise ValueError(f"{where} must be a {c_type.__name__}, got {value!r}")
                continue
            low, high = c_range(c_type)
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{where} must fit {c_type} ({low}..{high}), got {value!r}")


@dataclass(frozen=True, slots=True)
class Factor(Params):
    """A positive real number, mantissa * 2^-exponent; (0, 0) is zero."""

    mantissa: i32
    exponent: i32


@dataclass(frozen=True, slots=True)
class Window(Params):
    """A window sliding over a map."""

    in_h: u16
    in_w: u16
    in_c: u16
    out_h: u16
    out_w: u16
    out_c: u16
    kernel_h: u16
    kernel_w: u16
    stride_h: u16
    stride_w: u16
    dilation_h: u16
    dilation_w: u16
    pad_top: u16
    pad_left: u16
    groups: u16
    in_ring: u16 = 0
    out_ring: u16 = 0


@dataclass(frozen=True, slots=True)
class Requant(Params):
    """From int32 accumulators to int8 activations."""

    input_zero_point: i8
    output_zero_point: i8
    act_min: i8
    act_max: i8
    pre_shift: u8


@dataclass(frozen=True, slots=True)
class Conv2dParams(Params):
    """Convolution and depthwise convolution."""

    window: Window
    requant: Requant
    trained_c: u16 = 0


@dataclass(frozen=True, slots=True)
class Conv2dGradInputParams(Params):
    """Their gradients with respect to the input."""

    window: Window
    pre_shift: u8
    trained_c: u16 = 0


@dataclass(frozen=True, slots=True)
class Conv2dGradWeightParams(Params):
    """Their updates; in_c counts the trained input channels only."""

    window: Window
    input_zero_point: i8


@dataclass(frozen=True, slots=True)
class AvgPool2dParams(Params):
    """Average pooling."""

    window: Window
    requant: Requant
    count_include_pad: u8


@dataclass(frozen=True, slots=True)
class AvgPool2dGradInputParams(Params):
    """The gradient of average pooling."""

    window: Window
    pre_shift: u8
    count_include_pad: u8


@dataclass(frozen=True, slots=True)
class LinearParams(Params):
    """The head."""

    in_c: u16
    out_c: u16
    input_zero_point: i8


@dataclass(frozen=True, slots=True)
class AddParams(Params):
    """The sum of two activations."""

    elems: u32
    a_multiplier: i32
    b_multiplier: i32
    shift: u8
    a_zero_point: i8
    b_zero_point: i8
    output_zero_point: i8
    act_min: i8
    act_max: i8


@dataclass(frozen=True, slots=True)
class Broadcast(Params):
    """Two operands along three axes."""

    outer: u32
    middle: u32
    inner: u32
    a_outer: u32
    a_middle: u32
    a_inner: u32
    b_outer: u32
    b_middle: u32
    b_inner: u32


@dataclass(frozen=True, slots=True)
class AddBroadcastParams(Params):
    """The sum of two tensors of different shapes."""

    broadcast: Broadcast
    add: AddParams


@dataclass(frozen=True, slots=True)
class MulParams(Params):
    """The product of two tensors."""

    broadcast: Broadcast
    requant: Requant
    b_zero_point: i8
    multiplier: i32


@dataclass(frozen=True, slots=True)
class BroadcastGradInputParams(Params):
    """The gradient of an operand."""

    broadcast: Broadcast
    channels: u16
    other_zero_point: i8
    pre_shift: u8


@dataclass(frozen=True, slots=True)
class ClipParams(Params):
    """An activation function by itself."""

    elems: u32
    act_min: i8
    act_max: i8


@dataclass(frozen=True, slots=True)
class WidenParams(Params):
    """int8 activations as int32 logits."""

    elems: u32
    input_zero_point: i8


@dataclass(frozen=True, slots=True)
class GradAddParams(Params):
    """The sum of two gradients."""

    positions: u32
    channels: u16
    pre_shift: u8


@dataclass(frozen=True, slots=True)
class GradBiasParams(Params):
    """The update of a bias."""

    positions: u32
    channels: u16


@dataclass(frozen=True, slots=True)
class SgdStep(Params):
    """One batch of the optimiser."""

    ready: i32
    rounding: u32
    learning_rate: Factor
    decay: Factor


@dataclass(frozen=True, slots=True)
class SgdStepParams(Params):
    """What every batch has in common."""

    batch: u32
    weight_decay: Factor


@dataclass(frozen=True, slots=True)
class SgdParams(Params):
    """The optimiser's move of one tensor."""

    elems: u32
    momentum: u16
    velocity_shift: i8


@dataclass(frozen=True, slots=True)
class ChannelsParams(Params):
    """A tensor [outer][channels][inner] of which `count` channels are listed."""

    outer: u32
    channels: u16
    inner: u16
    count: u16


@dataclass(frozen=True, slots=True)
class StridedCopyParams(Params):
    """A selection of elements, axes in the order of the output."""

    offset: i32
    size_0: u32
    size_1: u32
    size_2: u32
    size_3: u32
    size_4: u32
    stride_0: i32
    stride_1: i32
    stride_2: i32
    stride_3: i32
    stride_4: i32


@dataclass(frozen=True, slots=True)
class ConcatParams(Params):
    """Up to four inputs behind one another."""

    outer: u32
    a_elems: u32
    b_elems: u32
    c_elems: u32
    d_elems: u32
    pre_shift: u8
    a_zero_point: i8
    b_zero_point: i8
    c_zero_point: i8
    d_zero_point: i8
    output_zero_point: i8


@dataclass(frozen=True, slots=True)
class PadParams(Params):
    """A map with a border."""

    in_h: u16
    in_w: u16
    in_c: u16
    out_h: u16
    out_w: u16
    out_c: u16
    top: u16
    left: u16
    front: u16
    fill: i8
    input_zero_point: i8
    output_zero_point: i8
    pre_shift: u8
    multiplier: i32


@dataclass(frozen=True, slots=True)
class GradPlaceParams(Params):
    """The gradient of a slice, of concat and of pad."""

    in_h: u16
    in_w: u16
    in_c: u16
    out_h: u16
    out_w: u16
    out_c: u16
    begin_h: i32
    begin_w: i32
    begin_c: i32
    step_h: i32
    step_w: i32
    step_c: i32
    pre_shift: u8


@dataclass(frozen=True, slots=True)
class TableParams(Params):
    """A function of each element."""

    elems: u32


@dataclass(frozen=True, slots=True)
class TableGradInputParams(Params):
    """Its gradient."""

    positions: u32
    channels: u16
    pre_shift: u8


@dataclass(frozen=True, slots=True)
class SoftmaxParams(Params):
    """Softmax inside of a network."""

    positions: u32
    channels: u16
    exponential_bits: u8
    pre_shift: u8
    output_zero_point: i8
    multiplier: i32


@dataclass(frozen=True, slots=True)
class SoftmaxGradInputParams(Params):
    """Its gradient."""

    positions: u32
    channels: u16
    exponential_bits: u8
    pre_shift: u8


@dataclass(frozen=True, slots=True)
class MaxPool2dParams(Params):
    """Max pooling."""

    window: Window


@dataclass(frozen=True, slots=True)
class MaxPool2dGradInputParams(Params):
    """The gradient of max pooling."""

    window: Window
    pre_shift: u8


@dataclass(frozen=True, slots=True)
class ResizeNearest2dParams(Params):
    """Every pixel becomes a block."""

    in_h: u16
    in_w: u16
    channels: u16
    factor_h: u16
    factor_w: u16


@dataclass(frozen=True, slots=True)
class ResizeNearest2dGradInputParams(Params):
    """The gradient of that."""

    in_h: u16
    in_w: u16
    channels: u16
    factor_h: u16
    factor_w: u16
    pre_shift: u8


@dataclass(frozen=True, slots=True)
class SoftmaxCrossEntropyParams(Params):
    """The loss of a classifier."""

    classes: u16
    logit_shift: u8
    target_shift: u8 = 0
    target_label: i32 = 1
    target_other: i32 = 0


@dataclass(frozen=True, slots=True)
class OutputType(Params):
    """Whether a network's output is int8 codes or int32 accumulators."""

    is_int8: u8
    zero_point: i8


@dataclass(frozen=True, slots=True)
class SigmoidCrossEntropyParams(Params):
    """The loss of outputs that are classes by themselves."""

    output: OutputType
    elems: u32
    channels: u16
    logit_shift: u8
    target_0: i32
    target_1: i32


@dataclass(frozen=True, slots=True)
class MeanSquaredErrorParams(Params):
    """The loss of real values."""

    output: OutputType
    elems: u32
    channels: u16
    shift: u8
    offset: i32


def c_type_name(cls: type[Params]) -> str:
    """Conv2dParams -> "tte_conv2d_params"."""
    return "tte" + re.sub("[A-Z]", lambda match: "_" + match[0].lower(), cls.__name__)


Fields = tuple[tuple[str, str | type[Params]], ...]
_FIELDS: dict[type[Params], Fields] = {}


def c_fields(cls: type[Params]) -> Fields:
    """(name, C scalar type or the twin of a nested struct) of each field, in order; found once."""
    if cls not in _FIELDS:
        hints = typing.get_type_hints(cls, include_extras=True)
        annotations = [(field.name, hints[field.name]) for field in fields(cls)]  # type: ignore[arg-type]
        _FIELDS[cls] = tuple(
            (name, hint.__metadata__[0] if typing.get_origin(hint) is Annotated else hint)
            for name, hint in annotations
        )
    return _FIELDS[cls]


@functools.cache
def c_range(c_type: str) -> tuple[int, int]:
    """Smallest and largest value of a C integer type: "int8_t" -> (-128, 127)."""
    bits = 8 * ctypes.sizeof(_CTYPES[c_type])
    return (0, 2**bits - 1) if c_type.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


_STRUCTURES: dict[type[Params], type[ctypes.Structure]] = {}


def ctypes_structure(cls: type[Params]) -> type[ctypes.Structure]:
    """The twin's ctypes.Structure, which has the host compiler's layout; made once."""
    if cls not in _STRUCTURES:
        members = [
            (name, _CTYPES[c_type] if isinstance(c_type, str) else ctypes_structure(c_type))
            for name, c_type in c_fields(cls)
        ]
        _STRUCTURES[cls] = type(c_type_name(cls), (ctypes.Structure,), {"_fields_": members})
    return _STRUCTURES[cls]


def to_ctypes(params: Params) -> ctypes.Structure:
    """The same values as a C struct."""
    values = (getattr(params, name) for name, _ in c_fields(type(params)))
    return ctypes_structure(type(params))(
        *(to_ctypes(value) if isinstance(value, Params) else value for value in values)
    )
