# SPDX-License-Identifier: Apache-2.0
"""Functions of each element by itself (sigmoid, hard-swish, leaky relu, ...), by table.

int8 has 256 codes: y = table[x], made at compile time from the exact function. The gradient is
dL/dx = dL/dy slope[x], where slope[x] is the function's mean slope over the real numbers that
have the code x: no derivative needs to be known, and kinks and saturation are averaged.
Source: docs/numerics.md, sections 1 and 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Graph, Op, QuantParams, TensorType
from tte.ops import batch_norm, params
from tte.ops.add import AddAttrs
from tte.ops.clip import ClipAttrs
from tte.ops.expression import Expression, call
from tte.ops.quantized import GradInputAttrs, grad_call, grad_epilogue
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

CODES = np.arange(-128, 128)
SLOPE_MAX = 2**15 - 1  # of a slope in int16
EDGE = 0.5  # of a code: what rounds to it


@dataclass(frozen=True, slots=True)
class FunctionAttrs:
    """Input: x."""

    expression: Expression


@dataclass(frozen=True, slots=True)
class TableInt8Attrs:
    """Input: x. `table`: y for the codes -128 to 127; `slopes`: dy / dx there, in codes."""

    expression: Expression
    table: tuple[int, ...]
    slopes: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TableGradAttrs(GradInputAttrs):
    """Inputs: grad_output, x, addend or "", mask or "". `slopes`: int16, for the codes of x."""

    slopes: tuple[int, ...] = ()


def infer(attrs: FunctionAttrs, types: Sequence[TensorType]) -> TensorType:
    """The input's type."""
    return TensorType(types[0].shape, "float32")


def float_reference(op: Op, inputs: Sequence[Array]) -> Array:
    """Real values."""
    return op.attrs.expression(inputs[0])


def codes_at(expression: Expression, x: QuantParams, y: QuantParams, at: Array) -> Array:
    """The function from x's codes, real numbers here, to y's, within what rounds to int8."""
    real = (at - x.zero_point) * x.per_tensor_scale
    value = expression(real.astype(np.float64)) / y.per_tensor_scale + y.zero_point
    value = np.where(np.isnan(value), y.zero_point, value)
    return value.clip(-128 - EDGE, 127 + EDGE)


def quantize(op: Op, quantizer: Quantizer) -> None:
    """One table_int8."""
    expression = op.attrs.expression
    x, y = quantizer.quant(op.inputs[0]), quantizer.quant(op.outputs[0])
    table = np.floor(codes_at(expression, x, y, CODES) + 0.5).clip(-128, 127)
    above, below = (codes_at(expression, x, y, CODES + edge) for edge in (EDGE, -EDGE))
    codes = tuple(int(code) for code in table)
    attrs = TableInt8Attrs(expression, codes, tuple((above - below).tolist()))
    quantizer.builder.op("table_int8", op.name, op.inputs, op.outputs, attrs)


# ---- nodes --------------------------------------------------------------------------------


def _function(name: str, **defaults: float) -> Callable[[OnnxNode, Importer], Expression]:
    """A function whose numbers are the node's attributes."""

    def expression(node: OnnxNode, importer: Importer) -> Expression:
        numbers = [float(node.attrs.get(key, default)) for key, default in defaults.items()]
        if not np.isfinite(numbers).all():
            raise importer.fail(f"its attributes {', '.join(defaults)} must be finite")
        return call(name, *numbers)

    return expression


def _gelu(node: OnnxNode, importer: Importer) -> Expression:
    kind = node.attrs.get("approximate", "none")
    if kind not in ("none", "tanh"):
        raise importer.fail(f"its approximation {kind!r} is unknown")
    return call("gelu" if kind == "none" else "gelu_tanh")


def _number(node: OnnxNode, importer: Importer, position: int, what: str) -> float:
    """The one value of a constant input."""
    value = importer.constant(node.inputs[position])
    if value is None or np.unique(value).size != 1 or not np.isfinite(value).all():
        raise importer.fail(f"its {what} must be one constant number")
    return float(np.asarray(value).reshape(-1)[0])


def _prelu(node: OnnxNode, importer: Importer) -> Expression:
    return call("leaky_relu", _number(node, importer, 1, "slope"))


def prelu_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """PRelu: with one slope a function; with one per channel x + (slope - 1) min(x, 0)."""
    slope = importer.constant(node.inputs[1])
    if slope is None or np.unique(slope).size == 1:
        from_onnx(node, importer)
        return
    x, y = node.inputs[0], node.outputs[0]
    importer.emit("clip", [x], ClipAttrs((-math.inf, 0.0)))
    found = batch_norm.per_channel(importer, y, slope)
    if found is None:
        raise importer.fail("its slope must be one constant number, or one for each channel")
    value, order = found
    batch_norm.emit(importer, y, value - 1.0, np.zeros_like(value), order)
    importer.emit("add", [x, y], AddAttrs())


def _pow(node: OnnxNode, importer: Importer) -> Expression:
    return call("power", _number(node, importer, 1, "exponent"))


