# SPDX-License-Identifier: Apache-2.0
"""What every layer with weights shares: quantised weights, requantisation, fused updates.

Source: docs/numerics.md, sections 1 (forward), 2 (gradients) and 3 (update); quantization-aware
scaling is section 2.1 of "On-Device Training Under 256KB Memory" (NeurIPS 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tte.errors import TteError
from tte.ir import Op, QuantParams, Role, Tensor
from tte.ops import arith, params
from tte.ops.spec import (
    Arg,
    Array,
    Backward,
    Contribution,
    GradScale,
    KernelCall,
    Quantizer,
    SaturationsArg,
    ScratchArg,
    TableArg,
    TensorArg,
    as_real,
)
from tte.ops.window import WindowAttrs

NO_CLAMP = (-math.inf, math.inf)
MIN_RANGE = 1e-6  # of a tensor that is always 0: any scale will do
FIRST_BIAS_LIMIT = 2**26  # beyond it, rounding M to 32 bits would shift an output by 1/128 quantum


# ---- requantisation -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RequantAttrs:
    """From int32 accumulators to int8. `factor`: M = s_x s_w / s_y per output channel, real;
    `multipliers`, `pre_shift`: the same in fixed point."""

    factor: tuple[float, ...]
    multipliers: tuple[int, ...]
    pre_shift: int
    input_zero_point: int
    output_zero_point: int
    act_min: int
    act_max: int

    def apply(self, acc: Array) -> list[Array]:
        """int8 values and the mask of those inside the clamp range; channels last."""
        value = arith.requantize(acc, self.multipliers, self.pre_shift)
        value += self.output_zero_point
        return list(arith.clamp_with_mask(value, self.act_min, self.act_max))

    def params(self) -> params.Requant:
        """The C struct."""
        return params.Requant(
            input_zero_point=self.input_zero_point,
            output_zero_point=self.output_zero_point,
            act_min=self.act_min,
            act_max=self.act_max,
            pre_shift=self.pre_shift,
        )


def clamp_codes(quant: QuantParams, clamp: tuple[float, float]) -> tuple[int, int]:
    """A real clamp range as int8 codes of a tensor: what relu and relu6 become."""
    low, high = quant.quantize(np.asarray(clamp)).tolist()
    return low, high


def quant_of_range(low: float, high: float) -> QuantParams:
    """All 256 codes over [low, high], which holds 0; 0 is a code."""
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < MIN_RANGE:
        high = low + MIN_RANGE
    scale = (high - low) / 255
    zero_point = int(np.clip(np.floor(-128 - low / scale + 0.5), -128, 127))
    return QuantParams((scale,), zero_point)


def make_requant(
    x: QuantParams, y: QuantParams, weight_scale: Sequence[float], clamp: tuple[float, float]
) -> RequantAttrs:
    """Requantisation from accumulators of x and weights to y."""
    factor = np.asarray(weight_scale, np.float64) * x.per_tensor_scale / y.per_tensor_scale
    multipliers, pre_shift = arith.fixed_multipliers(factor)
    act_min, act_max = clamp_codes(y, clamp)
    return RequantAttrs(
        tuple(factor.tolist()),
        multipliers,
        pre_shift,
        x.zero_point,
        y.zero_point,
        act_min,
        act_max,
    )


# ---- weights ------------------------------------------------------------------------------


def quantize_weights(quantizer: Quantizer, op: Op) -> tuple[str, str, QuantParams]:
    """int8 weights (per output channel, axis 0, symmetric) and int32 bias of a float layer.

    Weights and biases that came quantised keep their codes. Biases start within +-2^26, so that
    dead channels cannot overflow an accumulator. Returns the tensor names and the weights'
    quantisation, with one scale per channel.
    """
    graph, builder = quantizer.graph, quantizer.builder
    x_scale = quantizer.quant(op.inputs[0]).per_tensor_scale
    weight = graph[op.inputs[1]]
    assert weight.data is not None
    channels = weight.type.shape[0]
    bias = graph[op.inputs[2]] if len(op.inputs) > 2 and op.inputs[2] else None
    real_bias = np.zeros(channels) if bias is None else real_data(bias)
    if weight.quant is not None and weight.type.dtype == "int8" and weight.quant.zero_point == 0:
        codes, scales = weight.data, weight.quant.scales(channels)
    else:
        real = real_data(weight)
        largest = np.abs(real).reshape(channels, -1).max(axis=1)
        # An all-zero channel gets the scale of the largest one; a large bias needs room too.
        scales = np.where(largest > 0, largest, max(float(largest.max()), 1e-3)) / 127
        scales = np.maximum(scales, np.abs(real_bias) / (x_scale * FIRST_BIAS_LIMIT))
        shape = (channels, *[1] * (real.ndim - 1))
        codes = np.floor(real / scales.reshape(shape) + 0.5).clip(-127, 127).astype(np.int8)
    bias_scales = x_scale * scales
    if (
        bias is not None
        and bias.data is not None
        and bias.type.dtype == "int32"
        and bias.quant is not None
        and np.allclose(bias.quant.scales(channels), bias_scales, rtol=1e-5, atol=0)
    ):
        bias_codes = bias.data.astype(np.int64)
    else:
        bias_codes = np.floor(real_bias / bias_scales + 0.5)
    # In a dead channel the bias may be all there is: coarser codes make room for it.
    coarser = np.maximum(1.0, np.ceil(np.abs(bias_codes) / FIRST_BIAS_LIMIT))
    if (coarser > 1).any():
        shape = (channels, *[1] * (codes.ndim - 1))
        codes = np.floor(codes / coarser.reshape(shape) + 0.5).astype(np.int8)
        bias_codes = np.floor(bias_codes / coarser + 0.5)
        scales = scales * coarser
    quant = QuantParams(tuple(float(scale) for scale in scales), 0, 0)
    bias_quant = QuantParams(tuple(float(x_scale * scale) for scale in scales), 0, 0)
    bias_codes = bias_codes.astype(np.int32)
    bound = 255 * np.abs(codes.astype(np.int64)).reshape(channels, -1).sum(axis=1)
    if np.max(bound + np.abs(bias_codes.astype(np.int64))) > arith.INT32_MAX:
        raise TteError(
            what="an accumulator could overflow 32 bits",
            where=op.origin or op.name,
            why="the sum of absolute weights of one output channel, plus its bias, is too large",
            hint="split the layer into groups, or reduce its input channels",
        )
    weight_name = builder.constant(f"{op.name}.weight", np.ascontiguousarray(codes), quant)
    bias_name = builder.constant(f"{op.name}.bias", bias_codes, bias_quant)
    return weight_name, bias_name, quant


def real_data(tensor: Tensor) -> Array:
    """Real values of a constant, float64."""
    data, quant = tensor.data, tensor.quant
    assert data is not None
    return data.astype(np.float64) if quant is None else quant.dequantize(data)


def exact(weight: Array) -> tuple[Array, float]:
    """int8 weights as floats in which their dot products with 9-bit numbers are exact, and the
    bound of those products."""
    bound = 256.0 * np.abs(weight.astype(np.int64)).reshape(weight.shape[0], -1).sum(axis=1).max()
    return as_real(weight, bound), bound


def merged(weight: Array, channels: Sequence[int], trained: Sequence[Array]) -> Array:
    """The weights with those of the input channels `channels` replaced, where they are trained."""
    if not channels:
        return weight
    whole = weight.copy()
    whole[..., list(channels)] = trained[0]
    return whole


# ---- gradient ops -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GradInputAttrs:
    """Inputs: grad_output, weight (where there is one), the trained weights of `channels` (where
    there are some), addend or "", mask or ""."""

    window: WindowAttrs
    shape: tuple[int, ...]  # of grad_input
    scale: GradScale
    channels: tuple[int, ...] = ()


def grad_epilogue(op: Op, acc: Array, addend: Array | None, mask: Array | None) -> list[Array]:
    """int8 gradients and the saturation count, from a gradient op's sums."""
    scale: GradScale = op.attrs.scale
    grad, saturations = arith.requantize_grad(
        np.rint(acc).astype(np.int64),
        scale.multipliers,
        addend,
        scale.addend_multipliers or None,
        mask,
        scale.pre_shift,
    )
    return [grad, np.asarray([saturations], np.int64)]


