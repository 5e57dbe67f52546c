/* SPDX-License-Identifier: Apache-2.0
 *
 * y[i][j][k][l][m] = x[offset + i * stride_0 + j * stride_1 + ... + m * stride_4], y without gaps:
 * axes in another order, every second row, a part of the channels. Activations and gradients
 * alike; nothing is rounded.
 */
#include <string.h>

#include "tte_kernels.h"

/* The two fastest axes of y; returns where the next ones begin. */
static int8_t *copy_plane(const tte_strided_copy_params *p, const int8_t *x, int8_t *y)
{
    for (uint32_t l = 0; l < p->size_3; l++, x += p->stride_3) {
        if (p->stride_4 == 1) {
            memcpy(y, x, p->size_4);
            y += p->size_4;
            continue;
        }
        const int8_t *from = x;
        for (uint32_t m = 0; m < p->size_4; m++, from += p->stride_4) {
            *y++ = *from;
        }
    }
    return y;
}

void tte_strided_copy_int8(const tte_strided_copy_params *params, const int8_t *x, int8_t *y)
{
    const tte_strided_copy_params p = *params;
    for (uint32_t i = 0; i < p.size_0; i++) {
        for (uint32_t j = 0; j < p.size_1; j++) {
            for (uint32_t k = 0; k < p.size_2; k++) {
                const int32_t from = p.offset + (int32_t)i * p.stride_0 +
                                     (int32_t)j * p.stride_1 + (int32_t)k * p.stride_2;
                y = copy_plane(&p, x + from, y);
            }
        }
    }
}
