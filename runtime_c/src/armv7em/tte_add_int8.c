/* SPDX-License-Identifier: Apache-2.0
 *
 * y = clamp(((a - za) * a_multiplier + (b - zb) * b_multiplier + 2^(shift-1) >> shift) + zero
 * point, act_min, act_max): both inputs rescaled to the output's scale, one rounding, half up. The
 * zero points are one constant; SMMLAR by 2^(32 - shift) shifts, rounds and adds the output's. A
 * byte of the mask is eight elements. |sum| < 2 * 255 * 2^21 < 2^31. A clamp to less than int8 is
 * left to the portable kernel. Source: docs/numerics.md, section 1.
 */
#define tte_add_int8 tte_add_int8_portable
#include "../tte_add_int8.c"
#undef tte_add_int8

#include "tte_dsp.h"

void tte_add_int8(const tte_add_params *params, const int8_t *a, const int8_t *b, int8_t *y,
                  uint8_t *mask);

/* What all elements share. */
typedef struct {
    int32_t constant, a_multiplier, b_multiplier, scale, zero_point;
} sum_params;

/* One element, not yet clamped. */
static inline int32_t add(const sum_params *p, int32_t a, int32_t b)
{
    /* The sum of all fits; what is between may wrap. */
    const int32_t sum = tte_mla(b, p->b_multiplier, tte_mla(a, p->a_multiplier, p->constant));
    return tte_smmlar(sum, p->scale, p->zero_point);
}

void tte_add_int8(const tte_add_params *params, const int8_t *a, const int8_t *b, int8_t *y,
                  uint8_t *mask)
{
    if (params->act_min != -128 || params->act_max != 127 || params->shift < 2) {
        tte_add_int8_portable(params, a, b, y, mask);
        return;
    }
    const sum_params p = {
        -params->a_zero_point * params->a_multiplier - params->b_zero_point * params->b_multiplier,
        params->a_multiplier,
        params->b_multiplier,
        (int32_t)1 << (32 - params->shift),
        params->output_zero_point,
    };
    const uint32_t elems = params->elems, whole = elems & ~7u;

    for (const int8_t *const end = a + whole; a != end; a += 8, b += 8, y += 8) {
        uint32_t bits = 0;
        if (mask == NULL) {
            for (uint32_t j = 0; j < 8; j++) {
                y[j] = (int8_t)tte_ssat8(add(&p, a[j], b[j]));
            }
        } else {
            for (uint32_t j = 0; j < 8; j++) {
                const int32_t value = add(&p, a[j], b[j]), clamped = tte_ssat8(value);
                y[j] = (int8_t)clamped;
                bits |= value == clamped ? 1u << j : 0;
            }
            *mask++ = (uint8_t)bits;
        }
    }
    if (mask != NULL) {
        tte_mask_clear(mask, 0, elems - whole);
    }
    for (uint32_t j = 0; j < elems - whole; j++) {
        const int32_t value = add(&p, a[j], b[j]), clamped = tte_ssat8(value);
        if (mask != NULL && value == clamped) {
            tte_mask_set(mask, j);
        }
        y[j] = (int8_t)clamped;
    }
}
