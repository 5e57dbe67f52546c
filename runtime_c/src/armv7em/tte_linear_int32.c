/* SPDX-License-Identifier: Apache-2.0
 *
 * y[o] = bias[o] + sum over i of weight[o][i] * (x[i] - zero point), exact int32: the logits are
 * not rounded before the loss. Two outputs share the widening of x, four inputs at a time.
 * Source: docs/numerics.md, sections 1 and 4.
 */
#include "tte_kernels.h"
#include "tte_dsp.h"

/* sum + four products; x is widened: pairs (0, 2) and (1, 3). */
static inline int32_t multiply_4(uint32_t even, uint32_t odd, uint32_t weights, int32_t sum)
{
    return tte_smlad(odd, tte_sxtb16_ror8(weights), tte_smlad(even, tte_sxtb16(weights), sum));
}

void tte_linear_int32(const tte_linear_params *params, const int8_t *x, const int8_t *weight,
                      const int32_t *bias, int32_t *y)
{
    const int32_t in_c = params->in_c, out_c = params->out_c;
    const uint32_t offset = tte_both(-params->input_zero_point);

    for (int32_t o = 0; o < out_c; o += 2) {
        /* A last odd output is computed twice. */
        const int32_t next = o + 1 < out_c ? 1 : 0;
        const int8_t *row_0 = weight + o * in_c, *row_1 = row_0 + next * in_c;
        int32_t sum_0 = bias[o], sum_1 = bias[o + next];
        int32_t i = 0;
        for (; i + 4 <= in_c; i += 4) {
            const uint32_t word = tte_load_4(x + i);
            const uint32_t even = tte_sxtab16(offset, word), odd = tte_sxtab16_ror8(offset, word);
            sum_0 = multiply_4(even, odd, tte_load_4(row_0 + i), sum_0);
            sum_1 = multiply_4(even, odd, tte_load_4(row_1 + i), sum_1);
        }
        for (; i < in_c; i++) {
            const int32_t value = x[i] - params->input_zero_point;
            sum_0 += value * row_0[i];
            sum_1 += value * row_1[i];
        }
        y[o] = sum_0;
        y[o + next] = sum_1;
    }
}
