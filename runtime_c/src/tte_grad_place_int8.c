/* SPDX-License-Identifier: Apache-2.0
 *
 * grad_input[h][w][c] = requantise(grad_output[oh][ow][oc] + addend), 0 where the mask bit is 0;
 * h = begin_h + oh * step_h, and so on. What no output was taken from has a gradient of 0. The way
 * back of a slice (grad_output is the smaller one), of concat and pad (the larger one).
 * One rounding, half up. Source: docs/numerics.md, section 2.
 */
#include "tte_kernels.h"
#include "tte_requant.h"

/* The output that was taken from `at`, or -1. */
static int32_t taken_from(int32_t at, int32_t begin, int32_t step, int32_t count)
{
    const int32_t output = (at - begin) / step;
    return (at - begin) % step == 0 && 0 <= output && output < count ? output : -1;
}

void tte_grad_place_int8(const tte_grad_place_params *params, const int8_t *grad_output,
                         const int32_t *multipliers, const int8_t *addend,
                         const int32_t *addend_multipliers, const uint8_t *mask,
                         int8_t *grad_input, uint32_t *saturations)
{
    const tte_grad_place_params p = *params;
    uint32_t index = 0;
    for (int32_t h = 0; h < p.in_h; h++) {
        const int32_t oh = taken_from(h, p.begin_h, p.step_h, p.out_h);
        for (int32_t w = 0; w < p.in_w; w++) {
            const int32_t ow = taken_from(w, p.begin_w, p.step_w, p.out_w);
            const int inside = oh >= 0 && ow >= 0;
            const int8_t *pixel = grad_output + (inside ? (oh * p.out_w + ow) * p.out_c : 0);
            for (uint32_t c = 0; c < p.in_c; c++, index++) {
                const int32_t oc = p.step_c == 1 ? (int32_t)c - p.begin_c
                                                 : taken_from((int32_t)c, p.begin_c, p.step_c,
                                                              p.out_c);
                const int taken = inside && 0 <= oc && oc < p.out_c;
                grad_input[index] = tte_grad_value(taken ? pixel[oc] : 0, multipliers[c], addend,
                                                   addend_multipliers, c, mask, index, p.pre_shift,
                                                   saturations);
            }
        }
    }
}
