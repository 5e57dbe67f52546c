/* SPDX-License-Identifier: Apache-2.0
 *
 * y[oy][ox][c] = activation(sum over the window of (x - zero point)), the multiplier being
 * scale_x / (scale_y * count). The window is clipped to the map; `count` is what is left of it, or
 * the whole window with count_include_pad. x, y NHWC. Four channels at a time: SXTAB16 adds two of
 * them in int16, which holds 256 elements; larger windows are left to the portable kernel. One
 * rounding, half up (not half to even). Source: docs/numerics.md, section 1.
 */
#define tte_avg_pool2d_int8 tte_avg_pool2d_int8_portable
#include "../tte_avg_pool2d_int8.c"
#undef tte_avg_pool2d_int8

#include "tte_dsp.h"

void tte_avg_pool2d_int8(const tte_avg_pool2d_params *params, const int8_t *x,
                         const int32_t *multipliers, int8_t *y);

enum { MAX_ELEMS = 256 }; /* 256 * -128 is the least int16 */

/* What of a window lies on the map: rows x cols elements, `step` and `row_step` int8 apart. */
typedef struct {
    const int8_t *x;
    int32_t rows, cols, step, row_step;
} tte_taps;

/* sums[j] = sum over the taps of channel j, j < 4 */
static inline void sum_4(const tte_taps *taps, int32_t channel, int32_t *sums)
{
    const int8_t *row = taps->x + channel;
    uint32_t even = 0, odd = 0;
    for (int32_t ky = 0; ky < taps->rows; ky++, row += taps->row_step) {
        const int8_t *tap = row;
        for (int32_t kx = 0; kx < taps->cols; kx++, tap += taps->step) {
            const uint32_t word = tte_load_4(tap);
            even = tte_sxtab16(even, word);
            odd = tte_sxtab16_ror8(odd, word);
        }
    }
    sums[0] = (int16_t)(uint16_t)even;
    sums[1] = (int16_t)(uint16_t)odd;
    sums[2] = (int16_t)(uint16_t)(even >> 16);
    sums[3] = (int16_t)(uint16_t)(odd >> 16);
}

static int32_t sum_1(const tte_taps *taps, int32_t channel)
{
    int32_t sum = 0;
    for (int32_t ky = 0; ky < taps->rows; ky++) {
        for (int32_t kx = 0; kx < taps->cols; kx++) {
            sum += taps->x[ky * taps->row_step + kx * taps->step + channel];
        }
    }
    return sum;
}

void tte_avg_pool2d_int8(const tte_avg_pool2d_params *params, const int8_t *x,
                         const int32_t *multipliers, int8_t *y)
{
    const tte_window window = params->window;
    const tte_requant requant = params->requant;
    if (window.kernel_h * window.kernel_w > MAX_ELEMS) {
        tte_avg_pool2d_int8_portable(params, x, multipliers, y);
        return;
    }
    for (int32_t pixel = 0; pixel < window.out_h * window.out_w; pixel++) {
        const int32_t top = pixel / window.out_w * window.stride_h - window.pad_top;
        const int32_t left = pixel % window.out_w * window.stride_w - window.pad_left;
        const tte_range rows = tte_inside(top, window.kernel_h, window.dilation_h, window.in_h);
        const tte_range cols = tte_inside(left, window.kernel_w, window.dilation_w, window.in_w);
        const int32_t iy = top + rows.begin * window.dilation_h;
        const int32_t ix = left + cols.begin * window.dilation_w;
        const tte_taps taps = {x + (iy * window.in_w + ix) * window.in_c, rows.end - rows.begin,
                               cols.end - cols.begin, window.dilation_w * window.in_c,
                               window.dilation_h * window.in_w * window.in_c};
        const int32_t count = taps.rows * taps.cols;
        const int32_t multiplier = multipliers[params->count_include_pad ? 0 : count - 1];
        const int32_t zero = count * requant.input_zero_point;
        int32_t channel = 0, sums[4];

        for (; channel + 4 <= window.out_c; channel += 4) {
            sum_4(&taps, channel, sums);
            for (int32_t j = 0; j < 4; j++) {
                *y++ = tte_activation(sums[j] - zero, multiplier, &requant, NULL, 0);
            }
        }
        for (; channel < window.out_c; channel++) {
            *y++ = tte_activation(sum_1(&taps, channel) - zero, multiplier, &requant, NULL, 0);
        }
    }
}
