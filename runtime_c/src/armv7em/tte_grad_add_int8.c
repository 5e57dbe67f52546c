/* SPDX-License-Identifier: Apache-2.0
 *
 * grad_input[p][c] = requantise(a * multipliers[c] + addend * addend_multipliers[c]), 0 where the
 * mask bit is 0: where two branches meet, their gradients are added and rounded once, half up.
 * Without an addend it carries a gradient through an add or a clip. int8 shifted left by pre_shift
 * needs no more than 32 bits up to 23, so SMMULR rounds; other cases are left to the portable
 * kernel. Source: docs/numerics.md, section 2.
 */
#define tte_grad_add_int8 tte_grad_add_int8_portable
#include "../tte_grad_add_int8.c"
#undef tte_grad_add_int8

#include "tte_dsp_grad.h"

void tte_grad_add_int8(const tte_grad_add_params *params, const int8_t *a,
                       const int32_t *multipliers, const int8_t *addend,
                       const int32_t *addend_multipliers, const uint8_t *mask, int8_t *grad_input,
                       uint32_t *saturations);

void tte_grad_add_int8(const tte_grad_add_params *params, const int8_t *a,
                       const int32_t *multipliers, const int8_t *addend,
                       const int32_t *addend_multipliers, const uint8_t *mask, int8_t *grad_input,
                       uint32_t *saturations)
{
    const tte_grad_add_params p = *params;
    if (p.channels % 8 != 0 || p.pre_shift > 23) {
        tte_grad_add_int8_portable(params, a, multipliers, addend, addend_multipliers, mask,
                                   grad_input, saturations);
        return;
    }
    const int32_t scale = (int32_t)1 << p.pre_shift;
    uint32_t count = *saturations;
    for (uint32_t position = 0; position < p.positions; position++) {
        for (uint32_t channel = 0; channel < p.channels; channel += 8) {
            const uint32_t bits = mask == NULL ? 0xFF : *mask++;
            const int32_t *m = multipliers + channel;
            if (addend == NULL) {
                for (uint32_t j = 0; j < 8; j++) {
                    const int32_t kept = -(int32_t)(bits >> j & 1);
                    grad_input[j] =
                        tte_saturate_grad(tte_smmulr(a[j] * scale, m[j]) & kept, &count);
                }
            } else {
                for (uint32_t j = 0; j < 8; j++) {
                    const int32_t kept = -(int32_t)(bits >> j & 1);
                    const int32_t sum = tte_round_high(a[j] * scale, m[j], addend[j] * scale,
                                                       addend_multipliers[channel + j]);
                    grad_input[j] = tte_saturate_grad(sum & kept, &count);
                }
                addend += 8;
            }
            a += 8;
            grad_input += 8;
        }
    }
    *saturations = count;
}
