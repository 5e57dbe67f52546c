/* SPDX-License-Identifier: Apache-2.0
 *
 * sums[ky][kx][i] = sum over the pixels of x of grad_output[iy][ix][o] * (x[oy][ox][i] - zero
 * point), iy = oy * stride - pad + ky * dilation, then 256 * weight[o] + residual[o] -=
 * round(sums * step * rates[o]), for one output channel after the other. weight and residual
 * [in_c][kernel_h][kernel_w][out_c / groups], in_c being the channels of grad_output. A rate of 0
 * marks a channel that is never trained. Source: docs/numerics.md, section 3.
 */
#include "tte_kernels.h"
#include "tte_requant.h"
#include "tte_window.h"

static inline void multiply_add(int32_t *restrict sums, const int8_t *restrict x,
                                int32_t zero_point, int32_t factor, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        sums[i] += (x[i] - zero_point) * factor;
    }
}

/* The gradient of one output channel's weights; x starts at the channel's group, grad_output at
 * the channel. */
static void row_gradient(const tte_conv2d_grad_weight_params *params, const int8_t *x,
                         const int8_t *grad_output, int32_t *sums)
{
    const tte_window window = params->window;
    const int32_t group_x = window.out_c / window.groups;

    memset(sums, 0, (size_t)(window.kernel_h * window.kernel_w) * (size_t)group_x * sizeof *sums);
    for (int32_t oy = 0; oy < window.out_h; oy++) {
        const int32_t top = oy * window.stride_h - window.pad_top;
        const tte_range rows = tte_inside(top, window.kernel_h, window.dilation_h, window.in_h);
        for (int32_t ox = 0; ox < window.out_w; ox++, x += window.out_c) {
            const int32_t left = ox * window.stride_w - window.pad_left;
            const tte_range cols =
                tte_inside(left, window.kernel_w, window.dilation_w, window.in_w);
            for (int32_t ky = rows.begin; ky < rows.end; ky++) {
                const int32_t row = (top + ky * window.dilation_h) * window.in_w + left;
                for (int32_t kx = cols.begin; kx < cols.end; kx++) {
                    const int32_t grad =
                        grad_output[(row + kx * window.dilation_w) * window.in_c];
                    if (grad != 0) {
                        multiply_add(sums + (ky * window.kernel_w + kx) * group_x, x,
                                     params->input_zero_point, grad, group_x);
                    }
                }
            }
        }
    }
}

void tte_conv_transpose2d_grad_weight_int8(const tte_conv2d_grad_weight_params *params,
                                           const int8_t *x, const int8_t *grad_output,
                                           const tte_factor *step, const tte_factor *rates,
                                           int8_t *weight, int8_t *residual, int32_t *scratch)
{
    const tte_window *window = &params->window;
    const int32_t group_x = window->out_c / window->groups;
    const int32_t group_y = window->in_c / window->groups;
    const int32_t weight_elems = window->kernel_h * window->kernel_w * group_x;

    if (step->mantissa == 0) {
        return;
    }
    for (int32_t o = 0; o < window->in_c; o++) {
        if (rates[o].mantissa != 0) {
            row_gradient(params, x + o / group_y * group_x, grad_output + o, scratch);
            for (int32_t i = 0; i < weight_elems; i++) {
                tte_update_weight(weight + i, residual + i, scratch[i], *step, rates[o]);
            }
        }
        weight += weight_elems;
        residual += weight_elems;
    }
}
