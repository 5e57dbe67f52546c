/* SPDX-License-Identifier: Apache-2.0
 *
 * grad_input = requantise(sum of grad_output * (other - zero point) + addend), 0 where the mask bit
 * is 0. To a map, element by element: eight and a byte of the mask at a time. To a vector of
 * channels: four sums at a time, over all positions. To one element a position: two products an
 * SMLAD. Other cases are left to the portable kernel.
 * Source: docs/numerics.md, section 2.
 */
#define tte_broadcast_grad_input_int8 tte_broadcast_grad_input_int8_portable
#include "../tte_broadcast_grad_input_int8.c"
#undef tte_broadcast_grad_input_int8

#include "tte_dsp_grad.h"

/* What the cases share. */
typedef struct {
    const tte_broadcast_grad_input_params *params;
    const int8_t *grad_output;
    const int8_t *other;
    const int32_t *multipliers;
    const int8_t *addend;
    const int32_t *addend_multipliers;
    const uint8_t *mask;
    int8_t *grad_input;
    uint32_t *saturations;
} call;

void tte_broadcast_grad_input_int8(const tte_broadcast_grad_input_params *params,
                                   const int8_t *grad_output, const int8_t *other,
                                   const int32_t *multipliers, const int8_t *addend,
                                   const int32_t *addend_multipliers, const uint8_t *mask,
                                   int8_t *grad_input, uint32_t *saturations);

static void to_map(const call *c)
{
    const tte_broadcast s = c->params->broadcast;
    const int32_t zero_point = c->params->other_zero_point;
    const int8_t *grad = c->grad_output, *addend = c->addend;
    const uint8_t *mask = c->mask;
    int8_t *to = c->grad_input;
    uint32_t count = *c->saturations, channel = 0;
    for (uint32_t i = 0; i < s.outer; i++) {
        for (uint32_t j = 0; j < s.middle; j++) {
            const int8_t *by = c->other + i * s.b_outer + j * s.b_middle;
            for (uint32_t k = 0; k < s.inner; k += 8) {
                const uint32_t bits = mask == NULL ? 0xFF : *mask++;
                for (uint32_t e = 0; e < 8; e++) {
                    int8_t value = 0;
                    if ((bits >> e & 1) != 0) {
                        value = tte_grad_rounded(
                            grad[e] * (by[e * s.b_inner] - zero_point), c->multipliers, addend,
                            c->addend_multipliers, channel, e, c->params->pre_shift, &count);
                    }
                    to[e] = value;
                }
                grad += 8;
                by += 8 * s.b_inner;
                to += 8;
                addend = addend == NULL ? NULL : addend + 8;
                channel = channel + 8 == c->params->channels ? 0 : channel + 8;
            }
        }
    }
    *c->saturations = count;
}

static inline void store(const call *c, int32_t sum, uint32_t channel, uint32_t index)
{
    c->grad_input[index] =
        tte_grad_value(sum, c->multipliers[channel], c->addend, c->addend_multipliers, channel,
                       c->mask, index, c->params->pre_shift, c->saturations);
}

/* sums[e] += a product of elements 0 to 3 of two words. */
static inline void add_products(int32_t sums[4], uint32_t grad, uint32_t even, uint32_t odd)
{
    const uint32_t grad_even = tte_sxtb16(grad), grad_odd = tte_sxtb16_ror8(grad);
    sums[0] += (int16_t)(uint16_t)grad_even * (int16_t)(uint16_t)even;
    sums[1] += (int16_t)(uint16_t)grad_odd * (int16_t)(uint16_t)odd;
    sums[2] += ((int32_t)grad_even >> 16) * ((int32_t)even >> 16);
    sums[3] += ((int32_t)grad_odd >> 16) * ((int32_t)odd >> 16);
}

static void to_channels(const call *c)
{
    const tte_broadcast s = c->params->broadcast;
    const uint32_t minus_zero_point = tte_both(-c->params->other_zero_point);
    const uint32_t ones = tte_both(1);
    for (uint32_t k = 0; k < s.inner; k += 4) {
        int32_t sums[4] = {0, 0, 0, 0};
        const int8_t *grad = c->grad_output + k;
        for (uint32_t i = 0; i < s.outer; i++) {
            const int8_t *by = c->other == NULL ? NULL : c->other + i * s.b_outer + k;
            for (uint32_t j = 0; j < s.middle; j++) {
                if (by == NULL) {
                    add_products(sums, tte_load_4(grad), ones, ones);
                } else {
                    const uint32_t word = tte_load_4(by);
                    add_products(sums, tte_load_4(grad), tte_sxtab16(minus_zero_point, word),
                                 tte_sxtab16_ror8(minus_zero_point, word));
                    by += s.b_middle;
                }
                grad += s.inner;
            }
        }
        for (uint32_t e = 0; e < 4; e++) {
            store(c, sums[e], k + e, k + e);
        }
    }
}

static void to_positions(const call *c)
{
    const tte_broadcast s = c->params->broadcast;
    const uint32_t minus_zero_point = tte_both(-c->params->other_zero_point);
    const uint32_t ones = tte_both(1);
    const int8_t *grad = c->grad_output;
    uint32_t index = 0, channel = 0;
    for (uint32_t i = 0; i < s.outer; i++) {
        for (uint32_t j = 0; j < s.middle; j++) {
            const int8_t *by = c->other == NULL ? NULL : c->other + i * s.b_outer + j * s.b_middle;
            int32_t sum = 0;
            for (uint32_t k = 0; k < s.inner; k += 4, grad += 4) {
                const uint32_t word = tte_load_4(grad);
                uint32_t even = ones, odd = ones;
                if (by != NULL) {
                    const uint32_t other = tte_load_4(by + k);
                    even = tte_sxtab16(minus_zero_point, other);
                    odd = tte_sxtab16_ror8(minus_zero_point, other);
                }
                sum = tte_smlad(tte_sxtb16(word), even, sum);
                sum = tte_smlad(tte_sxtb16_ror8(word), odd, sum);
            }
            store(c, sum, channel, index++);
            channel = channel + 1 == c->params->channels ? 0 : channel + 1;
        }
    }
}

void tte_broadcast_grad_input_int8(const tte_broadcast_grad_input_params *params,
                                   const int8_t *grad_output, const int8_t *other,
                                   const int32_t *multipliers, const int8_t *addend,
                                   const int32_t *addend_multipliers, const uint8_t *mask,
                                   int8_t *grad_input, uint32_t *saturations)
{
    const call c = {params,             grad_output, other,      multipliers, addend,
                    addend_multipliers, mask,        grad_input, saturations};
    const tte_broadcast s = params->broadcast;
    const int rows = s.outer == 1 || s.a_outer != 0, columns = s.middle == 1 || s.a_middle != 0;
    const int sums_rows = s.outer == 1 || s.a_outer == 0;
    const int sums_columns = s.middle == 1 || s.a_middle == 0;
    const int repeats = other != NULL && s.b_inner == 0;
    if (rows && columns && s.a_inner != 0 && other != NULL && s.inner % 8 == 0 &&
        params->channels % 8 == 0 && params->pre_shift <= 14) {
        to_map(&c);
    } else if (sums_rows && sums_columns && s.a_inner != 0 && s.inner % 4 == 0 && !repeats &&
               params->channels == s.inner) {
        to_channels(&c);
    } else if (rows && columns && s.a_inner == 0 && s.inner % 4 == 0 && !repeats) {
        to_positions(&c);
    } else {
        tte_broadcast_grad_input_int8_portable(params, grad_output, other, multipliers, addend,
                                               addend_multipliers, mask, grad_input, saturations);
    }
}
