/* SPDX-License-Identifier: Apache-2.0
 *
 * What the losses share: outputs, exp, ln, and factors for the update. Real numbers become Q16
 * (logits, losses) and Q24 (probabilities). A gradient g is written as int8, its largest element
 * 127, times its channel's output scale over the largest one; the step takes what was divided out.
 * Source: docs/numerics.md, sections 2 and 4.
 */
#ifndef TTE_LOSS_H
#define TTE_LOSS_H

#include "tte_kernels.h"
#include "tte_requant.h"

/* round(value / 2^shift), 1 <= shift <= 62, saturated to +-limit. */
static inline int32_t tte_scaled(int64_t value, unsigned shift, int64_t limit)
{
    value = (value + ((int64_t)1 << (shift - 1))) >> shift;
    return (int32_t)(value < -limit ? -limit : value > limit ? limit : value);
}

/* Q16 logit of an accumulator, saturated to +-2^29. */
static inline int32_t tte_logit(int32_t value, int32_t multiplier, unsigned shift)
{
    return tte_scaled((int64_t)value * multiplier, shift, (int64_t)1 << 29);
}

/* Element i of an output: an int32 accumulator, or an int8 code without its zero point. */
static inline int32_t tte_output_value(const void *output, const tte_output_type *type, uint32_t i)
{
    return type->is_int8 ? ((const int8_t *)output)[i] - type->zero_point
                         : ((const int32_t *)output)[i];
}

/* exp(-d), d >= 0 in Q16, as Q24: 2^-n times the Taylor series of exp(-f ln 2), f in [0, 1). */
static inline uint32_t tte_exp_negative(int32_t d)
{
    /* round((-ln 2)^k / k! * 2^30) */
    static const int32_t taylor[7] = {1073741824, -744261118, 257941248, -59597083,
                                      10327387,   -1431680,   165394};
    const uint64_t t = ((uint64_t)d * 94548 + 32768) >> 16; /* d / ln 2, Q16 */
    const uint32_t n = (uint32_t)(t >> 16);
    const int64_t x = (int64_t)((t & 0xffff) << 14); /* f, Q30 */
    int64_t r = taylor[6];

    if (n > 24) {
        return 0;
    }
    for (int k = 5; k >= 0; k--) {
        r = taylor[k] + ((r * x) >> 30);
    }
    return (uint32_t)(r >> (6 + n));
}

/* ln(sum / 2^24) in Q16, sum >= 2^24: log2 bit by bit, by squaring. */
static inline int32_t tte_log_q24(uint64_t sum)
{
    int32_t k = 24;
    while (sum >> (k + 1) != 0) {
        k++;
    }
    uint64_t x = k > 30 ? sum >> (k - 30) : sum << (30 - k); /* [1, 2) in Q30 */
    int32_t log2 = k - 24;
    for (int i = 0; i < 16; i++) {
        x = (x * x) >> 30;
        const int bit = x >> 31 != 0;
        x >>= bit;
        log2 = 2 * log2 + bit;
    }
    return (int32_t)(((int64_t)log2 * 45426 + 32768) >> 16);
}

/* 127 * 2^40 / largest, rounded up; largest > 0. */
static inline uint64_t tte_grad_scale(uint64_t largest)
{
    return (((uint64_t)127 << 40) + largest - 1) / largest;
}

/* round(127 * value / largest * ratio / 2^15), halves away from zero: |value| <= largest < 2^36,
 * scale = tte_grad_scale(largest). */
static inline int8_t tte_grad_code(int64_t value, uint64_t scale, int32_t ratio)
{
    const uint64_t size = (uint64_t)(value < 0 ? -value : value);
    const int8_t code = (int8_t)((size * scale * (uint64_t)ratio + ((uint64_t)1 << 54)) >> 55);
    return value < 0 ? (int8_t)-code : code;
}

/* a * b; cut to 31 bits. */
static inline tte_factor tte_factor_product(tte_factor a, tte_factor b)
{
    const int64_t product = (int64_t)a.mantissa * b.mantissa;
    const int excess = product >= (int64_t)1 << 61 ? 31 : 30;
    const tte_factor zero = {0, 0};
    const tte_factor result = {(int32_t)(product >> excess), a.exponent + b.exponent - excess};
    return product == 0 ? zero : result;
}

/* An integer as a factor; cut to 31 bits. */
static inline tte_factor tte_factor_of(uint64_t value)
{
    tte_factor result = {0, 0};
    if (value != 0) {
        while (value >> 31 != 0) {
            value >>= 1;
            result.exponent--;
        }
        while (value >> 30 == 0) {
            value <<= 1;
            result.exponent++;
        }
    }
    result.mantissa = (int32_t)value;
    return result;
}

#endif
