/* SPDX-License-Identifier: Apache-2.0
 *
 * y[outer][j][inner] = x[outer][index[j]][inner], j < count: the channels of an activation that a
 * narrowed weight update has to keep. Single channels of NHWC have inner = 1, which is a byte to
 * be stored and no copy. Source: sparse tensor update, MCUNetV3 ("On-Device Training Under 256KB
 * Memory", NeurIPS 2022).
 */
#define tte_gather_channels_int8 tte_gather_channels_int8_portable
#include "../tte_gather_channels_int8.c"
#undef tte_gather_channels_int8

void tte_gather_channels_int8(const tte_channels_params *params, const int8_t *x,
                              const uint16_t *index, int8_t *y)
{
    const tte_channels_params p = *params;
    if (p.inner != 1) {
        tte_gather_channels_int8_portable(params, x, index, y);
        return;
    }
    for (uint32_t outer = 0; outer < p.outer; outer++, x += p.channels) {
        for (uint32_t j = 0; j < p.count; j++) {
            *y++ = x[index[j]];
        }
    }
}
