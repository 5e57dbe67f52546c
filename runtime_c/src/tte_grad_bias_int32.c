/* SPDX-License-Identifier: Apache-2.0
 *
 * sum = sum over positions of grad_output[p][c]; 256 * bias + residual -= round(sum * step *
 * rates[c]), saturated at +-2^38 and split again: bias to nearest, residual in
 * -128..127. A rate of 0 marks a channel that is never trained. Source: docs/numerics.md,
 * section 3; quantization-aware scaling is in the rates: MCUNetV3 ("On-Device Training Under
 * 256KB Memory", NeurIPS 2022).
 */
#include "tte_kernels.h"
#include "tte_requant.h"

void tte_grad_bias_int32(const tte_grad_bias_params *params, const int8_t *grad_output,
                         const tte_factor *step, const tte_factor *rates, int32_t *bias,
                         int8_t *residual)
{
    const tte_grad_bias_params p = *params;
    const int64_t limit = (int64_t)1 << 38;

    if (step->mantissa == 0) {
        return;
    }
    for (uint32_t channel = 0; channel < p.channels; channel++) {
        if (rates[channel].mantissa != 0) {
            const int8_t *grad = grad_output + channel;
            int32_t sum = 0;
            for (uint32_t position = 0; position < p.positions; position++) {
                sum += *grad;
                grad += p.channels;
            }
            int64_t full = (int64_t)bias[channel] * 256 + residual[channel] -
                           tte_update_step(sum, *step, rates[channel]);
            full = full < -limit ? -limit : full > limit ? limit : full;
            bias[channel] = (int32_t)((full + 128) >> 8);
            residual[channel] = (int8_t)(full - (int64_t)bias[channel] * 256);
        }
    }
}
