/* SPDX-License-Identifier: Apache-2.0
 *
 * y = clamp(((a - za) * a_multiplier + (b - zb) * b_multiplier + 2^(shift-1) >> shift) + zero
 * point, act_min, act_max): both inputs rescaled to the output's scale, one rounding, half up.
 * |sum| < 2 * 255 * 2^21 + 2^30 < 2^31. Source: docs/numerics.md, section 1.
 */
#include "tte_kernels.h"
#include "tte_requant.h"

void tte_add_int8(const tte_add_params *params, const int8_t *a, const int8_t *b, int8_t *y,
                  uint8_t *mask)
{
    const tte_add_params p = *params;
    const int32_t half = (int32_t)1 << (p.shift - 1);
    if (mask != NULL) {
        tte_mask_clear(mask, 0, p.elems);
    }
    for (uint32_t i = 0; i < p.elems; i++) {
        const int32_t sum = (a[i] - p.a_zero_point) * p.a_multiplier +
                            (b[i] - p.b_zero_point) * p.b_multiplier;
        const int32_t value = ((sum + half) >> p.shift) + p.output_zero_point;
        if (mask != NULL && p.act_min <= value && value <= p.act_max) {
            tte_mask_set(mask, i);
        }
        y[i] = (int8_t)tte_clamp(value, p.act_min, p.act_max);
    }
}
