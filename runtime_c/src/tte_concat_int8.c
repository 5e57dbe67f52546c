/* SPDX-License-Identifier: Apache-2.0
 *
 * y[outer] = a[outer], b[outer], c[outer], d[outer] behind one another, each rescaled to y:
 * requantize(x - its zero point) + zero point, saturated to int8. Inputs that have y's
 * quantisation already (a multiplier of 1) are copied. One rounding, half up.
 * Source: docs/numerics.md, section 1.
 */
#include "tte_kernels.h"
#include "tte_requant.h"

static int8_t *append(const tte_concat_params *params, const int8_t *x, uint32_t elems,
                      int32_t zero_point, int32_t multiplier, int8_t *y)
{
    const int exact = ((int64_t)multiplier << params->pre_shift) == (int64_t)1 << 32 &&
                      zero_point == params->output_zero_point;
    if (exact) {
        memcpy(y, x, elems);
        return y + elems;
    }
    for (uint32_t i = 0; i < elems; i++) {
        const int32_t value = tte_requantize(x[i] - zero_point, multiplier, params->pre_shift);
        *y++ = (int8_t)tte_clamp(value + params->output_zero_point, -128, 127);
    }
    return y;
}

void tte_concat_int8(const tte_concat_params *params, const int8_t *a, const int8_t *b,
                     const int8_t *c, const int8_t *d, const int32_t *multipliers, int8_t *y)
{
    const tte_concat_params p = *params;
    for (uint32_t outer = 0; outer < p.outer; outer++) {
        y = append(&p, a + outer * p.a_elems, p.a_elems, p.a_zero_point, multipliers[0], y);
        y = append(&p, b + outer * p.b_elems, p.b_elems, p.b_zero_point, multipliers[1], y);
        if (c != NULL) {
            y = append(&p, c + outer * p.c_elems, p.c_elems, p.c_zero_point, multipliers[2], y);
        }
        if (d != NULL) {
            y = append(&p, d + outer * p.d_elems, p.d_elems, p.d_zero_point, multipliers[3], y);
        }
    }
}
