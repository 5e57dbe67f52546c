/* SPDX-License-Identifier: Apache-2.0
 *
 * y[outer][j][inner] = x[outer][index[j]][inner], j < count: the channels of an activation that a
 * narrowed weight update has to keep. Source: sparse tensor update, MCUNetV3 ("On-Device Training
 * Under 256KB Memory", NeurIPS 2022).
 */
#include <string.h>

#include "tte_kernels.h"

void tte_gather_channels_int8(const tte_channels_params *params, const int8_t *x,
                              const uint16_t *index, int8_t *y)
{
    const tte_channels_params p = *params;
    for (uint32_t outer = 0; outer < p.outer; outer++) {
        for (uint32_t j = 0; j < p.count; j++) {
            memcpy(y, x + index[j] * (size_t)p.inner, p.inner);
            y += p.inner;
        }
        x += p.channels * (size_t)p.inner;
    }
}
