/* SPDX-License-Identifier: Apache-2.0
 *
 * Rounding and saturation, the same on every machine. All shifts of signed numbers are
 * arithmetic (floor), as on every compiler this runtime supports; "nearest" rounds half up.
 * Source: docs/numerics.md, sections 1 to 3.
 */
#ifndef TTE_REQUANT_H
#define TTE_REQUANT_H

#include <string.h>

#include "tte_types.h"

static inline int32_t tte_clamp(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* round(acc * 2^pre_shift * multiplier / 2^32), one rounding. |acc| < 2^31, multiplier in
 * [0, 2^31). With pre_shift = 0 this is Armv7E-M's SMMULR. */
static inline int32_t tte_requantize(int32_t acc, int32_t multiplier, uint8_t pre_shift)
{
    const unsigned shift = 32u - pre_shift;
    const int64_t value = ((int64_t)acc * multiplier + ((int64_t)1 << (shift - 1))) >> shift;
    return (int32_t)(value < INT32_MIN ? INT32_MIN : value > INT32_MAX ? INT32_MAX : value);
}

/* round((acc * multiplier + addend * addend_multiplier) * 2^pre_shift / 2^32), one rounding,
 * saturated to [-127, 127]; *saturations counts the values that did not fit. */
static inline int8_t tte_requantize_grad(int32_t acc, int32_t multiplier, int32_t addend,
                                         int32_t addend_multiplier, uint8_t pre_shift,
                                         uint32_t *saturations)
{
    const unsigned shift = 32u - pre_shift;
    const int64_t sum = (int64_t)acc * multiplier + (int64_t)addend * addend_multiplier;
    const int64_t value = (sum + ((int64_t)1 << (shift - 1))) >> shift;
    if (value < -127 || value > 127) {
        ++*saturations;
        return value < 0 ? -127 : 127;
    }
    return (int8_t)value;
}

static inline int tte_mask_get(const uint8_t *mask, uint32_t index)
{
    return (mask[index >> 3] >> (index & 7)) & 1;
}

static inline void tte_mask_or(uint8_t *mask, uint32_t index, unsigned bit)
{
    mask[index >> 3] = (uint8_t)(mask[index >> 3] | bit << (index & 7));
}

static inline void tte_mask_set(uint8_t *mask, uint32_t index)
{
    tte_mask_or(mask, index, 1);
}

/* Bits begin .. end-1, begin a multiple of 8; the rest of the last byte is cleared too. */
static inline void tte_mask_clear(uint8_t *mask, uint32_t begin, uint32_t end)
{
    memset(mask + begin / 8, 0, (end - begin + 7) / 8);
}

/* y of one accumulator; sets its bit of a cleared mask when it is not clamped. No branch asks for
 * that, which nobody could foretell, and 64 bits are clamped at once. */
static inline int8_t tte_activation(int32_t acc, int32_t multiplier, const tte_requant *requant,
                                    uint8_t *mask, uint32_t index)
{
    const unsigned shift = 32u - requant->pre_shift;
    const int64_t value = ((int64_t)acc * multiplier + ((int64_t)1 << (shift - 1))) >> shift;
    const int32_t low = requant->act_min - requant->output_zero_point;
    const int32_t high = requant->act_max - requant->output_zero_point;
    const int64_t clamped = value < low ? low : value > high ? high : value;
    if (mask != NULL) {
        tte_mask_or(mask, index, value == clamped);
    }
    return (int8_t)(clamped + requant->output_zero_point);
}

/* grad_input of one accumulator: 0, and never a saturation, where the mask bit is 0. */
static inline int8_t tte_grad_value(int32_t acc, int32_t multiplier, const int8_t *addend,
                                    const int32_t *addend_multipliers, uint32_t channel,
                                    const uint8_t *mask, uint32_t index, uint8_t pre_shift,
                                    uint32_t *saturations)
{
    if (mask != NULL && !tte_mask_get(mask, index)) {
        return 0;
    }
    return tte_requantize_grad(acc, multiplier, addend != NULL ? addend[index] : 0,
                               addend != NULL ? addend_multipliers[channel] : 0, pre_shift,
                               saturations);
}

/* round(sum * step * rate) in units of 2^-8 quanta; the product of the factors is cut to 31 bits.
 * Saturates at +-2^30, also when that product is 2^29 or more. Both factors are positive. */
static inline int32_t tte_update_step(int32_t sum, tte_factor step, tte_factor rate)
{
    const int32_t mantissa = (int32_t)(((int64_t)step.mantissa * rate.mantissa) >> 31);
    const int32_t shift = step.exponent + rate.exponent - 31;
    const int64_t product = (int64_t)sum * mantissa;
    const int64_t limit = (int64_t)1 << 30;
    if (shift > 62) {
        return 0;
    }
    if (shift < 1) {
        return product == 0 ? 0 : product < 0 ? (int32_t)-limit : (int32_t)limit;
    }
    const int64_t value = (product + ((int64_t)1 << (shift - 1))) >> shift;
    return (int32_t)(value < -limit ? -limit : value > limit ? limit : value);
}

/* One weight and its residual, together 8.8 fixed point, after one step down its gradient. */
static inline void tte_update_weight(int8_t *weight, int8_t *residual, int32_t sum,
                                     tte_factor step, tte_factor rate)
{
    const int32_t full = tte_clamp(*weight * 256 + *residual - tte_update_step(sum, step, rate),
                                   -127 * 256, 127 * 256 + 127);
    const int32_t nearest = (full + 128) >> 8;
    *weight = (int8_t)nearest;
    *residual = (int8_t)(full - nearest * 256);
}

#endif
