# SPDX-License-Identifier: Apache-2.0
"""Fully connected layer: y = W x + b, weights [out, in].

As the head it leaves its int32 accumulators as logits, no rounding (docs/numerics.md, section
2); elsewhere it is a 1x1 convolution of a 1x1 map. Its gradients are the convolution's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tte.ir import Graph, Op, QuantParams, Role, TensorType
from tte.ops import params
from tte.ops.conv2d import Conv2dAttrs, Conv2dInt8Attrs, check_bias
from tte.ops.quantized import (
    NO_CLAMP,
    add_updates,
    contribute_grad_input,
    exact,
    make_requant,
    quantize_weights,
)
from tte.ops.spec import (
    Array,
    Backward,
    Family,
    FloatOp,
    Importer,
    IntegerOp,
    KernelCall,
    OnnxNode,
    Quantizer,
    Sample,
    TensorArg,
)
from tte.ops.window import WindowAttrs

ONE_BY_ONE = WindowAttrs((1, 1))


@dataclass(frozen=True, slots=True)
class LinearAttrs:
    """Inputs: x [1, in], weight [out, in], bias [out] (or ""). `clamp`: a fused relu."""

    clamp: tuple[float, float] = NO_CLAMP


@dataclass(frozen=True, slots=True)
class LinearInt32Attrs:
    """Inputs: x, weight, bias; output: int32 accumulators."""

    input_zero_point: int


def infer(attrs: LinearAttrs, types: Sequence[TensorType]) -> TensorType:
    """Output type; ValueError where the weights do not fit the input."""
    x, weight = types[:2]
    if len(x.shape) != 2 or len(weight.shape) != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(f"weights {weight} do not fit input {x}")
    check_bias(types)
    return TensorType((1, weight.shape[0]), "float32")


def float_reference(op: Op, inputs: Sequence[Array]) -> Array:
    """Real matrix product with its clamp."""
    y = inputs[0] @ inputs[1].T
    if len(inputs) > 2:
        y = y + inputs[2]
    return np.clip(y, *op.attrs.clamp)


def is_logits(graph: Graph, name: str) -> bool:
    """Whether `name` is the output of a linear layer that ends the network: int32 then."""
    producer = graph.producers.get(name)
    return (
        name in graph.outputs
        and name not in graph.consumers
        and producer is not None
        and producer.kind == "linear"
        and producer.attrs.clamp == NO_CLAMP
    )


def quantize(op: Op, quantizer: Quantizer) -> None:
    """linear_int32 for the head, a 1x1 conv2d_int8 elsewhere."""
    weight, bias, weight_quant = quantize_weights(quantizer, op)
    builder = quantizer.builder
    x = quantizer.quant(op.inputs[0])
    if quantizer.is_logits(op.outputs[0]):
        scale = np.asarray(weight_quant.scale) * x.per_tensor_scale
        quant = QuantParams(tuple(scale.tolist()), 0, 1)
        out_c = len(weight_quant.scale)
        y = builder.tensor(op.outputs[0], (1, out_c), "int32", Role.ACTIVATION, quant=quant)
        attrs = LinearInt32Attrs(x.zero_point)
        builder.op("linear_int32", op.name, [op.inputs[0], weight, bias], [y], attrs)
        return
    shape = builder.tensors[weight].type.shape
    builder.replace_tensor(weight, type=TensorType((shape[0], 1, 1, shape[1]), "int8"))
    data = builder.tensors[weight].data
    assert data is not None
    builder.replace_tensor(weight, data=data.reshape(shape[0], 1, 1, shape[1]))
    requant = make_requant(x, quantizer.quant(op.outputs[0]), weight_quant.scale, op.attrs.clamp)
    builder.op(
        "conv2d_int8",
        op.name,
        [op.inputs[0], weight, bias],
        [op.outputs[0], ""],
        Conv2dInt8Attrs(ONE_BY_ONE, requant),
    )


def gemm_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """Gemm: y = alpha A B + beta C with one of A and B an activation; both may be transposed."""
    attrs = node.attrs
    transposed = bool(attrs.get("transA", 0)), bool(attrs.get("transB", 0))
    alpha, beta = float(attrs.get("alpha", 1.0)), float(attrs.get("beta", 1.0))
    first = importer.constant(node.inputs[0]) is not None  # the matrix, not the activation
    matrix, x = (node.inputs[0], node.inputs[1]) if first else (node.inputs[1], node.inputs[0])
    weight = importer.constant(matrix)
    if weight is None or weight.ndim != 2 or len(importer.layout(x).shape) != 2:
        raise importer.fail(
            "one of its first two inputs must be a constant matrix, the other an activation of two "
            "dimensions",
            "flatten the activation first",
        )
    if transposed[1 if first else 0]:
        importer.transpose(x, (1, 0))
        x = node.outputs[0]
    by_rows = transposed[1] if not first else not transposed[0]  # stored [out, in]
    bias = node.inputs[2] if len(node.inputs) > 2 else ""
    if bias:
        values = importer.constant(bias)
        out_c = weight.shape[0 if by_rows else 1]
        shape = () if values is None else (1,) * (2 - values.ndim) + values.shape
        if values is None or shape not in ((1, 1), (out_c, 1) if first else (1, out_c)):
            raise importer.fail("its bias must be a constant of one value per output")
    _emit(node, importer, x, 0 if first else 1, matrix, by_rows, bias, alpha, beta)


def matmul_from_onnx(node: OnnxNode, importer: Importer) -> None:
    """MatMul of an activation and a constant matrix, whichever comes first: a linear layer, or at
    every position of a map a 1x1 convolution."""
    constants = [importer.constant(name) for name in node.inputs]
    first = constants[0] is not None
    weight = constants[0 if first else 1]
    if weight is None or (first and constants[1] is not None):
        raise importer.fail(
            "one of its inputs must be a constant matrix; both are computed by the network",
            "products of two activations, as in attention, are not supported",
        )
    if weight.ndim < 1 or any(size != 1 for size in weight.shape[:-2]):
        raise importer.fail(f"its constant of shape {weight.shape} is not one matrix")
    x = node.inputs[1 if first else 0]
    rank = len(importer.layout(x).shape)
    if rank < 2:
        raise importer.fail("its activation must have two dimensions or more")
    axis = rank - 2 if first else rank - 1
    # A vector is a matrix of one row or column, which is not in the result.
    by_rows = first or weight.ndim == 1
    _emit(node, importer, x, axis, node.inputs[0 if first else 1], by_rows)
    if weight.ndim == 1:
        shape = importer.layout(node.outputs[0]).shape
        importer.reshape(node.outputs[0], [*shape[:axis], *shape[axis + 1 :]])


def _emit(
    node: OnnxNode,
    importer: Importer,
    x: str,
    axis: int,
    matrix: str,
    by_rows: bool,
    bias: str = "",
    alpha: float = 1.0,
    beta: float = 1.0,
) -> None:
    """A product along `axis` of the file's x; the matrix is [out, in] by rows, else [in, out]."""
    layout = importer.layout(x)
    order = layout.with_last(axis)
    stored = layout.ordered(order)
    if stored.axis(axis) != len(stored.map_shape) - 1:
        raise importer.fail(f"its activation has the shape {list(layout.shape)}")
    flat = len(stored.map_shape) == 2
    between: tuple[int, ...] = () if flat else (1, 1)

    def rows(weight: Array) -> Array:
        weight = weight.reshape((1, *weight.shape)[-2:])
        weight = weight if by_rows else weight.T
        return weight.reshape(len(weight), *between, -1)

    name = importer.weight(matrix, rows, 0, alpha)
    inputs = [x, name]
    if bias:
        values = importer.constant(matrix)
        assert values is not None
        out_c = len(rows(values))
        inputs.append(
            importer.weight(bias, lambda b: np.broadcast_to(b.reshape(-1), (out_c,)), 0, beta)
        )
    if flat:
        importer.emit("linear", inputs, LinearAttrs(), order)
    else:
        importer.emit("conv2d", inputs, Conv2dAttrs(ONE_BY_ONE), order)


