/* SPDX-License-Identifier: Apache-2.0
 *
 * exp(x_i - max x) over its sum: a table of exponentials, one division a row.
 * Source: docs/numerics.md, section 1.
 */
#ifndef TTE_SOFTMAX_H
#define TTE_SOFTMAX_H

#include "tte_types.h"

/* A row's maximum, and 2^30 over its probabilities' sum, in units of the exponentials. */
typedef struct {
    int32_t max;
    uint32_t inverse; /* at most 2^30 */
} tte_softmax_row;

/* exponentials[d]: exp(-d) in Q`bits`, of which the sum has 32 bits. */
static inline tte_softmax_row tte_softmax_start(const int8_t *x, uint32_t channels,
                                                const int32_t *exponentials, uint8_t bits)
{
    tte_softmax_row row = {x[0], 0};
    uint32_t sum = 0;
    for (uint32_t i = 1; i < channels; i++) {
        row.max = x[i] > row.max ? x[i] : row.max;
    }
    for (uint32_t i = 0; i < channels; i++) {
        sum += (uint32_t)exponentials[row.max - x[i]];
    }
    row.inverse = (uint32_t)(((uint64_t)1 << (bits + 30)) / sum);
    return row;
}

/* A probability in Q(bits + 30 - shift). */
static inline int32_t tte_softmax_value(tte_softmax_row row, int8_t x, const int32_t *exponentials,
                                        unsigned shift)
{
    const uint64_t product = (uint64_t)(uint32_t)exponentials[row.max - x] * row.inverse;
    return (int32_t)((product + ((uint64_t)1 << (shift - 1))) >> shift);
}

#endif
