# SPDX-License-Identifier: Apache-2.0
"""Softmax inside of a network, over the fastest axis, in integers.

exp(-d s_x) of the distance d to a row's maximum is a table of 256 entries in Q`bits`; one division
a row, then y = requantize(e / sum(e)) (docs/numerics.md, section 1). The gradient
dL/dx_i = s_x p_i (g_i - sum_j g_j p_j) computes p again from x, in Q14. At the end of a network a
softmax is part of the loss (tte/passes/fold.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Graph, Op, QuantParams, TensorType
from tte.ops import params
from tte.ops.quantized import (
    NO_CLAMP,
    GradInputAttrs,
    RequantAttrs,
    grad_call,
    grad_epilogue,
    make_requant,
)
from tte.ops.spec import (
    Array,
    Backward,
    Contribution,
    Family,
    FloatOp,
    GradScale,
    Importer,
    IntegerOp,
    KernelCall,
    OnnxNode,
    Quantizer,
    Sample,
    TableArg,
    TensorArg,
)
from tte.ops.window import WindowAttrs, hwc

PROBABILITY_BITS = 24  # of e / sum(e) before it becomes int8
GRADIENT_BITS = 14  # of a probability, and 8 of the mean gradient: their product fits int32


@dataclass(frozen=True, slots=True)
class SoftmaxAttrs:
    """Input: x. `log`: the logarithm of the softmax."""

    log: bool = False


@dataclass(frozen=True, slots=True)
class Exponentials:
    """exp(-d s_x) in Q`bits` for d = 0 to 255: the sum of a row fits 32 bits."""

    bits: int
    table: tuple[int, ...]

    @staticmethod
    def of(scale: float, channels: int) -> Exponentials:
        """For rows of `channels` elements."""
        bits = min(24, 31 - math.ceil(math.log2(max(channels, 2))))
        real = np.exp(-np.arange(256) * scale) * 2.0**bits
        return Exponentials(bits, tuple(int(value) for value in np.floor(real + 0.5)))

    def probabilities(self, x: Array, bits: int) -> Array:
        """Q`bits` of each row, int64; x: codes."""
        e = np.asarray(self.table, np.int64)[x.max(axis=-1, keepdims=True) - x.astype(np.int64)]
        inverse = (1 << (self.bits + 30)) // e.sum(axis=-1, keepdims=True)
        shift = self.bits + 30 - bits
        return (e * inverse + (1 << (shift - 1))) >> shift

    def arg(self) -> TableArg:
        """The table for a kernel."""
        return TableArg("exponentials", "int32_t", self.table)


@dataclass(frozen=True, slots=True)
class SoftmaxInt8Attrs:
    """Input: x. `ratio`: s_x / s_y."""

    exponentials: Exponentials
    requant: RequantAttrs
    ratio: float


@dataclass(frozen=True, slots=True)
class SoftmaxGradAttrs(GradInputAttrs):
    """Inputs: grad_output, x, addend or "", mask or ""."""

    exponentials: Exponentials = Exponentials(24, ())


def infer(attrs: SoftmaxAttrs, types: Sequence[TensorType]) -> TensorType:
    """The input's type."""
    return TensorType(types[0].shape, "float32")


def float_reference(op: Op, inputs: Sequence[Array]) -> Array:
    """Probabilities over the last axis, or their logarithms."""
    z = inputs[0] - inputs[0].max(axis=-1, keepdims=True)
    total = np.exp(z).sum(axis=-1, keepdims=True)
    result: Array = z - np.log(total) if op.attrs.log else np.exp(z) / total
    return result


def quantize(op: Op, quantizer: Quantizer) -> None:
    """One softmax_int8."""
    if op.attrs.log:
        raise ValueError("LogSoftmax is supported at the end of a network only")
    x, y = quantizer.quant(op.inputs[0]), quantizer.quant(op.outputs[0])
    channels = quantizer.builder.tensors[op.outputs[0]].type.shape[-1]
    unit = QuantParams((2.0**-PROBABILITY_BITS,))
    attrs = SoftmaxInt8Attrs(
        Exponentials.of(x.per_tensor_scale, channels),
        make_requant(unit, y, [1.0], NO_CLAMP),
        x.per_tensor_scale / y.per_tensor_scale,
    )
    quantizer.builder.op("softmax_int8", op.name, op.inputs, op.outputs, attrs)