# ---- the head -----------------------------------------------------------------------------


def reference(op: Op, inputs: Sequence[Array]) -> list[Array]:
    """int32 accumulators."""
    x, weight, bias = inputs
    real_weight, _ = exact(weight)
    centred = x.astype(real_weight.dtype) - op.attrs.input_zero_point
    return [(np.rint(centred @ real_weight.T).astype(np.int64) + bias).astype(np.int32)]


def kernel_call(op: Op, graph: Graph) -> KernelCall:
    """tte_linear_int32."""
    out_c, in_c = graph[op.inputs[1]].type.shape
    return KernelCall(
        f"tte_{op.kind}",
        params.LinearParams(in_c=in_c, out_c=out_c, input_zero_point=op.attrs.input_zero_point),
        (*(TensorArg(name) for name in op.inputs), TensorArg(op.outputs[0])),
    )


def gradient(op: Op, grad: str, backward: Backward) -> None:
    """The gradients of a 1x1 convolution."""
    x_shape = backward.graph[op.inputs[0]].type.shape
    contribute_grad_input(op, "conv2d_grad_input_int8", grad, x_shape, ONE_BY_ONE, backward)
    channels = backward.graph[op.inputs[1]].type.shape[0]
    add_updates(op, grad, backward, "conv2d_grad_weight_int8", ONE_BY_ONE, channels)


FAMILY = Family(
    float_ops=(
        FloatOp(
            "linear",
            infer,
            float_reference,
            quantize,
            {"Gemm": gemm_from_onnx, "MatMul": matmul_from_onnx},
            kernels=(
                "linear_int32",
                "conv2d_int8",
            ),
            grad_kernels=(
                "conv2d_grad_input_int8",
                "conv2d_grad_weight_int8",
                "grad_bias_int32",
            ),
        ),
    ),
    integer_ops=(
        IntegerOp(
            "linear_int32",
            reference,
            kernel_call,
            gradient=gradient,
            macs=lambda op, graph: graph[op.inputs[1]].type.elems,
        ),
    ),
    samples=(
        Sample("wide", "linear", LinearAttrs(), ((1, 19),), ((6, 19), (6,))),
        Sample("relu", "linear", LinearAttrs((0.0, float("inf"))), ((1, 8),), ((3, 8), (3,))),
    ),
)
