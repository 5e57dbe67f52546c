/* SPDX-License-Identifier: Apache-2.0
 *
 * grad_input[iy][ix][c] = requantise(sum of grad_output over the pixel's block of factor_h by
 * factor_w + addend), 0 where the mask bit is 0. NHWC. One rounding, half up.
 * Source: docs/numerics.md, section 2.
 */
#include "tte_kernels.h"
#include "tte_requant.h"

void tte_resize_nearest2d_grad_input_int8(const tte_resize_nearest2d_grad_input_params *params,
                                          const int8_t *grad_output, const int32_t *multipliers,
                                          const int8_t *addend, const int32_t *addend_multipliers,
                                          const uint8_t *mask, int8_t *grad_input,
                                          uint32_t *saturations)
{
    const tte_resize_nearest2d_grad_input_params p = *params;
    const uint32_t row_elems = (uint32_t)p.in_w * p.factor_w * p.channels;
    uint32_t index = 0;

    for (uint32_t iy = 0; iy < p.in_h; iy++) {
        for (uint32_t ix = 0; ix < p.in_w; ix++) {
            const int8_t *block =
                grad_output + iy * p.factor_h * row_elems + ix * p.factor_w * p.channels;
            for (uint32_t channel = 0; channel < p.channels; channel++, index++) {
                int32_t acc = 0;
                for (uint32_t i = 0; i < p.factor_h; i++) {
                    for (uint32_t j = 0; j < p.factor_w; j++) {
                        acc += block[i * row_elems + j * p.channels + channel];
                    }
                }
                grad_input[index] =
                    tte_grad_value(acc, multipliers[channel], addend, addend_multipliers, channel,
                                   mask, index, p.pre_shift, saturations);
            }
        }
    }
}
