/* SPDX-License-Identifier: Apache-2.0
 *
 * y[oy][ox][c] = x[oy / factor_h][ox / factor_w][c]: every pixel becomes a block. NHWC, one
 * quantisation.
 */
#include <string.h>

#include "tte_kernels.h"

void tte_resize_nearest2d_int8(const tte_resize_nearest2d_params *params, const int8_t *x,
                               int8_t *y)
{
    const tte_resize_nearest2d_params p = *params;
    const size_t row_bytes = (size_t)p.in_w * p.factor_w * p.channels;

    for (uint32_t iy = 0; iy < p.in_h; iy++) {
        const int8_t *first = y;
        for (uint32_t ix = 0; ix < p.in_w; ix++, x += p.channels) {
            for (uint32_t i = 0; i < p.factor_w; i++, y += p.channels) {
                memcpy(y, x, p.channels);
            }
        }
        for (uint32_t i = 1; i < p.factor_h; i++, y += row_bytes) {
            memcpy(y, first, row_bytes);
        }
    }
}
