/* SPDX-License-Identifier: Apache-2.0
 *
 * Softmax cross-entropy and its gradient in integers (docs/numerics.md, section 4):
 * logits z in Q16, d = max z - z, e = 2^-(d / ln 2) in Q24, S = sum of e, G = S - e[label].
 *   loss              = d[label] + ln(S / 2^24), Q16
 *   grad[i != label]  = round(127 * e[i] / G * grad_ratios[i] / 2^15), half up
 *   grad[label]       = -round(127 * grad_ratios[label] / 2^15)
 *   step              = learning_rate * G / S, the largest |softmax - onehot|
 * so grad is (softmax - onehot) * S / G * 127; the 1 / 127 is folded into the update rates.
 * e is computed again for every use: there is no scratch.
 */
#include "tte_kernels.h"
#include "tte_requant.h"

/* Q16 logit of class i. */
static int32_t logit(const tte_softmax_cross_entropy_params *params, const int32_t *logits,
                     const int32_t *logit_multipliers, uint32_t i)
{
    const unsigned shift = params->logit_shift;
    const int64_t limit = (int64_t)1 << 29;
    const int64_t value =
        ((int64_t)logits[i] * logit_multipliers[i] + ((int64_t)1 << (shift - 1))) >> shift;
    return (int32_t)(value < -limit ? -limit : value > limit ? limit : value);
}

/* exp(-d), d >= 0 in Q16, as Q24: 2^-n times the Taylor series of exp(-f ln 2), f in [0, 1). */
static uint32_t exp_negative(int32_t d)
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
static int32_t log_q24(uint64_t sum)
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

/* factor * part / whole, 0 < part <= whole < 2^63. */
static tte_factor factor_times_ratio(tte_factor factor, uint64_t part, uint64_t whole)
{
    int32_t exponent = 31;
    while (2 * part <= whole) {
        part *= 2;
        exponent++;
    }
    while (whole >> 32 != 0) {
        whole >>= 1;
        part >>= 1;
    }
    /* part / whole = quotient * 2^-exponent, quotient in [2^30, 2^31] */
    const int64_t quotient = (int64_t)((part << 31) / whole);
    const int64_t product = factor.mantissa * quotient;
    const int excess = product >= (int64_t)1 << 61 ? 31 : 30;
    const tte_factor result = {(int32_t)(product >> excess), factor.exponent + exponent - excess};
    return result;
}

void tte_softmax_cross_entropy_int8(const tte_softmax_cross_entropy_params *params,
                                    const int32_t *logits, const int32_t *label,
                                    const tte_factor *learning_rate,
                                    const int32_t *logit_multipliers, const int32_t *grad_ratios,
                                    int8_t *grad, int32_t *loss, tte_factor *step)
{
    const uint32_t classes = params->classes;
    const uint32_t target = (uint32_t)*label;
    int32_t largest = logit(params, logits, logit_multipliers, 0);
    uint64_t sum = 0;

    for (uint32_t i = 1; i < classes; i++) {
        const int32_t z = logit(params, logits, logit_multipliers, i);
        largest = z > largest ? z : largest;
    }
    for (uint32_t i = 0; i < classes; i++) {
        sum += exp_negative(largest - logit(params, logits, logit_multipliers, i));
    }
    const int32_t distance = largest - logit(params, logits, logit_multipliers, target);
    const uint64_t others = sum - exp_negative(distance);
    const tte_factor zero = {0, 0};

    *loss = distance + log_q24(sum);
    if (others == 0) {
        memset(grad, 0, classes);
        *step = zero;
        return;
    }
    for (uint32_t i = 0; i < classes; i++) {
        const uint64_t e =
            exp_negative(largest - logit(params, logits, logit_multipliers, i));
        const uint64_t scaled = e * 127 * (uint64_t)grad_ratios[i];
        grad[i] = i == target ? (int8_t) - ((127 * grad_ratios[i] + 16384) >> 15)
                              : (int8_t)((scaled + (others << 14)) / (others << 15));
    }
    *step = learning_rate->mantissa == 0 ? zero
                                         : factor_times_ratio(*learning_rate, others, sum);
}
