/* SPDX-License-Identifier: Apache-2.0
 *
 * grad_input[iy][ix][c] = requantise(sum over taps of weight[c][ky][kx] * grad_output[oy][ox][c] +
 * addend), 0 where the mask bit is 0. Each channel's outputs are scattered over a plane of int32
 * sums, which is complete before anything is written: grad_input may overwrite grad_output.
 * weight [channel][kernel_h][kernel_w]. A single tap needs no sums. One rounding, half up.
 * Source: docs/numerics.md, section 2.
 */
#include "tte_kernels.h"
#include "tte_requant.h"
#include "tte_window.h"

/* sums[in_h][in_w] = the transposed convolution of one channel. */
static void scatter_channel(const tte_window *window, const int8_t *grad_output,
                            const int8_t *weight, int32_t *sums)
{
    memset(sums, 0, (size_t)window->in_h * window->in_w * sizeof *sums);
    for (int32_t oy = 0; oy < window->out_h; oy++) {
        const int32_t top = oy * window->stride_h - window->pad_top;
        const tte_range rows =
            tte_inside(top, window->kernel_h, window->dilation_h, window->in_h);
        for (int32_t ox = 0; ox < window->out_w; ox++) {
            const int32_t grad = grad_output[(oy * window->out_w + ox) * window->out_c];
            if (grad == 0) {
                continue;
            }
            const int32_t left = ox * window->stride_w - window->pad_left;
            const tte_range cols =
                tte_inside(left, window->kernel_w, window->dilation_w, window->in_w);
            for (int32_t ky = rows.begin; ky < rows.end; ky++) {
                const int32_t row = (top + ky * window->dilation_h) * window->in_w + left;
                for (int32_t kx = cols.begin; kx < cols.end; kx++) {
                    sums[row + kx * window->dilation_w] +=
                        weight[ky * window->kernel_w + kx] * grad;
                }
            }
        }
    }
}

void tte_depthwise_conv2d_grad_input_int8(const tte_conv2d_grad_input_params *params,
                                          const int8_t *grad_output, const int8_t *weight,
                                          const int32_t *multipliers, const int8_t *addend,
                                          const int32_t *addend_multipliers, const uint8_t *mask,
                                          int8_t *grad_input, uint32_t *saturations,
                                          int32_t *scratch)
{
    const tte_window window = params->window;
    const int32_t positions = window.in_h * window.in_w;

    if (tte_is_pointwise(&window)) {
        for (uint32_t index = 0; index < (uint32_t)positions * window.in_c;) {
            for (uint32_t channel = 0; channel < window.in_c; channel++, index++) {
                grad_input[index] = tte_grad_value(
                    weight[channel] * grad_output[index], multipliers[channel], addend,
                    addend_multipliers, channel, mask, index, params->pre_shift, saturations);
            }
        }
        return;
    }
    for (uint32_t channel = 0; channel < window.in_c; channel++) {
        uint32_t index = channel;
        scatter_channel(&window, grad_output + channel, weight, scratch);
        for (int32_t position = 0; position < positions; position++, index += window.in_c) {
            grad_input[index] = tte_grad_value(
                scratch[position], multipliers[channel], addend, addend_multipliers, channel,
                mask, index, params->pre_shift, saturations);
        }
        weight += window.kernel_h * window.kernel_w;
    }
}
