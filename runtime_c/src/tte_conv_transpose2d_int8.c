/* SPDX-License-Identifier: Apache-2.0
 *
 * y[iy][ix][o] = activation(bias[o] + sum over taps and inputs of weight[o][ky][kx][i] *
 * (x[oy][ox][i] - zero point)), oy * stride = iy + pad - ky * dilation: the transpose of a
 * convolution from y's map to x's, gathered by output pixel. weight
 * [in_c][kernel_h][kernel_w][out_c / groups], in_c being the channels of y. One rounding, half up.
 * Source: docs/numerics.md, section 1.
 */
#include "tte_kernels.h"
#include "tte_requant.h"
#include "tte_window.h"

static inline int32_t dot(const int8_t *x, const int8_t *weight, int32_t count,
                          int32_t zero_point)
{
    int32_t sum = 0;
    for (int32_t i = 0; i < count; i++) {
        sum += (x[i] - zero_point) * weight[i];
    }
    return sum;
}

/* What one pixel of x gives to the output pixel whose tap it is; weight starts at the tap. */
static void add_tap(const tte_window *window, const int8_t *x, int32_t zero_point,
                    const int8_t *weight, int32_t *sums)
{
    const int32_t group_y = window->in_c / window->groups;
    const int32_t group_x = window->out_c / window->groups;
    const int32_t weight_elems = window->kernel_h * window->kernel_w * group_x;

    for (int32_t group = 0; group < window->groups; group++, x += group_x) {
        for (int32_t o = 0; o < group_y; o++, weight += weight_elems) {
            *sums++ += dot(x, weight, group_x, zero_point);
        }
    }
}

void tte_conv_transpose2d_int8(const tte_conv2d_params *params, const int8_t *x,
                               const int8_t *weight, const int32_t *bias,
                               const int32_t *multipliers, int8_t *y, uint8_t *mask,
                               int32_t *scratch)
{
    const tte_window window = params->window;
    const int32_t group_x = window.out_c / window.groups;
    uint32_t index = 0;

    if (mask != NULL) {
        tte_mask_clear(mask, 0, (uint32_t)window.in_h * window.in_w * window.in_c);
    }
    for (int32_t iy = 0; iy < window.in_h; iy++) {
        for (int32_t ix = 0; ix < window.in_w; ix++) {
            memcpy(scratch, bias, window.in_c * sizeof *scratch);
            for (int32_t ky = 0; ky < window.kernel_h; ky++) {
                const int32_t oy = tte_output_at(iy + window.pad_top - ky * window.dilation_h,
                                                 window.stride_h, window.out_h);
                for (int32_t kx = 0; kx < window.kernel_w && oy >= 0; kx++) {
                    const int32_t ox =
                        tte_output_at(ix + window.pad_left - kx * window.dilation_w,
                                      window.stride_w, window.out_w);
                    if (ox >= 0) {
                        add_tap(&window, x + (oy * window.out_w + ox) * window.out_c,
                                params->requant.input_zero_point,
                                weight + (ky * window.kernel_w + kx) * group_x, scratch);
                    }
                }
            }
            for (int32_t o = 0; o < window.in_c; o++, index++) {
                y[index] =
                    tte_activation(scratch[o], multipliers[o], &params->requant, mask, index);
            }
        }
    }
}
