/* SPDX-License-Identifier: Apache-2.0
 *
 * grad_input[iy][ix][c] = requantise(sum of grad_output over the pixel's block of rows[iy] by
 * cols[ix] + addend), 0 where the mask bit is 0; factor_h and factor_w where there is no table.
 * NHWC. One rounding, half up.
 * Source: docs/numerics.md, section 2.
 */
#include "tte_kernels.h"
#include "tte_requant.h"

void tte_resize_nearest2d_grad_input_int8(const tte_resize_nearest2d_grad_input_params *params,
                                          const int8_t *grad_output, const uint16_t *rows,
                                          const uint16_t *cols, const int32_t *multipliers,
                                          const int8_t *addend, const int32_t *addend_multipliers,
                                          const uint8_t *mask, int8_t *grad_input,
                                          uint32_t *saturations)
{
    const tte_resize_nearest2d_grad_input_params p = *params;
    uint32_t row_elems = (uint32_t)p.in_w * p.factor_w * p.channels;
    uint32_t index = 0;

    for (uint32_t ix = 0; cols && ix < p.in_w; ix++) {
        row_elems += (uint32_t)cols[ix] * p.channels;
    }
    for (uint32_t iy = 0; iy < p.in_h; iy++) {
        const uint32_t height = rows ? rows[iy] : p.factor_h;
        const int8_t *block = grad_output;
        for (uint32_t ix = 0; ix < p.in_w; ix++) {
            const uint32_t width = cols ? cols[ix] : p.factor_w;
            for (uint32_t channel = 0; channel < p.channels; channel++, index++) {
                int32_t acc = 0;
                for (uint32_t i = 0; i < height; i++) {
                    for (uint32_t j = 0; j < width; j++) {
                        acc += block[i * row_elems + j * p.channels + channel];
                    }
                }
                grad_input[index] =
                    tte_grad_value(acc, multipliers[channel], addend, addend_multipliers, channel,
                                   mask, index, p.pre_shift, saturations);
            }
            block += width * p.channels;
        }
        grad_output += height * row_elems;
    }
}
