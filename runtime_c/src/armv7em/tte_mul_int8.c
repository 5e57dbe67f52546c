/* SPDX-License-Identifier: Apache-2.0
 *
 * y = clamp(requantise((a - za) * (b - zb)) + zero point, act_min, act_max), four elements at a
 * time: SXTAB16 widens and subtracts the zero points, SMMLAR rounds and adds that of the output. An
 * operand that is repeated along the inner axis is widened once a row. Rows with a mask hold whole
 * bytes of it; other cases, and a pre_shift, are left to the portable kernel.
 * Source: docs/numerics.md, section 1.
 */
#define tte_mul_int8 tte_mul_int8_portable
#include "../tte_mul_int8.c"
#undef tte_mul_int8

#include "tte_dsp.h"

void tte_mul_int8(const tte_mul_params *params, const int8_t *a, const int8_t *b, int8_t *y,
                  uint8_t *mask);

/* Four elements without their zero point, as pairs. */
typedef struct {
    uint32_t even, odd;
} four;

static inline four widened(const int8_t *x, uint32_t minus_zero_point)
{
    const uint32_t word = tte_load_4(x);
    const four result = {tte_sxtab16(minus_zero_point, word),
                         tte_sxtab16_ror8(minus_zero_point, word)};
    return result;
}

static inline int32_t product_low(uint32_t a, uint32_t b)
{
    return (int16_t)(uint16_t)a * (int16_t)(uint16_t)b;
}

static inline int32_t product_high(uint32_t a, uint32_t b)
{
    return ((int32_t)a >> 16) * ((int32_t)b >> 16);
}

/* What a row needs. */
typedef struct {
    int32_t multiplier, zero_point;
    uint32_t minus_a, minus_b; /* the operands' zero points, negated, as pairs */
    int32_t act_min, act_max;
} row_params;

/* `count` elements, a multiple of 4 (of 8 with a mask); a step of 0 repeats an operand. */
static inline void multiply_row(const int8_t *a, uint32_t a_step, const int8_t *b, uint32_t b_step,
                                uint32_t count, const row_params *row, int8_t *y, uint8_t *mask)
{
    const int32_t multiplier = row->multiplier, zero_point = row->zero_point;
    const uint32_t minus_a = row->minus_a, minus_b = row->minus_b;
    const int32_t act_min = row->act_min, act_max = row->act_max;
    const int full = act_min == -128 && act_max == 127;
    const uint32_t a_all = tte_sxtab16(minus_a, (uint32_t)(uint8_t)*a * 0x10001u);
    const uint32_t b_all = tte_sxtab16(minus_b, (uint32_t)(uint8_t)*b * 0x10001u);
    four x = {a_all, a_all}, z = {b_all, b_all};
    uint32_t bits = 0;
    for (const int8_t *end = y + count; y != end; y += 4, a += a_step, b += b_step) {
        if (a_step != 0) {
            x = widened(a, minus_a);
        }
        if (b_step != 0) {
            z = widened(b, minus_b);
        }
        const int32_t value_0 = tte_smmlar(product_low(x.even, z.even), multiplier, zero_point);
        const int32_t value_1 = tte_smmlar(product_low(x.odd, z.odd), multiplier, zero_point);
        const int32_t value_2 = tte_smmlar(product_high(x.even, z.even), multiplier, zero_point);
        const int32_t value_3 = tte_smmlar(product_high(x.odd, z.odd), multiplier, zero_point);
        const int32_t y_0 = full ? tte_ssat8(value_0) : tte_clamp(value_0, act_min, act_max);
        const int32_t y_1 = full ? tte_ssat8(value_1) : tte_clamp(value_1, act_min, act_max);
        const int32_t y_2 = full ? tte_ssat8(value_2) : tte_clamp(value_2, act_min, act_max);
        const int32_t y_3 = full ? tte_ssat8(value_3) : tte_clamp(value_3, act_min, act_max);
        y[0] = (int8_t)y_0;
        y[1] = (int8_t)y_1;
        y[2] = (int8_t)y_2;
        y[3] = (int8_t)y_3;
        if (mask != NULL) {
            bits |= (value_0 == y_0 ? 1u : 0) | (value_1 == y_1 ? 2u : 0) |
                    (value_2 == y_2 ? 4u : 0) | (value_3 == y_3 ? 8u : 0);
            if ((end - y) % 8 != 4) {
                bits <<= 4;
            } else {
                *mask++ = (uint8_t)(bits >> 4 | bits << 4);
                bits = 0;
            }
        }
    }
}

void tte_mul_int8(const tte_mul_params *params, const int8_t *a, const int8_t *b, int8_t *y,
                  uint8_t *mask)
{
    const tte_mul_params p = *params;
    const tte_broadcast s = p.broadcast;
    if (p.requant.pre_shift != 0 || s.inner % (mask == NULL ? 4 : 8) != 0) {
        tte_mul_int8_portable(params, a, b, y, mask);
        return;
    }
    const row_params row = {
        p.multiplier,        p.requant.output_zero_point, tte_both(-p.requant.input_zero_point),
        tte_both(-p.b_zero_point), p.requant.act_min,     p.requant.act_max,
    };
    const row_params full = {row.multiplier, row.zero_point, row.minus_a, row.minus_b, -128, 127};
    const int is_full = row.act_min == -128 && row.act_max == 127;
    const int plain = is_full && mask == NULL;
    for (uint32_t i = 0; i < s.outer; i++) {
        for (uint32_t j = 0; j < s.middle; j++, y += s.inner) {
            const int8_t *a_row = a + i * s.a_outer + j * s.a_middle;
            const int8_t *b_row = b + i * s.b_outer + j * s.b_middle;
            if (plain && s.a_inner != 0 && s.b_inner != 0) {
                multiply_row(a_row, 4, b_row, 4, s.inner, &full, y, NULL);
            } else if (plain && s.a_inner != 0) {
                multiply_row(a_row, 4, b_row, 0, s.inner, &full, y, NULL);
            } else if (is_full && mask != NULL) {
                multiply_row(a_row, 4 * s.a_inner, b_row, 4 * s.b_inner, s.inner, &full, y, mask);
                mask += s.inner / 8;
            } else {
                multiply_row(a_row, 4 * s.a_inner, b_row, 4 * s.b_inner, s.inner, &row, y, mask);
                mask = mask == NULL ? NULL : mask + s.inner / 8;
            }
        }
    }
}
