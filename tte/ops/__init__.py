# SPDX-License-Identifier: Apache-2.0
"""All ops. A new one is a file with a FAMILY, listed here."""

from __future__ import annotations

from tte.ops import (
    add,
    avg_pool2d,
    batch_norm,
    broadcast,
    chain,
    channels,
    clip,
    concat,
    conv2d,
    conv_transpose2d,
    depthwise_conv2d,
    function,
    gradient,
    linear,
    loss,
    max_pool2d,
    mul,
    pad,
    reshape,
    resize_nearest2d,
    sgd,
    sigmoid_loss,
    slice,
    softmax,
    squared_loss,
    transpose,
)
from tte.ops.spec import Family, FloatOp, IntegerOp

FAMILIES: tuple[Family, ...] = (
    conv2d.FAMILY,
    depthwise_conv2d.FAMILY,
    conv_transpose2d.FAMILY,
    linear.FAMILY,
    add.FAMILY,
    mul.FAMILY,
    broadcast.FAMILY,
    clip.FAMILY,
    function.FAMILY,
    softmax.FAMILY,
    avg_pool2d.FAMILY,
    max_pool2d.FAMILY,
    concat.FAMILY,
    slice.FAMILY,
    pad.FAMILY,
    resize_nearest2d.FAMILY,
    reshape.FAMILY,
    transpose.FAMILY,
    batch_norm.FAMILY,
    loss.FAMILY,
    sigmoid_loss.FAMILY,
    squared_loss.FAMILY,
    gradient.FAMILY,
    sgd.FAMILY,
    channels.FAMILY,
    chain.FAMILY,
)

FLOAT_OPS: dict[str, FloatOp] = {op.kind: op for family in FAMILIES for op in family.float_ops}
INTEGER_OPS: dict[str, IntegerOp] = {
    op.kind: op for family in FAMILIES for op in family.integer_ops
}
ONNX_RULES = {
    op_type: rule
    for family in FAMILIES
    for float_op in family.float_ops
    for op_type, rule in float_op.onnx.items()
}

__all__ = ["FAMILIES", "FLOAT_OPS", "INTEGER_OPS", "ONNX_RULES"]
