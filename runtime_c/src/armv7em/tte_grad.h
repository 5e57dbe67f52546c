/* SPDX-License-Identifier: Apache-2.0
 *
 * The last step of the kernels that write a gradient: requantize_grad() of one channel's sums in
 * 32 bits, for sums that stay below 2^31 when they are shifted left by pre_shift first.
 */
#ifndef TTE_GRAD_H
#define TTE_GRAD_H

#include "tte_dsp.h"

/* What the channels of one call share, and where they begin. */
typedef struct {
    const int32_t *multipliers;
    const int8_t *addend;
    const int32_t *addend_multipliers;
    const uint8_t *mask;
    int8_t *grad_input;
    uint32_t *saturations;
    uint32_t channels;
    uint8_t pre_shift;
} tte_grad_output;

/* Whether sums of `count` products of int8, shifted, have 31 bits. */
static inline int tte_grad_fits(int32_t count, uint8_t pre_shift)
{
    return count < (1 << 16) && pre_shift < 15 && count << pre_shift < (1 << 16);
}

static inline int8_t tte_grad_saturate(int32_t value, uint32_t *saturations)
{
    if ((uint32_t)(value + 127) > 254) {
        ++*saturations;
        value = value < 0 ? -127 : 127;
    }
    return (int8_t)value;
}

/* round((sum * multiplier + addend * addend_multiplier) / 2^32) */
static inline int32_t tte_grad_add_scaled(int32_t sum, int32_t multiplier, int32_t addend,
                                          int32_t addend_multiplier)
{
    const int64_t total = (int64_t)sum * multiplier + (int64_t)addend * addend_multiplier;
    return (int32_t)((total + ((int64_t)1 << 31)) >> 32);
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
                       : tte_grad_add_scaled(sum * scale, multiplier, addend[element] * scale,
                                             addend_multipliers[channel + element]);
    return tte_grad_saturate(value, saturations);
}

/* grad_input[pixel + i][channel], i < count. Four sums are followed by a gap of `gap` others. */
static inline void tte_grad_store(const tte_grad_output *output, const int32_t *sums, int32_t count,
                                  int32_t gap, uint32_t pixel, uint32_t channel)
{
    const uint32_t channels = output->channels;
    const uint8_t pre_shift = output->pre_shift;
    const int32_t multiplier = output->multipliers[channel];
    uint32_t index = pixel * channels + channel;
    uint32_t saturations = *output->saturations;
    int8_t *to = output->grad_input + index;

    if (output->mask != NULL && channels % 8 != 0) {
        for (int32_t i = 0; i < count; i++, index += channels) {
            output->grad_input[index] = tte_grad_value(
                sums[i + i / 4 * gap], multiplier, output->addend, output->addend_multipliers,
                channel, output->mask, index, pre_shift, &saturations);
        }
    } else if (output->addend != NULL) {
        const int8_t *addend = output->addend + index;
        const int32_t addend_multiplier = output->addend_multipliers[channel];
        for (int32_t i = 0; i < count; i++, index += channels) {
            int8_t value = 0;
            if (output->mask == NULL || tte_mask_get(output->mask, index)) {
                value = tte_grad_saturate(
                    tte_grad_add_scaled(sums[i + i / 4 * gap] * (1 << pre_shift), multiplier,
                                        *addend * (1 << pre_shift), addend_multiplier),
                    &saturations);
            }
            *to = value;
            addend += channels;
            to += channels;
        }
    } else if (output->mask != NULL) {
        const uint8_t *mask = output->mask + index / 8;
        const uint32_t bit = 1u << (index & 7);
        for (; count > 0; count -= 4, sums += 4 + gap) {
            for (int32_t i = 0; i < 4 && i < count; i++, mask += channels / 8, to += channels) {
                *to = 0;
                if ((*mask & bit) != 0) {
                    *to = tte_grad_saturate(tte_smmulr(sums[i] * (1 << pre_shift), multiplier),
                                            &saturations);
                }
            }
        }
    } else {
        for (; count > 0; count -= 4, sums += 4 + gap) {
            for (int32_t i = 0; i < 4 && i < count; i++, to += channels) {
                *to = tte_grad_saturate(tte_smmulr(sums[i] * (1 << pre_shift), multiplier),
                                        &saturations);
            }
        }
    }
    *output->saturations = saturations;
}

#endif
