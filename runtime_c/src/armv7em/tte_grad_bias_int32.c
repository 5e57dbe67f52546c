/* SPDX-License-Identifier: Apache-2.0
 *
 * sum = sum over positions of grad_output[p][c]; 256 * bias + residual -= round(sum * step *
 * rates[c]), saturated at +-2^38 and split again: bias to nearest, residual in -128..127. Four
 * channels at a time: SXTAB16 adds two of them in int16, which holds 256 positions. A rate of 0
 * marks a channel that is never trained.
 * Source: docs/numerics.md, section 3.
 */
#include "tte_kernels.h"
#include "tte_dsp.h"

enum { POSITIONS = 256 }; /* 256 * -128 is the least int16 */

/* sums[j] = sum over positions of grad[p][j], j < 4 */
static inline void sum_4(const int8_t *grad, uint32_t positions, uint32_t channels, int32_t *sums)
{
    memset(sums, 0, 4 * sizeof *sums);
    while (positions > 0) {
        const uint32_t count = positions < POSITIONS ? positions : POSITIONS;
        const int8_t *const end = grad + count * channels;
        uint32_t even = 0, odd = 0;
        for (const int8_t *const fours = grad + (count & ~3u) * channels; grad != fours;) {
            for (uint32_t i = 0; i < 4; i++, grad += channels) {
                const uint32_t word = tte_load_4(grad);
                even = tte_sxtab16(even, word);
                odd = tte_sxtab16_ror8(odd, word);
            }
        }
        for (; grad != end; grad += channels) {
            const uint32_t word = tte_load_4(grad);
            even = tte_sxtab16(even, word);
            odd = tte_sxtab16_ror8(odd, word);
        }
        sums[0] += (int16_t)(uint16_t)even;
        sums[1] += (int16_t)(uint16_t)odd;
        sums[2] += (int16_t)(uint16_t)(even >> 16);
        sums[3] += (int16_t)(uint16_t)(odd >> 16);
        positions -= count;
    }
}

/* tte_update_step() in 32 bits, if they are enough. */
static inline int step_32(int32_t sum, tte_factor step, tte_factor rate, int32_t *move)
{
    const int32_t mantissa = (int32_t)(((int64_t)step.mantissa * rate.mantissa) >> 31);
    const int32_t shift = step.exponent + rate.exponent - 31;
    if (32 < shift && shift < 62) {
        const int32_t high = (int32_t)(((int64_t)sum * mantissa) >> 32);
        *move = (high + ((int32_t)1 << (shift - 33))) >> (shift - 32);
        return 1;
    }
    if (16 < shift && shift <= 32) {
        const int32_t room = INT32_MAX >> (32 - shift);
        *move = tte_smmulr((int32_t)((uint32_t)sum << (32 - shift)), mantissa);
        return -room <= sum && sum <= room;
    }
    return 0;
}

static inline void update(int32_t *bias, int8_t *residual, int32_t sum, tte_factor step,
                          tte_factor rate)
{
    const int32_t small = (int32_t)1 << 21;
    int32_t move;
    if (-small <= *bias && *bias < small && step_32(sum, step, rate, &move)) {
        const int32_t full = *bias * 256 + *residual - move;
        *bias = (full + 128) >> 8;
        *residual = (int8_t)full;
    } else {
        const int64_t limit = (int64_t)1 << 38;
        int64_t full = (int64_t)*bias * 256 + *residual - tte_update_step(sum, step, rate);
        full = full < -limit ? -limit : full > limit ? limit : full;
        *bias = (int32_t)((full + 128) >> 8);
        *residual = (int8_t)(full - (int64_t)*bias * 256);
    }
}

void tte_grad_bias_int32(const tte_grad_bias_params *params, const int8_t *grad_output,
                         const tte_factor *step, const tte_factor *rates, int32_t *bias,
                         int8_t *residual)
{
    const tte_grad_bias_params p = *params;
    const tte_factor factor = *step;
    int32_t sums[4];

    if (factor.mantissa == 0) {
        return;
    }
    for (uint32_t channel = 0; channel < p.channels; channel++) {
        const uint32_t within = channel % 4;
        if (within == 0 && channel + 4 <= p.channels) {
            sum_4(grad_output + channel, p.positions, p.channels, sums);
        } else if (channel - within + 4 > p.channels) {
            sums[within] = 0;
            for (uint32_t position = 0; position < p.positions; position++) {
                sums[within] += grad_output[position * p.channels + channel];
            }
        }
        if (rates[channel].mantissa != 0) {
            update(bias + channel, residual + channel, sums[within], factor, rates[channel]);
        }
    }
}
