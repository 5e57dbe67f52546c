/* SPDX-License-Identifier: Apache-2.0
 *
 * y = base, then y[outer][index[j]][inner] = values[outer][j][inner], j < count: the whole weight
 * tensor, most of it in flash (base), the trained channels in SRAM (values). 1x1 kernels have
 * inner = 1, which is a byte to be stored and no copy.
 * Source: sparse tensor update, MCUNetV3 ("On-Device Training Under 256KB Memory", NeurIPS 2022).
 */
#define tte_scatter_channels_int8 tte_scatter_channels_int8_portable
#include "../tte_scatter_channels_int8.c"
#undef tte_scatter_channels_int8

void tte_scatter_channels_int8(const tte_channels_params *params, const int8_t *base,
                               const int8_t *values, const uint16_t *index, int8_t *y)
{
    const tte_channels_params p = *params;
    if (p.inner != 1) {
        tte_scatter_channels_int8_portable(params, base, values, index, y);
        return;
    }
    memcpy(y, base, p.outer * p.channels);
    for (uint32_t outer = 0; outer < p.outer; outer++, y += p.channels) {
        for (uint32_t j = 0; j < p.count; j++) {
            y[index[j]] = *values++;
        }
    }
}
