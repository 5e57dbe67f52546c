/* SPDX-License-Identifier: Apache-2.0
 *
 * y[oy][ox][c] = activation(sum over the window of (x - zero point)), the multiplier being
 * scale_x / (scale_y * count). The window is clipped to the map; `count` is what is left of it, or
 * the whole window with count_include_pad. x, y NHWC. One rounding, half up (not half to even).
 * Source: docs/numerics.md, section 1.
 */
#include "tte_kernels.h"
#include "tte_requant.h"
#include "tte_window.h"

void tte_avg_pool2d_int8(const tte_avg_pool2d_params *params, const int8_t *x,
                         const int32_t *multipliers, int8_t *y)
{
    const tte_window window = params->window;
    const tte_requant requant = params->requant;
    uint32_t index = 0;

    for (int32_t oy = 0; oy < window.out_h; oy++) {
        const int32_t top = oy * window.stride_h - window.pad_top;
        const tte_range rows = tte_inside(top, window.kernel_h, window.dilation_h, window.in_h);
        for (int32_t ox = 0; ox < window.out_w; ox++) {
            const int32_t left = ox * window.stride_w - window.pad_left;
            const tte_range cols =
                tte_inside(left, window.kernel_w, window.dilation_w, window.in_w);
            const int32_t count = (rows.end - rows.begin) * (cols.end - cols.begin);
            const int32_t multiplier = multipliers[params->count_include_pad ? 0 : count - 1];
            for (int32_t channel = 0; channel < window.out_c; channel++, index++) {
                int32_t acc = 0;
                for (int32_t ky = rows.begin; ky < rows.end; ky++) {
                    const int32_t iy = top + ky * window.dilation_h;
                    for (int32_t kx = cols.begin; kx < cols.end; kx++) {
                        const int32_t ix = left + kx * window.dilation_w;
                        acc += x[(iy * window.in_w + ix) * window.in_c + channel] -
                               requant.input_zero_point;
                    }
                }
                y[index] = tte_activation(acc, multiplier, &requant, NULL, index);
            }
        }
    }
}
