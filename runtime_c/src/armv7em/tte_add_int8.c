/* SPDX-License-Identifier: Apache-2.0
 *
 * y = clamp(((a - za) * a_multiplier + (b - zb) * b_multiplier + 2^(shift-1) >> shift) + zero
 * point, act_min, act_max): both inputs rescaled to the output's scale, one rounding, half up. The
 * zero points and the half are one constant; a byte of the mask is eight elements.
 * |sum| < 2 * 255 * 2^21 + 2^30 < 2^31. Source: docs/numerics.md, section 1.
 */
#include "tte_kernels.h"
#include "tte_dsp.h"

static inline int32_t rescale(const tte_add_params *p, int32_t constant, int32_t a, int32_t b)
{
    /* The sum of all fits; what is between may wrap. */
    const uint32_t sum = (uint32_t)constant + (uint32_t)(a * p->a_multiplier) +
                         (uint32_t)(b * p->b_multiplier);
    return ((int32_t)sum >> p->shift) + p->output_zero_point;
}

void tte_add_int8(const tte_add_params *params, const int8_t *a, const int8_t *b, int8_t *y,
                  uint8_t *mask)
{
    const tte_add_params p = *params;
    const int full = p.act_min == -128 && p.act_max == 127;
    const int32_t constant = ((int32_t)1 << (p.shift - 1)) - p.a_zero_point * p.a_multiplier -
                             p.b_zero_point * p.b_multiplier;
    uint32_t i = 0;

    if (full && mask == NULL) {
        for (; i + 4 <= p.elems; i += 4) {
            for (uint32_t j = 0; j < 4; j++) {
                y[i + j] = (int8_t)tte_ssat8(rescale(&p, constant, a[i + j], b[i + j]));
            }
        }
    } else if (full) {
        for (; i + 8 <= p.elems; i += 8) {
            uint32_t bits = 0;
            for (uint32_t j = 0; j < 8; j++) {
                const int32_t value = rescale(&p, constant, a[i + j], b[i + j]);
                const int32_t clamped = tte_ssat8(value);
                y[i + j] = (int8_t)clamped;
                bits |= value == clamped ? 1u << j : 0;
            }
            mask[i / 8] = (uint8_t)bits;
        }
    }
    if (mask != NULL) {
        tte_mask_clear(mask, i, p.elems);
    }
    for (; i < p.elems; i++) {
        const int32_t value = rescale(&p, constant, a[i], b[i]);
        if (mask != NULL && p.act_min <= value && value <= p.act_max) {
            tte_mask_set(mask, i);
        }
        y[i] = (int8_t)tte_clamp(value, p.act_min, p.act_max);
    }
}
