/* SPDX-License-Identifier: Apache-2.0
 *
 * grad_input_i = requantise(p_i (g_i - sum of g_j p_j) + addend), 0 where the mask bit is 0, over
 * the channels of each position; p is computed again from x, in Q14, the sum rounded to Q8:
 * |acc| < 2^14 * 4 * 127 * 2^8 < 2^31. One rounding more, half up.
 * Source: docs/numerics.md, section 2.
 */
#include "tte_kernels.h"
#include "tte_requant.h"
#include "tte_softmax.h"

void tte_softmax_grad_input_int8(const tte_softmax_grad_input_params *params,
                                 const int8_t *grad_output, const int8_t *x,
                                 const int32_t *exponentials, const int32_t *multipliers,
                                 const int8_t *addend, const int32_t *addend_multipliers,
                                 const uint8_t *mask, int8_t *grad_input, uint32_t *saturations)
{
    const tte_softmax_grad_input_params p = *params;
    const unsigned shift = p.exponential_bits + 30u - 14u;
    uint32_t index = 0;
    for (uint32_t position = 0; position < p.positions; position++) {
        const tte_softmax_row row =
            tte_softmax_start(x + index, p.channels, exponentials, p.exponential_bits);
        int32_t mean = 0;
        for (uint32_t i = 0; i < p.channels; i++) {
            mean += grad_output[index + i] *
                    tte_softmax_value(row, x[index + i], exponentials, shift);
        }
        mean = (mean + 32) >> 6;
        for (uint32_t i = 0; i < p.channels; i++, index++) {
            const int32_t acc = tte_softmax_value(row, x[index], exponentials, shift) *
                                (256 * grad_output[index] - mean);
            grad_input[index] = tte_grad_value(acc, multipliers[i], addend, addend_multipliers, i,
                                               mask, index, p.pre_shift, saturations);
        }
    }
}
