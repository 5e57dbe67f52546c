/* SPDX-License-Identifier: Apache-2.0
 *
 * y = base, then y[outer][index[j]][inner] = values[outer][j][inner], j < count: the whole weight
 * tensor, most of it in flash (base), the trained channels in SRAM (values). Source: sparse tensor
 * update, MCUNetV3 ("On-Device Training Under 256KB Memory", NeurIPS 2022).
 */
#include <string.h>

#include "tte_kernels.h"

void tte_scatter_channels_int8(const tte_channels_params *params, const int8_t *base,
                               const int8_t *values, const uint16_t *index, int8_t *y)
{
    const tte_channels_params p = *params;
    const size_t outer_elems = p.channels * (size_t)p.inner;

    memcpy(y, base, p.outer * outer_elems);
    for (uint32_t outer = 0; outer < p.outer; outer++) {
        for (uint32_t j = 0; j < p.count; j++) {
            memcpy(y + index[j] * (size_t)p.inner, values, p.inner);
            values += p.inner;
        }
        y += outer_elems;
    }
}
