/* SPDX-License-Identifier: Apache-2.0
 *
 * grad_input[p][c] = requantise(grad_output * slopes[x] + addend), 0 where the mask bit is 0, eight
 * elements and a byte of the mask at a time. A product has 22 bits: shifted left by at most 8,
 * SMMULR rounds it; other cases are left to the portable kernel.
 * Source: docs/numerics.md, section 2.
 */
#define tte_table_grad_input_int8 tte_table_grad_input_int8_portable
#include "../tte_table_grad_input_int8.c"
#undef tte_table_grad_input_int8

#include "tte_dsp_grad.h"

void tte_table_grad_input_int8(const tte_table_grad_input_params *params,
                               const int8_t *grad_output, const int8_t *x, const int16_t *slopes,
                               const int32_t *multipliers, const int8_t *addend,
                               const int32_t *addend_multipliers, const uint8_t *mask,
                               int8_t *grad_input, uint32_t *saturations);

void tte_table_grad_input_int8(const tte_table_grad_input_params *params,
                               const int8_t *grad_output, const int8_t *x, const int16_t *slopes,
                               const int32_t *multipliers, const int8_t *addend,
                               const int32_t *addend_multipliers, const uint8_t *mask,
                               int8_t *grad_input, uint32_t *saturations)
{
    const tte_table_grad_input_params p = *params;
    if (p.channels % 8 != 0 || p.pre_shift > 8) {
        tte_table_grad_input_int8_portable(params, grad_output, x, slopes, multipliers, addend,
                                           addend_multipliers, mask, grad_input, saturations);
        return;
    }
    const int16_t *at_zero = slopes + 128;
    uint32_t count = *saturations;
    for (uint32_t position = 0; position < p.positions; position++) {
        for (uint32_t channel = 0; channel < p.channels; channel += 8) {
            const uint32_t bits = mask == NULL ? 0xFF : *mask++;
            for (uint32_t j = 0; j < 8; j++) {
                int8_t value = 0;
                if ((bits >> j & 1) != 0) {
                    value = tte_grad_rounded(grad_output[j] * at_zero[x[j]], multipliers, addend,
                                             addend_multipliers, channel, j, p.pre_shift, &count);
                }
                grad_input[j] = value;
            }
            grad_output += 8;
            x += 8;
            grad_input += 8;
            addend = addend == NULL ? NULL : addend + 8;
        }
    }
    *saturations = count;
}