def grad_call(
    op: Op, kernel_params: object, data: Sequence[str], extra: tuple[Arg, ...] = ()
) -> KernelCall:
    """The call of a gradient kernel: params, data, tables, addend, mask, grad_input, ..."""
    addend, mask = op.inputs[-2:]
    scale: GradScale = op.attrs.scale
    return KernelCall(
        f"tte_{op.kind}",
        kernel_params,
        (
            *(TensorArg(name) for name in data),
            *extra,
            TableArg("multipliers", "int32_t", scale.multipliers),
            TensorArg(addend),
            TableArg("addend_multipliers", "int32_t", scale.addend_multipliers)
            if addend
            else TensorArg(""),
            TensorArg(mask),
            TensorArg(op.outputs[0]),
            SaturationsArg(),
        ),
    )


# ---- fused gradient and update ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UpdateAttrs:
    """Inputs: [x,] grad_output, step, value, residual; outputs: the two updated.

    `param_scale`: real size of one step of the value, per row; `rates`, known once the gradient
    scales are: 256 * s_D / param_scale^2, without learning rate and loss gradient.
    `input_scale`: s_x, with which a bias's param_scale is s_x s_w. `gathers`: what is updated is
    the velocity of the parameter.
    """

    layer: str
    param: str  # "weight" or "bias"
    window: WindowAttrs
    input_zero_point: int
    param_scale: tuple[float, ...]
    rates: tuple[arith.Factor, ...] = ()
    input_scale: float = 1.0
    gathers: bool = False

    def with_rates(self, grad_scale: float) -> UpdateAttrs:
        """The same with rates for a gradient whose scale is `grad_scale` times the loss
        gradient's maximum. Rows with a degenerate scale are never trained."""
        rates = arith.RESIDUAL_UNITS * grad_scale * self._inverse_squares()
        return replace(self, rates=tuple(arith.to_factor(float(rate)) for rate in rates))

    def largest_move(self, grad: Array) -> float:
        """Of a step of learning rate 1 down a real gradient, in quanta of the value."""
        rows = np.abs(grad).reshape(len(grad), -1).max(axis=1)
        return float((rows * self._inverse_squares()).max())

    def _inverse_squares(self) -> Array:
        scale = np.asarray(self.param_scale)
        weight_scale = scale / self.input_scale if self.param == "bias" else scale
        alive = weight_scale >= arith.DEAD_CHANNEL_SCALE
        return np.where(alive, 1 / np.where(alive, scale, 1.0) ** 2, 0.0)


