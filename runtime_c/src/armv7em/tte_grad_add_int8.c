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

#include "tte_grad.h"

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
    uint32_t count = *saturations;
    for (uint32_t position = 0; position < p.positions; position++) {
        for (uint32_t channel = 0; channel < p.channels; channel += 8) {
            const uint32_t bits = mask == NULL ? 0xFF : *mask++;
            for (uint32_t j = 0; j < 8; j++) {
                int8_t value = 0;
                if ((bits >> j & 1) != 0) {
                    value = tte_grad_rounded(a[j], multipliers, addend, addend_multipliers,
                                             channel, j, p.pre_shift, &count);
                }
                grad_input[j] = value;
            }
            a += 8;
            grad_input += 8;
            addend = addend == NULL ? NULL : addend + 8;
        }
    }
    *saturations = count;
}
