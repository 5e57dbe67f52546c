/* SPDX-License-Identifier: Apache-2.0
 *
 * y = clamp(requantise((a - za) * (b - zb)) + zero point, act_min, act_max), each operand repeated
 * along the axes that it does not have. One rounding, half up. Source: docs/numerics.md, section 1.
 */
#include "tte_kernels.h"
#include "tte_requant.h"

void tte_mul_int8(const tte_mul_params *params, const int8_t *a, const int8_t *b, int8_t *y,
                  uint8_t *mask)
{
    const tte_broadcast s = params->broadcast;
    const int32_t a_zero_point = params->requant.input_zero_point;
    const int32_t b_zero_point = params->b_zero_point;
    uint32_t index = 0;
    if (mask != NULL) {
        tte_mask_clear(mask, 0, s.outer * s.middle * s.inner);
    }
    for (uint32_t i = 0; i < s.outer; i++) {
        for (uint32_t j = 0; j < s.middle; j++) {
            const int8_t *a_row = a + i * s.a_outer + j * s.a_middle;
            const int8_t *b_row = b + i * s.b_outer + j * s.b_middle;
            for (uint32_t k = 0; k < s.inner; k++, index++) {
                const int32_t product =
                    (a_row[k * s.a_inner] - a_zero_point) * (b_row[k * s.b_inner] - b_zero_point);
                y[index] =
                    tte_activation(product, params->multiplier, &params->requant, mask, index);
            }
        }
    }
}
