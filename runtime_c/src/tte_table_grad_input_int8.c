/* SPDX-License-Identifier: Apache-2.0
 *
 * grad_input[p][c] = requantise(grad_output * slopes[x] + addend), 0 where the mask bit is 0:
 * the gradient of a table. slopes[0] is the slope at -128; |grad_output * slope| < 2^22. One
 * rounding, half up. Source: docs/numerics.md, section 2.
 */
#include "tte_kernels.h"
#include "tte_requant.h"

void tte_table_grad_input_int8(const tte_table_grad_input_params *params,
                               const int8_t *grad_output, const int8_t *x, const int16_t *slopes,
                               const int32_t *multipliers, const int8_t *addend,
                               const int32_t *addend_multipliers, const uint8_t *mask,
                               int8_t *grad_input, uint32_t *saturations)
{
    const tte_table_grad_input_params p = *params;
    const int16_t *at_zero = slopes + 128;
    uint32_t index = 0;
    for (uint32_t position = 0; position < p.positions; position++) {
        for (uint32_t channel = 0; channel < p.channels; channel++, index++) {
            grad_input[index] =
                tte_grad_value(grad_output[index] * at_zero[x[index]], multipliers[channel],
                               addend, addend_multipliers, channel, mask, index, p.pre_shift,
                               saturations);
        }
    }
}
