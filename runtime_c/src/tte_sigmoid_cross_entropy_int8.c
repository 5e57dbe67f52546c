/* SPDX-License-Identifier: Apache-2.0
 *
 * Sigmoid cross-entropy of every output by itself, and its gradient, in integers (docs/numerics.md,
 * section 4): logits z in Q16, e = exp(-|z|) in Q24, p = sigmoid(z) in Q24; targets t of 0 and 1,
 * smoothed to targets[t], Q24; w = weights of an output whose target is 1, Q16, else 1.
 *   loss = mean of w (max(z, 0) + ln(1 + e) - t z), Q16
 *   g    = w (p - t), Q24;   G = max |g|
 *   grad = round(127 * g / G * grad_ratios / 2^15), halves away from zero
 *   step = learning_rate * G * unit, unit = 2^-24 / elems
 * Computed again for every use: there is no scratch. grad may be the output.
 */
#include "tte_loss.h"

typedef struct {
    int64_t loss, grad;
} element;

static element element_of(const tte_sigmoid_cross_entropy_params *params, const void *output,
                          const int8_t *target, const int32_t *logit_multipliers,
                          const int32_t *weights, uint32_t i)
{
    const uint32_t channel = i % params->channels;
    const int32_t z = tte_logit(tte_output_value(output, &params->output, i),
                                logit_multipliers[channel], params->logit_shift);
    const int64_t one = (int64_t)1 << 24;
    const int64_t e = tte_exp_negative(z < 0 ? -z : z);
    const int64_t p = ((z < 0 ? e : one) << 24) / (one + e);
    const int64_t t = target[i] != 0 ? params->target_1 : params->target_0;
    element result = {
        .loss = (z < 0 ? 0 : z) + tte_log_q24((uint64_t)(one + e)) - ((z * t) >> 24),
        .grad = p - t,
    };
    if (weights != NULL && target[i] != 0) {
        result.loss = (result.loss * weights[channel]) >> 16;
        result.grad = (result.grad * weights[channel]) >> 16;
    }
    return result;
}

void tte_sigmoid_cross_entropy_int8(const tte_sigmoid_cross_entropy_params *params,
                                    const void *output, const int8_t *target,
                                    const tte_factor *learning_rate,
                                    const int32_t *logit_multipliers, const int32_t *grad_ratios,
                                    const int32_t *weights, const tte_factor *unit, int8_t *grad,
                                    int32_t *loss, tte_factor *step)
{
    int64_t sum = 0;
    uint64_t largest = 0;

    for (uint32_t i = 0; i < params->elems; i++) {
        const element x = element_of(params, output, target, logit_multipliers, weights, i);
        const uint64_t size = (uint64_t)(x.grad < 0 ? -x.grad : x.grad);
        largest = size > largest ? size : largest;
        sum += x.loss;
    }
    sum /= (int64_t)params->elems;
    *loss = (int32_t)(sum > INT32_MAX ? INT32_MAX : sum);
    *step = tte_factor_product(tte_factor_product(*learning_rate, tte_factor_of(largest)), *unit);
    const uint64_t scale = largest == 0 ? 0 : tte_grad_scale(largest);
    for (uint32_t i = 0; i < params->elems; i++) {
        const element x = element_of(params, output, target, logit_multipliers, weights, i);
        grad[i] = tte_grad_code(x.grad, scale, grad_ratios[i % params->channels]);
    }
}
