/* SPDX-License-Identifier: Apache-2.0
 *
 * y[out_h][out_w][out_c] = fill, and x[in_h][in_w][in_c], rescaled, from (top, left, front) on:
 * requantize(x - input_zero_point, multiplier) + output_zero_point, saturated to int8. With a
 * multiplier of 1 x is copied. One rounding, half up. Source: docs/numerics.md, section 1.
 */
#include "tte_kernels.h"
#include "tte_requant.h"

void tte_pad_int8(const tte_pad_params *params, const int8_t *x, int8_t *y)
{
    const tte_pad_params p = *params;
    const int exact = ((int64_t)p.multiplier << p.pre_shift) == (int64_t)1 << 32 &&
                      p.input_zero_point == p.output_zero_point;

    memset(y, p.fill, (size_t)p.out_h * p.out_w * p.out_c);
    for (int32_t row = 0; row < p.in_h; row++) {
        int8_t *to = y + ((p.top + row) * p.out_w + p.left) * p.out_c + p.front;
        for (int32_t col = 0; col < p.in_w; col++, to += p.out_c) {
            if (exact) {
                memcpy(to, x, p.in_c);
                x += p.in_c;
                continue;
            }
            for (int32_t channel = 0; channel < p.in_c; channel++) {
                const int32_t value =
                    tte_requantize(*x++ - p.input_zero_point, p.multiplier, p.pre_shift);
                to[channel] = (int8_t)tte_clamp(value + p.output_zero_point, -128, 127);
            }
        }
    }
}
