/* SPDX-License-Identifier: Apache-2.0
 *
 * sums[ky][kx][i] = sum over output pixels of grad_output[oy][ox][o] * (x[iy][ix][i] - zero point)
 * 256 * weight[o] + residual[o] -= round(sums * step * rates[o]), for one output channel after
 * the other: no gradient tensor exists. x NHWC, weight and residual [out_c][kernel_h][kernel_w]
 * [in_c / groups]. A rate of 0 marks a channel that is never trained.
 * Source: docs/numerics.md, section 3; quantization-aware scaling is in the rates: MCUNetV3
 * ("On-Device Training Under 256KB Memory", NeurIPS 2022).
 */
#include "tte_kernels.h"
#include "tte_requant.h"
#include "tte_window.h"

static inline void multiply_add(int32_t *restrict sums, const int8_t *restrict x,
                                int16_t zero_point, int32_t factor, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        sums[i] += (x[i] - zero_point) * factor;
    }
}

/* The gradient of one output channel's weights; x starts at the channel's group. */
static void row_gradient(const tte_conv2d_grad_weight_params *params, const int8_t *x,
                         const int8_t *grad_output, int32_t *sums)
{
    const tte_window window = params->window;
    const int32_t group_in_c = window.in_c / window.groups;
    const int joined = window.dilation_w == 1 && window.groups == 1;

    memset(sums, 0,
           (size_t)(window.kernel_h * window.kernel_w) * (size_t)group_in_c * sizeof *sums);
    for (int32_t oy = 0; oy < window.out_h; oy++) {
        const int32_t top = oy * window.stride_h - window.pad_top;
        const tte_range rows = tte_inside(top, window.kernel_h, window.dilation_h, window.in_h);
        for (int32_t ox = 0; ox < window.out_w; ox++, grad_output += window.out_c) {
            if (*grad_output == 0) {
                continue;
            }
            const int32_t left = ox * window.stride_w - window.pad_left;
            const tte_range cols =
                tte_inside(left, window.kernel_w, window.dilation_w, window.in_w);
            const int32_t run = joined ? cols.end - cols.begin : 1;
            for (int32_t ky = rows.begin; ky < rows.end; ky++) {
                const int32_t row = (top + ky * window.dilation_h) * window.in_w + left;
                for (int32_t kx = cols.begin; kx < cols.end; kx += run) {
                    multiply_add(sums + (ky * window.kernel_w + kx) * group_in_c,
                                 x + (row + kx * window.dilation_w) * window.in_c,
                                 params->input_zero_point, *grad_output, run * group_in_c);
                }
            }
        }
    }
}

void tte_conv2d_grad_weight_int8(const tte_conv2d_grad_weight_params *params, const int8_t *x,
                                 const int8_t *grad_output, const tte_factor *step,
                                 const tte_factor *rates, int8_t *weight, int8_t *residual,
                                 int32_t *scratch)
{
    const tte_window *window = &params->window;
    const int32_t group_in_c = window->in_c / window->groups;
    const int32_t group_out_c = window->out_c / window->groups;
    const int32_t weight_elems = window->kernel_h * window->kernel_w * group_in_c;

    if (step->mantissa == 0) {
        return;
    }
    for (int32_t o = 0; o < window->out_c; o++) {
        if (rates[o].mantissa != 0) {
            row_gradient(params, x + o / group_out_c * group_in_c, grad_output + o, scratch);
            for (int32_t i = 0; i < weight_elems; i++) {
                tte_update_weight(weight + i, residual + i, scratch[i], *step, rates[o]);
            }
        }
        weight += weight_elems;
        residual += weight_elems;
    }
}
