/* SPDX-License-Identifier: Apache-2.0
 *
 * What the fast gradient kernels share: requantised gradients and updates, with the bits of
 * tte_requant.h. Sums come with their pre_shift: round(sum * 2^pre_shift * multiplier / 2^32) is
 * the upper word of a product when 2^pre_shift is already in the sum, and in the addend.
 * Source: docs/numerics.md, sections 2 and 3.
 */
#ifndef TTE_DSP_GRAD_H
#define TTE_DSP_GRAD_H

#include "tte_dsp.h"

/* A shifted gradient is an int16 up to here. */
enum { TTE_GRAD_MAX_SHIFT = 8 };

/* Saturated to [-127, 127], and counted. */
static inline int8_t tte_saturate_grad(int32_t value, uint32_t *saturations)
{
    if ((uint32_t)value + 127u > 254u) {
        ++*saturations;
        return value < 0 ? -127 : 127;
    }
    return (int8_t)value;
}

/* round((sum * multiplier + addend * addend_multiplier) / 2^32): two SMLAL. */
static inline int32_t tte_round_high(int32_t sum, int32_t multiplier, int32_t addend,
                                     int32_t addend_multiplier)
{
    const int64_t half = (int64_t)1 << 31;
    return (int32_t)((half + (int64_t)sum * multiplier + (int64_t)addend * addend_multiplier) >>
                     32);
}

/* Whether sums of `count` products of int8, shifted, have 31 bits. */
static inline int tte_grad_fits(int32_t count, uint8_t pre_shift)
{
    return count < (1 << 16) && pre_shift < 15 && count << pre_shift < (1 << 16);
}

/* grad_input of element `element` of eight from `channel` on, if sum << pre_shift has 31 bits. */
static inline int8_t tte_grad_rounded(int32_t sum, const int32_t *multipliers,
                                      const int8_t *addend, const int32_t *addend_multipliers,
                                      uint32_t channel, uint32_t element, uint8_t pre_shift,
                                      uint32_t *saturations)
{
    const int32_t scale = (int32_t)1 << pre_shift, multiplier = multipliers[channel + element];
    const int32_t value =
        addend == NULL ? tte_smmulr(sum * scale, multiplier)
                       : tte_round_high(sum * scale, multiplier, addend[element] * scale,
                                        addend_multipliers[channel + element]);
    return tte_saturate_grad(value, saturations);
}

/* All ones where the bit that `shift` moves to the top is set, else 0. */
static inline int32_t tte_spread_bit(uint32_t bits, uint32_t shift)
{
    return (int32_t)(bits << shift) >> 31;
}

/* Rows of sums of one channel, to gradients `step` elements apart. The bits of a channel whose
 * step is a multiple of 8 are at the same place of every mask byte. The kernel counts on the order
 * of fields. */
typedef struct {
    const int32_t *sums; /* rows of a multiple of four */
    int8_t *to;
    uint32_t step;
    const uint8_t *mask; /* or NULL */
    int32_t multiplier;
    uint32_t mask_step;
    uint32_t shift;           /* moves the mask bit to the top */
    int32_t rows, count;      /* count: in a row */
    int32_t to_step;          /* from behind a row to the next one */
    int32_t mask_row_step;    /* the same of the mask */
    uint32_t *saturations;
} tte_grads;

void tte_finish_grads(const tte_grads *grads);

/* Gradients of four channels: int16, 127 too much and neither masked nor clamped; each channel's
 * four neighbours are followed by the next channel's. Mask bits of the channels are neighbours. The
 * kernel counts on the order of fields. */
typedef struct {
    int8_t *to;
    uint32_t step; /* bytes from a pixel to the next */
    const uint8_t *mask;
    uint32_t mask_step;
    uint32_t *saturations;
    int32_t fours, tail, rows; /* a row: so many fours of pixels, `tail` more in one that is not full */
    int32_t to_step, mask_row_step; /* from behind a row to the next one */
    const int16_t *from;
    uint32_t shift; /* moves the first channel's mask bit to bit 16 */
} tte_grad_map;

enum { TTE_GRAD_OFFSET = 127 };

void tte_store_grads(const tte_grad_map *map);

/* tte_update_step() of one channel, and 256: (sum * mantissa / 2^32 + half) >> shift. */
enum { TTE_STEP_OFFSET = 256 };

typedef struct {
    int32_t shift, mantissa, half;
} tte_move;

/* Whether it can be written like that. */
static inline int tte_plan_move(tte_factor step, tte_factor rate, tte_move *move)
{
    const int32_t shift = step.exponent + rate.exponent - 31 - 32;
    if (shift < 1 || shift > 21) { /* half is less than 2^30, and the rest no more */
        return 0;
    }
    move->shift = shift;
    move->mantissa = (int32_t)(((int64_t)step.mantissa * rate.mantissa) >> 31);
    /* 1 << (shift - 1) for rounding, and TTE_STEP_OFFSET << shift. */
    move->half = (2 * TTE_STEP_OFFSET + 1) * ((int32_t)1 << (shift - 1));
    return 1;
}

/* A step of four weights and their residuals for every four sums, which have four others after
 * them, up to sums_end or to where a step is no int16: returns which. */
const int32_t *tte_update_fours(int8_t *weight, int8_t *residual, const int32_t *sums,
                                const int32_t *sums_end, const tte_move *move);

/* The same for one sum after the other and any step, up to sums_end. */
void tte_update_run(int8_t *weight, int8_t *residual, const int32_t *sums,
                    const int32_t *sums_end, const tte_move *move);

/* A step of `count` weights and their residuals down their sums, whatever it is. */
static TTE_APART __attribute__((unused)) void
tte_update_plainly(int8_t *weight, int8_t *residual, const int32_t *sums, int32_t count,
                   tte_factor step, tte_factor rate)
{
    for (int32_t i = 0; i < count; i++) {
        tte_update_weight(weight + i, residual + i, sums[i], step, rate);
    }
}

/* The same, fast where it can be. */
static inline void tte_update(int8_t *weight, int8_t *residual, const int32_t *sums,
                              int32_t count, tte_factor step, tte_factor rate)
{
    tte_move move;
    if (tte_plan_move(step, rate, &move)) {
        tte_update_run(weight, residual, sums, sums + count, &move);
    } else {
        tte_update_plainly(weight, residual, sums, count, step, rate);
    }
}

/* to[i] = factor * from[i], `words` a multiple of eight that is not 0. */
void tte_scale_words(int32_t *to, const int32_t *from, uint32_t words, int32_t factor);

#endif
