/* SPDX-License-Identifier: Apache-2.0
 *
 * y[i][j][k][l][m] = x[i * stride_0 + j * stride_1 + ... + m * stride_4], y without gaps: the
 * axes of x in another order. Activations and gradients alike; nothing is rounded.
 */
#include <string.h>

#include "tte_kernels.h"

/* The two fastest axes of y; returns where the next ones begin. */
static int8_t *move_plane(const tte_transpose_params *p, const int8_t *x, int8_t *y)
{
    for (uint32_t l = 0; l < p->size_3; l++) {
        const int8_t *from = x + l * p->stride_3;
        if (p->stride_4 == 1) {
            memcpy(y, from, p->size_4);
            y += p->size_4;
            continue;
        }
        for (uint32_t m = 0; m < p->size_4; m++, from += p->stride_4) {
            *y++ = *from;
        }
    }
    return y;
}

void tte_transpose_int8(const tte_transpose_params *params, const int8_t *x, int8_t *y)
{
    const tte_transpose_params p = *params;
    for (uint32_t i = 0; i < p.size_0; i++) {
        for (uint32_t j = 0; j < p.size_1; j++) {
            for (uint32_t k = 0; k < p.size_2; k++) {
                y = move_plane(&p, x + i * p.stride_0 + j * p.stride_1 + k * p.stride_2, y);
            }
        }
    }
}