EXPRESSIONS: dict[str, Callable[[OnnxNode, Importer], Expression]] = {
    "Abs": _function("abs"),
    "Celu": _function("celu", alpha=1.0),
    "Cos": _function("cos"),
    "Elu": _function("elu", alpha=1.0),
    "Erf": _function("erf"),
    "Exp": _function("exp"),
    "Gelu": _gelu,
    "HardSigmoid": _function("hard_sigmoid", alpha=0.2, beta=0.5),
    "HardSwish": _function("hard_swish"),
    "LeakyRelu": _function("leaky_relu", alpha=0.01),
    "Log": _function("log"),
    "Mish": _function("mish"),
    "Neg": lambda node, importer: call("affine", -1.0, 0.0),
    "PRelu": _prelu,
    "Pow": _pow,
    "Reciprocal": lambda node, importer: call("power", -1.0),
    "Selu": _function("selu", alpha=1.67326319217681884765625, gamma=1.05070102214813232421875),
    "Sigmoid": _function("sigmoid"),
    "Sin": _function("sin"),
    "Softplus": _function("softplus"),
    "Softsign": _function("softsign"),
    "Sqrt": _function("sqrt"),
    "Swish": _function("silu", alpha=1.0),
    "Tanh": _function("tanh"),
    "ThresholdedRelu": _function("thresholded_relu", alpha=1.0),
}


def from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Any of EXPRESSIONS."""
    expression = EXPRESSIONS[node.op_type](node, importer)
    importer.emit("function", node.inputs[:1], FunctionAttrs(expression))


# ---- integer ops --------------------------------------------------------------------------


def reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """table[x]."""
    return [np.asarray(op.attrs.table, np.int8)[inputs[0].astype(np.int64) + 128]]


def kernel_call(op: Op, graph: Graph) -> KernelCall:
    """tte_table_int8."""
    return KernelCall(
        f"tte_{op.kind}",
        params.TableParams(elems=graph[op.outputs[0]].type.elems),
        (
            TensorArg(op.inputs[0]),
            TableArg("table", "int8_t", op.attrs.table),
            TensorArg(op.outputs[0]),
        ),
    )


def gradient(op: Op, grad: str, backward: Backward) -> None:
    """dL/dy times the slope at the saved code of x."""
    x = op.inputs[0]
    shape = backward.graph[x].type.shape
    slopes = np.asarray(op.attrs.slopes)
    unit = float(np.abs(slopes).max()) / SLOPE_MAX or 1.0
    codes = tuple(int(slope) for slope in np.floor(slopes / unit + 0.5))

    def emit(scale: GradScale, addend: str, mask: str, output: str) -> None:
        backward.builder.op(
            "table_grad_input_int8",
            f"{op.name}.grad_input",
            [grad, x, addend, mask],
            [output],
            TableGradAttrs(WindowAttrs((1, 1)), shape, scale, slopes=codes),
        )

    backward.contribute(x, Contribution((unit,), emit=emit))


def grad_input_sums(op: Op, inputs: Sequence[Array]) -> Array:
    """The gradient times the slope."""
    grad, x = inputs
    slopes = np.asarray(op.attrs.slopes, np.int64)[x.astype(np.int64) + 128]
    result: Array = grad * slopes.astype(grad.dtype)
    return result


def grad_input_reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int8 grad_input and its saturations."""
    grad, x, addend, mask = inputs
    return grad_epilogue(op, grad_input_sums(op, [grad.astype(np.int64), x]), addend, mask)


def grad_input_call(op: Op, graph: Graph) -> KernelCall:
    """tte_table_grad_input_int8."""
    out_h, out_w, channels = hwc(graph[op.outputs[0]].type)
    kernel_params = params.TableGradInputParams(
        positions=out_h * out_w, channels=channels, pre_shift=op.attrs.scale.pre_shift
    )
    table = TableArg("slopes", "int16_t", op.attrs.slopes)
    return grad_call(op, kernel_params, op.inputs[:2], (table,))


def _sample(title: str, expression: Expression, shape: tuple[int, ...]) -> Sample:
    return Sample(title, "function", FunctionAttrs(expression), (shape,))


FAMILY = Family(
    float_ops=(
        FloatOp(
            "function",
            infer,
            float_reference,
            quantize,
            dict.fromkeys(EXPRESSIONS, from_onnx) | {"PRelu": prelu_from_onnx},
            any_order=True,
            kernels=("table_int8",),
            grad_kernels=("table_grad_input_int8",),
        ),
    ),
    integer_ops=(
        IntegerOp(
            "table_int8",
            reference,
            kernel_call,
            gradient=gradient,
            output_factors=lambda op: (1.0,),
            in_place=lambda op: (0,),
        ),
        IntegerOp(
            "table_grad_input_int8",
            grad_input_reference,
            grad_input_call,
            accumulate=grad_input_sums,
            in_place=lambda op: (0, 1, 2),
        ),
    ),
    samples=(
        _sample("hard swish", call("hard_swish"), (1, 3, 5, 7)),
        _sample("sigmoid", call("sigmoid"), (1, 13)),
        _sample("leaky relu", call("leaky_relu", 0.1), (1, 4, 3, 8)),
        _sample("tanh", call("tanh"), (1, 2, 3, 5)),
        _sample("gelu", call("gelu"), (1, 16)),
    ),
)
