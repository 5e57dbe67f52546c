/* SPDX-License-Identifier: Apache-2.0
 *
 * grad_input = requantise(sum of grad_output * (other - zero point) + addend), 0 where the mask bit
 * is 0: the gradient of an operand of a product (without `other`: of a sum). The sum is over the
 * axes that the operand does not have, in int32. One rounding, half up.
 * Source: docs/numerics.md, section 2.
 */
#include "tte_kernels.h"
#include "tte_requant.h"

void tte_broadcast_grad_input_int8(const tte_broadcast_grad_input_params *params,
                                   const int8_t *grad_output, const int8_t *other,
                                   const int32_t *multipliers, const int8_t *addend,
                                   const int32_t *addend_multipliers, const uint8_t *mask,
                                   int8_t *grad_input, uint32_t *saturations)
{
    const tte_broadcast s = params->broadcast;
    const int32_t zero_point = params->other_zero_point;
    /* Along each axis there are either elements of grad_input or elements to sum. */
    const uint32_t rows = s.a_outer != 0 ? s.outer : 1, row_sums = s.outer / rows;
    const uint32_t columns = s.a_middle != 0 ? s.middle : 1, column_sums = s.middle / columns;
    const uint32_t elems = s.a_inner != 0 ? s.inner : 1, elem_sums = s.inner / elems;
    uint32_t index = 0, channel = 0;
    for (uint32_t i = 0; i < rows; i++) {
        for (uint32_t j = 0; j < columns; j++) {
            for (uint32_t k = 0; k < elems; k++, index++) {
                int32_t sum = 0;
                for (uint32_t row = i; row < i + row_sums; row++) {
                    for (uint32_t column = j; column < j + column_sums; column++) {
                        const int8_t *grad = grad_output + (row * s.middle + column) * s.inner + k;
                        const int8_t *by =
                            other == NULL ? NULL
                                          : other + row * s.b_outer + column * s.b_middle +
                                                k * s.b_inner;
                        for (uint32_t e = 0; e < elem_sums; e++) {
                            sum += grad[e] * (by == NULL ? 1 : by[e * s.b_inner] - zero_point);
                        }
                    }
                }
                grad_input[index] =
                    tte_grad_value(sum, multipliers[channel], addend, addend_multipliers, channel,
                                   mask, index, params->pre_shift, saturations);
                channel = channel + 1 == params->channels ? 0 : channel + 1;
            }
        }
    }
}
