/* SPDX-License-Identifier: Apache-2.0
 *
 * sum = sum over output pixels of grad_output[oy][ox][c] * (x[iy][ix][c] - zero point), for one
 * tap after the other; 256 * weight + residual -= round(sum * step * rates[c]). x NHWC, weight
 * and residual [channel][kernel_h][kernel_w]. A rate of 0 marks a channel that is never trained.
 * Source: docs/numerics.md, section 3; quantization-aware scaling is in the rates: MCUNetV3
 * ("On-Device Training Under 256KB Memory", NeurIPS 2022).
 */
#include "tte_kernels.h"
#include "tte_requant.h"
#include "tte_window.h"

/* The gradient of the weight at tap (ky, kx); x and grad_output start at the channel. */
static int32_t tap_gradient(const tte_conv2d_grad_weight_params *params, const int8_t *x,
                            const int8_t *grad_output, int32_t ky, int32_t kx)
{
    const tte_window window = params->window;
    const int32_t zero_point = params->input_zero_point;
    const int32_t top = ky * window.dilation_h - window.pad_top;
    const int32_t left = kx * window.dilation_w - window.pad_left;
    const tte_range rows = tte_inside(top, window.out_h, window.stride_h, window.in_h);
    const tte_range cols = tte_inside(left, window.out_w, window.stride_w, window.in_w);
    int32_t sum = 0;

    for (int32_t oy = rows.begin; oy < rows.end; oy++) {
        const int32_t in_row = (top + oy * window.stride_h) * window.in_w + left;
        const int32_t out_row = oy * window.out_w;
        for (int32_t ox = cols.begin; ox < cols.end; ox++) {
            sum += grad_output[(out_row + ox) * window.out_c] *
                   (x[(in_row + ox * window.stride_w) * window.in_c] - zero_point);
        }
    }
    return sum;
}

void tte_depthwise_conv2d_grad_weight_int8(const tte_conv2d_grad_weight_params *params,
                                           const int8_t *x, const int8_t *grad_output,
                                           const tte_factor *step, const tte_factor *rates,
                                           int8_t *weight, int8_t *residual, int16_t *scratch)
{
    const tte_window *window = &params->window;
    (void)scratch;
    if (step->mantissa == 0) {
        return;
    }
    for (int32_t channel = 0; channel < window->out_c; channel++) {
        for (int32_t ky = 0; ky < window->kernel_h; ky++) {
            for (int32_t kx = 0; kx < window->kernel_w; kx++, weight++, residual++) {
                if (rates[channel].mantissa != 0) {
                    const int32_t sum =
                        tap_gradient(params, x + channel, grad_output + channel, ky, kx);
                    tte_update_weight(weight, residual, sum, *step, rates[channel]);
                }
            }
        }
    }
}
