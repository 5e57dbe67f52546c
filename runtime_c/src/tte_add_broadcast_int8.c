/* SPDX-License-Identifier: Apache-2.0
 *
 * y = clamp(((a - za) * a_multiplier + (b - zb) * b_multiplier + 2^(shift-1) >> shift) + zero
 * point, act_min, act_max) as tte_add_int8(), with operands that are repeated along axes.
 * Source: docs/numerics.md, section 1.
 */
#include "tte_kernels.h"
#include "tte_requant.h"

void tte_add_broadcast_int8(const tte_add_broadcast_params *params, const int8_t *a,
                            const int8_t *b, int8_t *y, uint8_t *mask)
{
    const tte_broadcast s = params->broadcast;
    const tte_add_params p = params->add;
    const int32_t half = (int32_t)1 << (p.shift - 1);
    uint32_t index = 0;
    if (mask != NULL) {
        tte_mask_clear(mask, 0, p.elems);
    }
    for (uint32_t i = 0; i < s.outer; i++) {
        for (uint32_t j = 0; j < s.middle; j++) {
            const int8_t *a_row = a + i * s.a_outer + j * s.a_middle;
            const int8_t *b_row = b + i * s.b_outer + j * s.b_middle;
            for (uint32_t k = 0; k < s.inner; k++, index++) {
                const int32_t sum = (a_row[k * s.a_inner] - p.a_zero_point) * p.a_multiplier +
                                    (b_row[k * s.b_inner] - p.b_zero_point) * p.b_multiplier;
                const int32_t value = ((sum + half) >> p.shift) + p.output_zero_point;
                if (mask != NULL && p.act_min <= value && value <= p.act_max) {
                    tte_mask_set(mask, index);
                }
                y[index] = (int8_t)tte_clamp(value, p.act_min, p.act_max);
            }
        }
    }
}
