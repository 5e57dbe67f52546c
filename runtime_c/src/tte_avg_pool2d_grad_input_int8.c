/* SPDX-License-Identifier: Apache-2.0
 *
 * grad_input[iy][ix][c] = requantise(sum over the windows that cover (iy, ix) of
 * grad_output[oy][ox][c] * count weight + addend), 0 where the mask bit is 0. The count weight is
 * 1 with count_include_pad (the multiplier holds 1 / window), else it stands for 1 / elements
 * under the clipped window. NHWC. One rounding, half up. Source: docs/numerics.md, section 2.
 */
#include "tte_kernels.h"
#include "tte_requant.h"
#include "tte_window.h"

/* Input elements under output o's window, along one axis. */
static int32_t elements_under(int32_t o, int32_t stride, int32_t pad, int32_t kernel,
                              int32_t dilation, int32_t size)
{
    const tte_range taps = tte_inside(o * stride - pad, kernel, dilation, size);
    return taps.end - taps.begin;
}

static int32_t count_weight(const tte_window *window, const int32_t *count_weights, int32_t oy,
                            int32_t ox)
{
    const int32_t rows = elements_under(oy, window->stride_h, window->pad_top, window->kernel_h,
                                        window->dilation_h, window->in_h);
    const int32_t cols = elements_under(ox, window->stride_w, window->pad_left, window->kernel_w,
                                        window->dilation_w, window->in_w);
    return count_weights[rows * cols - 1];
}

void tte_avg_pool2d_grad_input_int8(const tte_avg_pool2d_grad_input_params *params,
                                    const int8_t *grad_output, const int32_t *count_weights,
                                    const int32_t *multipliers, const int8_t *addend,
                                    const int32_t *addend_multipliers, const uint8_t *mask,
                                    int8_t *grad_input, uint32_t *saturations)
{
    const tte_window window = params->window;
    uint32_t index = 0;

    for (int32_t iy = 0; iy < window.in_h; iy++) {
        for (int32_t ix = 0; ix < window.in_w; ix++) {
            for (uint32_t channel = 0; channel < window.in_c; channel++, index++) {
                int32_t acc = 0;
                for (int32_t ky = 0; ky < window.kernel_h; ky++) {
                    const int32_t oy = tte_output_at(
                        iy + window.pad_top - ky * window.dilation_h, window.stride_h,
                        window.out_h);
                    for (int32_t kx = 0; kx < window.kernel_w && oy >= 0; kx++) {
                        const int32_t ox = tte_output_at(
                            ix + window.pad_left - kx * window.dilation_w, window.stride_w,
                            window.out_w);
                        if (ox >= 0) {
                            const int32_t output = (oy * window.out_w + ox) * window.out_c;
                            acc += grad_output[output + (int32_t)channel] *
                                   (params->count_include_pad
                                        ? 1
                                        : count_weight(&window, count_weights, oy, ox));
                        }
                    }
                }
                grad_input[index] = tte_grad_value(acc, multipliers[channel], addend,
                                                   addend_multipliers, channel, mask, index,
                                                   params->pre_shift, saturations);
            }
        }
    }
}
