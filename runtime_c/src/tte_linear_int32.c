/* SPDX-License-Identifier: Apache-2.0
 *
 * y[o] = bias[o] + sum over i of weight[o][i] * (x[i] - zero point), exact int32: the logits are
 * not rounded before the loss. Source: docs/numerics.md, sections 1 and 4.
 */
#include "tte_kernels.h"

void tte_linear_int32(const tte_linear_params *params, const int8_t *x, const int8_t *weight,
                      const int32_t *bias, int32_t *y)
{
    const int16_t zero_point = params->input_zero_point;
    const int32_t in_c = params->in_c;
    for (int32_t o = 0; o < params->out_c; o++) {
        int32_t acc = bias[o];
        for (int32_t i = 0; i < in_c; i++) {
            acc += (int16_t)(x[i] - zero_point) * weight[i];
        }
        y[o] = acc;
        weight += in_c;
    }
}
