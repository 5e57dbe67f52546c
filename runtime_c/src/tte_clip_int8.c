/* SPDX-License-Identifier: Apache-2.0
 *
 * y = clamp(x, act_min, act_max), both in the same quantisation: an activation that could not be
 * folded into its producer. The mask bit is 1 where nothing was clamped.
 */
#include "tte_kernels.h"
#include "tte_requant.h"

void tte_clip_int8(const tte_clip_params *params, const int8_t *x, int8_t *y, uint8_t *mask)
{
    const tte_clip_params p = *params;
    if (mask != NULL) {
        tte_mask_clear(mask, 0, p.elems);
    }
    for (uint32_t i = 0; i < p.elems; i++) {
        const int8_t value = x[i];
        if (mask != NULL && p.act_min <= value && value <= p.act_max) {
            tte_mask_set(mask, i);
        }
        y[i] = (int8_t)tte_clamp(value, p.act_min, p.act_max);
    }
}
