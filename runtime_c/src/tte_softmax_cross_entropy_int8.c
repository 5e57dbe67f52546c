/* SPDX-License-Identifier: Apache-2.0
 *
 * Softmax cross-entropy and its gradient in integers (docs/numerics.md, section 4):
 * logits z in Q16, d = max z - z, e = 2^-(d / ln 2) in Q24, S = sum of e; targets t that sum to
 * 2^shift (without label smoothing 1 and 0, shift 0); a = e 2^shift - S t, A = max |a|.
 *   loss   = (sum of t d / 2^shift + ln(S / 2^24)) * weight[label], Q16
 *   grad   = round(127 * a / A * grad_ratios / 2^15), halves away from zero
 *   step   = learning_rate * A / (S 2^shift) * weight[label]
 * so grad is softmax - target over its largest element; the 1 / 127 is folded into the update
 * rates. e is computed again for every use: there is no scratch.
 */
#include "tte_loss.h"

/* exp(z - max z) of class i. */
static uint32_t exponential(const tte_softmax_cross_entropy_params *params, const int32_t *logits,
                            const int32_t *multipliers, int32_t largest, uint32_t i)
{
    return tte_exp_negative(largest - tte_logit(logits[i], multipliers[i], params->logit_shift));
}

/* sum of t d, Q16 */
static int32_t distance(const tte_softmax_cross_entropy_params *params, const int32_t *logits,
                        const int32_t *multipliers, int32_t largest, uint32_t label)
{
    const unsigned shift = params->target_shift;
    const int32_t d = largest - tte_logit(logits[label], multipliers[label], params->logit_shift);
    int64_t sum = 0;

    if (shift == 0) {
        return d;
    }
    for (uint32_t i = 0; i < params->classes; i++) {
        sum += largest - tte_logit(logits[i], multipliers[i], params->logit_shift);
    }
    return tte_scaled((int64_t)(params->target_label - params->target_other) * d +
                          params->target_other * sum,
                      shift, INT32_MAX);
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
                                    const tte_factor *class_weights, int8_t *grad, int32_t *loss,
                                    tte_factor *step)
{
    const uint32_t classes = params->classes, target = (uint32_t)*label;
    const unsigned shift = params->target_shift;
    const tte_factor zero = {0, 0};
    int32_t largest = tte_logit(logits[0], logit_multipliers[0], params->logit_shift);
    uint64_t sum = 0;

    for (uint32_t i = 1; i < classes; i++) {
        const int32_t z = tte_logit(logits[i], logit_multipliers[i], params->logit_shift);
        largest = z > largest ? z : largest;
    }
    for (uint32_t i = 0; i < classes; i++) {
        sum += exponential(params, logits, logit_multipliers, largest, i);
    }
    *loss = distance(params, logits, logit_multipliers, largest, target) + tte_log_q24(sum);
    if (class_weights != NULL) {
        const tte_factor weight = class_weights[target];
        *loss = tte_scaled((int64_t)*loss * weight.mantissa, (unsigned)weight.exponent, INT32_MAX);
    }

    /* A; without smoothing it is the label's */
    uint64_t peak = sum - exponential(params, logits, logit_multipliers, largest, target);
    if (shift != 0) {
        peak = 0;
        for (uint32_t i = 0; i < classes; i++) {
            const int64_t a =
                ((int64_t)exponential(params, logits, logit_multipliers, largest, i) << shift) -
                (int64_t)sum * (i == target ? params->target_label : params->target_other);
            const uint64_t size = (uint64_t)(a < 0 ? -a : a);
            peak = size > peak ? size : peak;
        }
    }
    if (peak == 0) {
        memset(grad, 0, classes);
        *step = zero;
        return;
    }
    *step = learning_rate->mantissa == 0 ? zero
                                         : factor_times_ratio(*learning_rate, peak, sum << shift);
    if (class_weights != NULL) {
        *step = tte_factor_product(*step, class_weights[target]);
    }

    unsigned cut = 0;
    while (peak >> cut >> 40 != 0) {
        cut++;
    }
    peak >>= cut;
    for (uint32_t i = 0; i < classes; i++) {
        const int64_t a =
            ((int64_t)exponential(params, logits, logit_multipliers, largest, i) << shift) -
            (int64_t)sum * (i == target ? params->target_label : params->target_other);
        const uint64_t size = (uint64_t)(a < 0 ? -a : a) >> cut;
        const int8_t code = (int8_t)((size * 127 * (uint64_t)grad_ratios[i] + (peak << 14)) /
                                     (peak << 15));
        grad[i] = a < 0 ? (int8_t)-code : code;
    }
}
