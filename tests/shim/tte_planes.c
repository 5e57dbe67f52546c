/* SPDX-License-Identifier: Apache-2.0
 *
 * runtime_c/src/armv7em/tte_planes.S in C, so that the kernels around it run under sanitizers.
 */
#include "../../runtime_c/src/armv7em/tte_planes.h"

void tte_copy_channel(const tte_copy *copy)
{
    const int8_t *x = copy->x;
    int16_t *to = copy->to;
    for (int32_t row = 0; row < copy->rows; row++, x += copy->x_step, to += copy->to_step / 2) {
        for (int32_t i = 0; i < copy->cols; i++, x += copy->channels) {
            *to++ = (int16_t)(*x - copy->zero_point);
        }
    }
}

/* Pairs, at words. */
void tte_copy_four_channels(const tte_copy *copy)
{
    const int8_t *x = copy->x;
    const int32_t zero_points = (int32_t)tte_both(-copy->zero_point);
    int16_t *to = copy->to;
    for (int32_t row = 0; row < copy->rows; row++, x += copy->x_step, to += copy->to_step / 2) {
        for (int32_t i = 0; i < copy->cols; i++, x += copy->channels) {
            const uint32_t even = tte_sxtab16((uint32_t)zero_points, tte_load_4(x));
            const uint32_t odd = tte_sxtab16_ror8((uint32_t)zero_points, tte_load_4(x));
            const uint32_t values[4] = {even, odd, even >> 16, odd >> 16};
            for (uint32_t channel = 0; channel < 4; channel++) {
                *(to + channel * (copy->plane_bytes / 2)) = (int16_t)(uint16_t)values[channel];
            }
            to++;
        }
    }
}

void tte_clear_words(void *to, uint32_t words)
{
    memset(to, 0, 4 * (size_t)words);
}

void tte_move_words(void *to, const void *from, uint32_t words)
{
    memmove(to, from, 4 * (size_t)words);
}
