/* SPDX-License-Identifier: Apache-2.0
 *
 * Mean squared error and its gradient in integers (docs/numerics.md, section 4). Targets are int8
 * codes; outputs are brought to 1/256 of a code, so
 *   r    = round(output * multipliers[channel] / 2^shift) - 256 * target - offset, within +-2^23
 *   loss = round(floor(sum of r^2 / elems) / 256), in units of (code / 16)^2
 *   R    = max |r|
 *   grad = round(127 * r / R * grad_ratios / 2^15), halves away from zero
 *   step = learning_rate * R * unit, unit = 2 * code / (256 * elems)
 * Computed again for every use: there is no scratch. grad may be the output.
 */
#include "tte_loss.h"

static int32_t residual(const tte_mean_squared_error_params *params, const void *output,
                        const int8_t *target, const int32_t *multipliers, uint32_t i)
{
    const int64_t limit = (int64_t)1 << 23;
    const int32_t value = tte_output_value(output, &params->output, i);
    const int64_t product = (int64_t)value * multipliers[i % params->channels];
    const int64_t r = ((product + ((int64_t)1 << (params->shift - 1))) >> params->shift) -
                      target[i] * 256 - params->offset;
    return (int32_t)(r < -limit ? -limit : r > limit ? limit : r);
}

void tte_mean_squared_error_int8(const tte_mean_squared_error_params *params, const void *output,
                                 const int8_t *target, const tte_factor *learning_rate,
                                 const int32_t *multipliers, const int32_t *grad_ratios,
                                 const tte_factor *unit, int8_t *grad, int32_t *loss,
                                 tte_factor *step)
{
    uint64_t sum = 0;
    uint32_t largest = 0;

    for (uint32_t i = 0; i < params->elems; i++) {
        const int32_t r = residual(params, output, target, multipliers, i);
        const uint32_t size = (uint32_t)(r < 0 ? -r : r);
        largest = size > largest ? size : largest;
        sum += (uint64_t)size * size;
    }
    sum = (sum / params->elems + 128) >> 8;
    *loss = (int32_t)(sum > INT32_MAX ? INT32_MAX : sum);
    *step = tte_factor_product(tte_factor_product(*learning_rate, tte_factor_of(largest)), *unit);
    const uint64_t scale = largest == 0 ? 0 : tte_grad_scale(largest);
    for (uint32_t i = 0; i < params->elems; i++) {
        const int32_t r = residual(params, output, target, multipliers, i);
        grad[i] = tte_grad_code(r, scale, grad_ratios[i % params->channels]);
    }
}
