/* SPDX-License-Identifier: Apache-2.0
 *
 * y[oy][ox][c] = max of x over the window, clipped to the map; index[oy][ox][c] = ky * kernel_w + kx
 * of the first maximum, which is all that the gradient needs to know of x. x, y NHWC of one
 * quantisation.
 */
#include <string.h>

#include "tte_kernels.h"
#include "tte_window.h"

/* One more tap of a pixel's windows. */
static void compare(const int8_t *x, uint8_t tap, int32_t channels, int8_t *y, uint8_t *index)
{
    for (int32_t channel = 0; channel < channels; channel++) {
        if (x[channel] > y[channel]) {
            y[channel] = x[channel];
            if (index != NULL) {
                index[channel] = tap;
            }
        }
    }
}

void tte_max_pool2d_int8(const tte_max_pool2d_params *params, const int8_t *x, int8_t *y,
                         uint8_t *index)
{
    const tte_window window = params->window;
    const int32_t channels = window.out_c;

    for (int32_t oy = 0; oy < window.out_h; oy++) {
        const int32_t top = oy * window.stride_h - window.pad_top;
        const tte_range rows = tte_inside(top, window.kernel_h, window.dilation_h, window.in_h);
        for (int32_t ox = 0; ox < window.out_w; ox++) {
            const int32_t left = ox * window.stride_w - window.pad_left;
            const tte_range cols =
                tte_inside(left, window.kernel_w, window.dilation_w, window.in_w);
            int first = 1;
            for (int32_t ky = rows.begin; ky < rows.end; ky++) {
                const int32_t row = (top + ky * window.dilation_h) * window.in_w;
                for (int32_t kx = cols.begin; kx < cols.end; kx++) {
                    const int8_t *from =
                        x + (row + left + kx * window.dilation_w) * window.in_c;
                    const uint8_t tap = (uint8_t)(ky * window.kernel_w + kx);
                    if (first) {
                        memcpy(y, from, (size_t)channels);
                        if (index != NULL) {
                            memset(index, tap, (size_t)channels);
                        }
                        first = 0;
                    } else {
                        compare(from, tap, channels, y, index);
                    }
                }
            }
            y += channels;
            index = index == NULL ? NULL : index + channels;
        }
    }
}
