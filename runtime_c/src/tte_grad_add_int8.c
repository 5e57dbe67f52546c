/* SPDX-License-Identifier: Apache-2.0
 *
 * grad_input[p][c] = requantise(a * multipliers[c] + addend * addend_multipliers[c]), 0 where the
 * mask bit is 0: where two branches meet, their gradients are added and rounded once, half up.
 * Without an addend it carries a gradient through an add or a clip.
 * Source: docs/numerics.md, section 2.
 */
#include "tte_kernels.h"
#include "tte_requant.h"

void tte_grad_add_int8(const tte_grad_add_params *params, const int8_t *a,
                       const int32_t *multipliers, const int8_t *addend,
                       const int32_t *addend_multipliers, const uint8_t *mask, int8_t *grad_input,
                       uint32_t *saturations)
{
    const tte_grad_add_params p = *params;
    uint32_t index = 0;
    for (uint32_t position = 0; position < p.positions; position++) {
        for (uint32_t channel = 0; channel < p.channels; channel++, index++) {
            grad_input[index] =
                tte_grad_value(a[index], multipliers[channel], addend, addend_multipliers, channel,
                               mask, index, p.pre_shift, saturations);
        }
    }
}
