/* SPDX-License-Identifier: Apache-2.0
 *
 * y = requantise(exp(x_i) / sum of exp(x_j)) + zero point over the channels of each position: the
 * exponentials of the distance to the maximum by table, probabilities in Q24, one rounding to int8.
 * Source: docs/numerics.md, section 1.
 */
#include "tte_kernels.h"
#include "tte_requant.h"
#include "tte_softmax.h"

void tte_softmax_int8(const tte_softmax_params *params, const int8_t *x,
                      const int32_t *exponentials, int8_t *y)
{
    const tte_softmax_params p = *params;
    const unsigned shift = p.exponential_bits + 30u - 24u;
    for (uint32_t position = 0; position < p.positions; position++) {
        const tte_softmax_row row =
            tte_softmax_start(x, p.channels, exponentials, p.exponential_bits);
        for (uint32_t i = 0; i < p.channels; i++) {
            const int32_t value = tte_requantize(tte_softmax_value(row, x[i], exponentials, shift),
                                                 p.multiplier, p.pre_shift);
            const int32_t low = -128 - p.output_zero_point, high = 127 - p.output_zero_point;
            y[i] = (int8_t)(tte_clamp(value, low, high) + p.output_zero_point);
        }
        x += p.channels;
        y += p.channels;
    }
}
