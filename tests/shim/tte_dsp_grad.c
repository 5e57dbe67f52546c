/* SPDX-License-Identifier: Apache-2.0
 *
 * runtime_c/src/armv7em/tte_dsp_grad.S in C, so that the kernels around it run under sanitizers.
 */
#include "../../runtime_c/src/armv7em/tte_dsp_grad.h"

void tte_finish_grads(const tte_grads *grads)
{
    const tte_grads g = *grads;
    const int32_t *sums = g.sums;
    int8_t *to = g.to;
    const uint8_t *mask = g.mask;

    for (int32_t row = 0; row < g.rows; row++) {
        for (int32_t i = 0; i < g.count; i++, to += g.step) {
            int32_t value = tte_smmulr(sums[i], g.multiplier);
            if (mask != NULL) {
                value &= tte_spread_bit(*mask, g.shift);
                mask += g.mask_step;
            }
            *to = tte_saturate_grad(value, g.saturations);
        }
        sums += (g.count + 3) / 4 * 4;
        to += g.to_step;
        mask = mask == NULL ? NULL : mask + g.mask_row_step;
    }
}

/* Words of four channels. */
void tte_store_grads(const tte_grad_map *map)
{
    const int16_t *from = map->from;
    int8_t *to = map->to;
    const uint8_t *mask = map->mask;

    for (int32_t row = 0; row < map->rows; row++) {
        const int32_t count = 4 * map->fours + map->tail;
        for (int32_t i = 0; i < count; i++, to += map->step, mask += map->mask_step) {
            for (int32_t channel = 0; channel < 4; channel++) {
                const int32_t value = from[i / 4 * 16 + i % 4 + 4 * channel] - TTE_GRAD_OFFSET;
                const uint32_t bit = (uint32_t)*mask << map->shift >> (16 + channel) & 1;
                to[channel] = bit == 0 ? 0 : tte_saturate_grad(value, map->saturations);
            }
        }
        from += (count + 3) / 4 * 16;
        to += map->to_step;
        mask += map->mask_row_step;
    }
}

static int32_t step_of(int32_t sum, const tte_move *move)
{
    const int32_t high = (int32_t)(((int64_t)sum * move->mantissa) >> 32);
    return (high + move->half) >> move->shift;
}

static void take_step(int8_t *weight, int8_t *residual, int32_t by)
{
    const int32_t full = tte_clamp(*weight * 256 + *residual + TTE_STEP_OFFSET - by, -127 * 256,
                                   127 * 256 + 127);
    *weight = (int8_t)((full + 128) >> 8);
    *residual = (int8_t)full;
}

const int32_t *tte_update_fours(int8_t *weight, int8_t *residual, const int32_t *sums,
                                const int32_t *sums_end, const tte_move *move)
{
    for (; sums != sums_end; sums += 8, weight += 4, residual += 4) {
        int32_t by[4];
        for (int32_t i = 0; i < 4; i++) {
            by[i] = step_of(sums[i], move);
            if (by[i] < INT16_MIN || by[i] > INT16_MAX) {
                return sums;
            }
        }
        for (int32_t i = 0; i < 4; i++) {
            take_step(weight + i, residual + i, by[i]);
        }
    }
    return sums;
}

void tte_update_run(int8_t *weight, int8_t *residual, const int32_t *sums,
                    const int32_t *sums_end, const tte_move *move)
{
    while (sums != sums_end) {
        take_step(weight++, residual++, step_of(*sums++, move));
    }
}

void tte_scale_words(int32_t *to, const int32_t *from, uint32_t words, int32_t factor)
{
    for (uint32_t i = 0; i < words; i++) {
        to[i] = tte_mla(from[i], factor, 0);
    }
}
