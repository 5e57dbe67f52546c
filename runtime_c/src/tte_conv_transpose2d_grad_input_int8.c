/* SPDX-License-Identifier: Apache-2.0
 *
 * grad_input[oy][ox][i] = requantise(sum over taps and o of weight[o][ky][kx][i] *
 * grad_output[iy][ix][o] + addend), 0 where the mask bit is 0; iy = oy * stride - pad + ky *
 * dilation: the convolution that the layer is the transpose of, grad_output being its input. One
 * row of int32 sums is all it needs. weight [in_c][kernel_h][kernel_w][out_c / groups], in_c being
 * the channels of grad_output. One rounding, half up. Source: docs/numerics.md, section 2.
 */
#include "tte_kernels.h"
#include "tte_requant.h"
#include "tte_window.h"

static inline void multiply_add(int32_t *restrict sums, const int8_t *restrict weight,
                                int32_t factor, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        sums[i] += weight[i] * factor;
    }
}

/* What one pixel of grad_output gives to the input pixel it was a tap of. */
static void add_tap(const tte_window *window, const int8_t *grad_output, const int8_t *weight,
                    int32_t *sums)
{
    const int32_t group_y = window->in_c / window->groups;
    const int32_t group_x = window->out_c / window->groups;
    const int32_t weight_elems = window->kernel_h * window->kernel_w * group_x;

    for (int32_t group = 0; group < window->groups; group++, sums += group_x) {
        for (int32_t o = 0; o < group_y; o++, weight += weight_elems) {
            if (*grad_output != 0) {
                multiply_add(sums, weight, *grad_output, group_x);
            }
            grad_output++;
        }
    }
}

void tte_conv_transpose2d_grad_input_int8(const tte_conv2d_grad_input_params *params,
                                          const int8_t *grad_output, const int8_t *weight,
                                          const int32_t *multipliers, const int8_t *addend,
                                          const int32_t *addend_multipliers, const uint8_t *mask,
                                          int8_t *grad_input, uint32_t *saturations,
                                          int32_t *scratch)
{
    const tte_window window = params->window;
    const int32_t group_x = window.out_c / window.groups;
    uint32_t index = 0;

    for (int32_t oy = 0; oy < window.out_h; oy++) {
        const int32_t top = oy * window.stride_h - window.pad_top;
        const tte_range rows = tte_inside(top, window.kernel_h, window.dilation_h, window.in_h);
        for (int32_t ox = 0; ox < window.out_w; ox++) {
            const int32_t left = ox * window.stride_w - window.pad_left;
            const tte_range cols =
                tte_inside(left, window.kernel_w, window.dilation_w, window.in_w);
            memset(scratch, 0, window.out_c * sizeof *scratch);
            for (int32_t ky = rows.begin; ky < rows.end; ky++) {
                const int32_t row = (top + ky * window.dilation_h) * window.in_w + left;
                for (int32_t kx = cols.begin; kx < cols.end; kx++) {
                    add_tap(&window,
                            grad_output + (row + kx * window.dilation_w) * window.in_c,
                            weight + (ky * window.kernel_w + kx) * group_x, scratch);
                }
            }
            for (uint32_t channel = 0; channel < window.out_c; channel++, index++) {
                grad_input[index] = tte_grad_value(
                    scratch[channel], multipliers[channel], addend, addend_multipliers, channel,
                    mask, index, params->pre_shift, saturations);
            }
        }
    }
}