def add_updates(
    op: Op, grad: str, backward: Backward, kind: str, window: WindowAttrs, channels: int
) -> None:
    """Adds the fused gradient-and-update ops of a layer's weight and bias."""
    builder = backward.builder
    x, weight, bias = op.inputs[:3]
    weight_quant, bias_quant = builder.tensors[weight].quant, builder.tensors[bias].quant
    x_quant = builder.tensors[x].quant
    assert weight_quant is not None and bias_quant is not None and x_quant is not None
    for param, name, quant in (("weight", weight, weight_quant), ("bias", bias, bias_quant)):
        tensor = builder.tensors[name]
        shape = tensor.type.shape
        residual = builder.tensor(
            f"{name}.residual", shape, "int8", Role.PARAMETER, data=np.zeros(shape, np.int8)
        )
        updated = [
            builder.tensor(
                f"{name}'", shape, tensor.type.dtype, Role.PARAMETER, quant=quant, stored_in=name
            ),
            builder.tensor(f"{residual}'", shape, "int8", Role.PARAMETER, stored_in=residual),
        ]
        attrs = UpdateAttrs(
            op.name,
            param,
            window,
            x_quant.zero_point,
            tuple(quant.scales(channels).tolist()),
            input_scale=x_quant.per_tensor_scale,
        )
        inputs = [grad, backward.step, name, residual]
        if param == "weight":
            builder.op(kind, f"{op.name}.grad_weight", [x, *inputs], updated, attrs)
        else:
            builder.op("grad_bias_int32", f"{op.name}.grad_bias", inputs, updated, attrs)


def weight_update_call(op: Op, window: params.Window, scratch: str) -> KernelCall:
    """The kernel of a convolution's update, with a scratch of this C type."""
    x, grad, step, weight, residual = op.inputs
    return KernelCall(
        f"tte_{op.kind}",
        params.Conv2dGradWeightParams(window=window, input_zero_point=op.attrs.input_zero_point),
        (
            TensorArg(x),
            TensorArg(grad),
            TensorArg(step),
            TableArg("rates", "tte_factor", op.attrs.rates),
            TensorArg(weight),
            TensorArg(residual),
            ScratchArg(scratch),
        ),
    )


def weight_update_reference(
    attrs: UpdateAttrs, total: Array, inputs: Sequence[Array]
) -> list[Array]:
    """Applies gradient sums (int64, first axis = rows) to value and residual."""
    step, value, residual = inputs
    delta = arith.update_step(total, arith.Factor(*map(int, step)), list(attrs.rates))
    low, high = arith.WEIGHT_FULL_MIN, arith.WEIGHT_FULL_MAX
    trained = np.asarray([rate.mantissa != 0 for rate in attrs.rates])
    if int(step[0]) == 0:
        trained[:] = False
    new_value, new_residual = arith.apply_update(value, residual, delta, low, high)
    keep = ~trained.reshape(-1, *[1] * (value.ndim - 1))
    return [
        np.where(keep, value, new_value).astype(np.int8),
        np.where(keep, residual, new_residual).astype(np.int8),
    ]


def contribute_grad_input(
    op: Op, kind: str, grad: str, shape: tuple[int, ...], window: WindowAttrs, backward: Backward
) -> None:
    """Registers a layer's still unwritten grad_input op as a share of dL/dx."""
    x, weight = op.inputs[:2]

    def emit(scale: GradScale, addend: str, mask: str, output: str) -> None:
        backward.builder.op(
            kind,
            f"{op.name}.grad_input",
            [grad, weight, addend, mask],
            [output],
            GradInputAttrs(window, shape, scale),
        )

    backward.contribute(x, Contribution((1.0,), emit=emit))