def from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Softmax or LogSoftmax over one axis; before opset 13 over all from `axis` on, of which one
    may have several elements."""
    layout = importer.layout(node.inputs[0])
    rank = len(layout.shape)
    axis = int(node.attrs.get("axis", -1 if node.opset >= 13 else 1))
    if not -rank <= axis < rank:
        raise importer.fail(f"axis {axis} is none of {rank} dimensions")
    axis %= rank
    if node.opset < 13:
        several = [i for i in range(axis, rank) if layout.shape[i] != 1]
        if len(several) > 1:
            raise importer.fail(
                f"it is over the axes {several} of shape {list(layout.shape)} together",
                "export with opset 13 or later, or flatten first",
            )
        axis = several[0] if several else axis
    attrs = SoftmaxAttrs(node.op_type == "LogSoftmax")
    importer.emit("softmax", node.inputs[:1], attrs, layout.with_last(axis))


# ---- integer ops --------------------------------------------------------------------------


def reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int8 probabilities."""
    attrs: SoftmaxInt8Attrs = op.attrs
    return [attrs.requant.apply(attrs.exponentials.probabilities(inputs[0], PROBABILITY_BITS))[0]]


def kernel_call(op: Op, graph: Graph) -> KernelCall:
    """tte_softmax_int8."""
    attrs: SoftmaxInt8Attrs = op.attrs
    out_h, out_w, channels = hwc(graph[op.outputs[0]].type)
    kernel_params = params.SoftmaxParams(
        positions=out_h * out_w,
        channels=channels,
        exponential_bits=attrs.exponentials.bits,
        pre_shift=attrs.requant.pre_shift,
        output_zero_point=attrs.requant.output_zero_point,
        multiplier=attrs.requant.multipliers[0],
    )
    args = (TensorArg(op.inputs[0]), attrs.exponentials.arg(), TensorArg(op.outputs[0]))
    return KernelCall(f"tte_{op.kind}", kernel_params, args)


def gradient(op: Op, grad: str, backward: Backward) -> None:
    """s_x / s_y p_i (g_i - sum_j g_j p_j)."""
    x, attrs = op.inputs[0], op.attrs
    shape = backward.graph[x].type.shape
    factor = attrs.ratio * 2.0 ** -(GRADIENT_BITS + 8)

    def emit(scale: GradScale, addend: str, mask: str, output: str) -> None:
        backward.builder.op(
            "softmax_grad_input_int8",
            f"{op.name}.grad_input",
            [grad, x, addend, mask],
            [output],
            SoftmaxGradAttrs(WindowAttrs((1, 1)), shape, scale, exponentials=attrs.exponentials),
        )

    backward.contribute(x, Contribution((factor,), emit=emit))


def grad_input_sums(op: Op, inputs: Sequence[Array]) -> Array:
    """p_i (g_i - sum_j g_j p_j) in Q22; integers round the sum to Q8."""
    grad, x = inputs
    p = op.attrs.exponentials.probabilities(x, GRADIENT_BITS)
    if grad.dtype.kind == "f":
        p = p.astype(grad.dtype)
        mean = (grad * p).sum(axis=-1, keepdims=True) * 2.0 ** (8 - GRADIENT_BITS)
    else:
        shift = GRADIENT_BITS - 8
        mean = ((grad * p).sum(axis=-1, keepdims=True) + (1 << (shift - 1))) >> shift
    result: Array = p * (256 * grad - mean)
    return result


def grad_input_reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int8 grad_input and its saturations."""
    grad, x, addend, mask = inputs
    return grad_epilogue(op, grad_input_sums(op, [grad.astype(np.int64), x]), addend, mask)


def grad_input_call(op: Op, graph: Graph) -> KernelCall:
    """tte_softmax_grad_input_int8."""
    out_h, out_w, channels = hwc(graph[op.outputs[0]].type)
    exponentials: Exponentials = op.attrs.exponentials
    kernel_params = params.SoftmaxGradInputParams(
        positions=out_h * out_w,
        channels=channels,
        exponential_bits=exponentials.bits,
        pre_shift=op.attrs.scale.pre_shift,
    )
    return grad_call(op, kernel_params, op.inputs[:2], (exponentials.arg(),))


FAMILY = Family(
    float_ops=(
        FloatOp(
            "softmax",
            infer,
            float_reference,
            quantize,
            {"Softmax": from_onnx, "LogSoftmax": from_onnx},
            kernels=("softmax_int8",),
            grad_kernels=("softmax_grad_input_int8",),
        ),
    ),
    integer_ops=(
        IntegerOp(
            "softmax_int8",
            reference,
            kernel_call,
            gradient=gradient,
            output_factors=lambda op: (1.0,),
            in_place=lambda op: (0,),
        ),
        IntegerOp(
            "softmax_grad_input_int8",
            grad_input_reference,
            grad_input_call,
            accumulate=grad_input_sums,
            in_place=lambda op: (0, 2),
        ),
    ),
    samples=(
        Sample("features", "softmax", SoftmaxAttrs(), ((1, 9),)),
        Sample("channels of a map", "softmax", SoftmaxAttrs(), ((1, 3, 4, 5),)),
    ),
)
