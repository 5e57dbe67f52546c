/* SPDX-License-Identifier: Apache-2.0
 *
 * Pixel (iy, ix) of x becomes a block of rows[iy] by cols[ix] pixels of y, factor_h and factor_w
 * where there is no table. NHWC, one quantisation.
 */
#include <string.h>

#include "tte_kernels.h"

void tte_resize_nearest2d_int8(const tte_resize_nearest2d_params *params, const int8_t *x,
                               const uint16_t *rows, const uint16_t *cols, int8_t *y)
{
    const tte_resize_nearest2d_params p = *params;
    for (uint32_t iy = 0; iy < p.in_h; iy++) {
        const uint32_t copies = rows ? rows[iy] : p.factor_h;
        const int8_t *first = y;

        if (copies == 0) {
            x += (size_t)p.in_w * p.channels;
            continue;
        }
        for (uint32_t ix = 0; ix < p.in_w; ix++, x += p.channels) {
            const uint32_t width = cols ? cols[ix] : p.factor_w;
            for (uint32_t i = 0; i < width; i++, y += p.channels) {
                memcpy(y, x, p.channels);
            }
        }
        const size_t row_bytes = (size_t)(y - first);
        for (uint32_t i = 1; i < copies; i++, y += row_bytes) {
            memcpy(y, first, row_bytes);
        }
    }
}
