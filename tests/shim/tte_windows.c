/* SPDX-License-Identifier: Apache-2.0
 *
 * runtime_c/src/armv7em/tte_windows.S in C, so that the kernels around it run under sanitizers.
 */
#include "../../runtime_c/src/armv7em/tte_windows.h"

typedef enum { INT8, MASKED_INT8, GRAD } finish_mode;

/* The whole pairs that the assembly reads of a row, the first tap in one of the first two. */
static int32_t window_sum(const tte_windows *windows, const int16_t *x, int32_t taps,
                          int32_t stride, int32_t place, const int8_t *weight)
{
    const int32_t count = (3 * stride + taps + taps / 2 % 2 + 1) & ~1;
    int32_t sum = 0;
    for (int32_t row = 0; row < taps; row++, x += windows->row_bytes / 2) {
        int16_t values[16];
        memcpy(values, x, (size_t)count * sizeof *values);
        for (int32_t t = 0; t < taps; t++) {
            sum += *weight++ * values[taps / 2 % 2 + place * stride + t];
        }
    }
    return sum;
}

static int8_t finish(const tte_windows *windows, int32_t sum, int32_t channel, finish_mode mode,
                     uint8_t *bits)
{
    const int32_t value = tte_smmlar(windows->biases[channel] + sum,
                                     windows->multipliers[channel], windows->zero_point);
    if (mode == MASKED_INT8 && value == tte_ssat8(value)) {
        *bits = (uint8_t)(*bits | windows->bit << channel);
    }
    return (int8_t)tte_ssat8(value);
}

/* Where the next four gradients go. */
static void finish_grads(const tte_windows *windows, const int32_t *sums, int32_t channel,
                         int8_t *to)
{
    int16_t values[4];
    for (int32_t i = 0; i < 4; i++) {
        values[i] = (int16_t)(uint16_t)tte_smmlar(sums[i], windows->multipliers[channel],
                                                  windows->zero_point);
    }
    memcpy(to, values, sizeof values);
}

/* One row of pairs, of the even columns or of the odd ones: the taps in order, behind the pairs. */
static const uint32_t *unpack(const uint32_t *pairs, int32_t count, int32_t *taps)
{
    taps[0] = tte_high(pairs[0]);
    taps[1] = tte_low(pairs[0]);
    taps[2] = count == 4 ? tte_high(pairs[1]) : tte_low(pairs[1]);
    taps[3] = count == 4 ? tte_low(pairs[2]) : 0;
    return pairs + count - 1;
}

/* Eight neighbours of a row. */
static const uint32_t *strided_row(const tte_windows *windows, const int16_t *x, int32_t kernel,
                                   int32_t rows, int32_t channel, const uint32_t *pairs,
                                   int8_t *to)
{
    int32_t sums[8] = {0};
    for (int32_t column = 0; column < 2; column++) {
        for (int32_t row = 0; row < rows; row++) {
            int32_t taps[4];
            int16_t values[8];
            pairs = unpack(pairs, column == 1 && kernel == 7 ? 4 : 3, taps);
            memcpy(values, x + row * (int32_t)(windows->row_bytes / 2), sizeof values);
            for (int32_t i = 0; i < 4; i++) {
                for (int32_t t = 0; t < 4 && 1 + i + t < 8; t++) {
                    sums[2 * i + column] += taps[t] * values[1 + i + t];
                }
            }
        }
    }
    finish_grads(windows, sums, channel, to);
    finish_grads(windows, sums + 4, channel, to + 32);
    return pairs;
}

static void run_strided(const tte_windows *windows, int32_t kernel)
{
    for (int32_t channel = 0; channel < (int32_t)windows->channels; channel++) {
        const int8_t *weight = windows->weight + channel * windows->weight_step;
        const int16_t *x = windows->x + channel * (int32_t)(windows->plane_bytes / 2);
        int8_t *to = windows->y + 8 * channel, *const end = to + windows->y_bytes;
        while (to != end) {
            for (int8_t *row_end = to + windows->row; to != row_end; to += 64) {
                const uint32_t *pairs = (const uint32_t *)(const void *)weight;
                pairs = strided_row(windows, x, kernel, kernel / 2 + 1, channel, pairs, to);
                x += windows->between / 2;
                strided_row(windows, x, kernel, kernel / 2, channel, pairs,
                            to + (int32_t)windows->step);
                x += windows->x_next / 2;
            }
            x += windows->x_step / 2;
            to += windows->y_step;
        }
    }
}

static void run(const tte_windows *windows, int32_t taps, int32_t stride, finish_mode mode)
{
    for (int32_t channel = 0; channel < (int32_t)windows->channels; channel++) {
        const int8_t *weight = windows->weight + channel * windows->weight_step;
        int8_t turned[49];
        for (int32_t i = 0; i < taps * taps && mode == GRAD; i++) {
            turned[i] = weight[taps * taps - 1 - i];
        }
        weight = mode == GRAD ? turned : weight;
        const int16_t *x = windows->x + channel * (int32_t)(windows->plane_bytes / 2);
        int8_t *to = windows->y + (mode == GRAD ? 8 : 1) * channel;
        int8_t *const end = to + windows->y_bytes;
        uint8_t *bits = windows->mask;
        const int32_t down = (taps - 1) * (int32_t)(windows->row_bytes / 2);
        while (to != end) {
            for (int8_t *row_end = to + windows->row; to != row_end;) {
                int32_t sums[4];
                for (int32_t i = 0; i < 4; i++) {
                    sums[i] = window_sum(windows, x, taps, stride, i, weight);
                }
                if (mode == GRAD) {
                    finish_grads(windows, sums, channel, to);
                    to += windows->step;
                }
                for (int32_t i = 0; i < 4 && mode != GRAD; i++, to += windows->step) {
                    *to = finish(windows, sums[i], channel, mode, bits);
                    bits += mode != INT8;
                }
                x += down + windows->x_next / 2;
            }
            x += windows->x_step / 2;
            to += windows->y_step;
        }
    }
}

void tte_windows_3x3_1_int8(const tte_windows *windows)
{
    run(windows, 3, 1, INT8);
}

void tte_windows_3x3_2_int8(const tte_windows *windows)
{
    run(windows, 3, 2, INT8);
}

void tte_windows_5x5_1_int8(const tte_windows *windows)
{
    run(windows, 5, 1, INT8);
}

void tte_windows_5x5_2_int8(const tte_windows *windows)
{
    run(windows, 5, 2, INT8);
}

void tte_windows_7x7_1_int8(const tte_windows *windows)
{
    run(windows, 7, 1, INT8);
}

void tte_windows_7x7_2_int8(const tte_windows *windows)
{
    run(windows, 7, 2, INT8);
}

void tte_windows_3x3_1_masked_int8(const tte_windows *windows)
{
    run(windows, 3, 1, MASKED_INT8);
}

void tte_windows_3x3_2_masked_int8(const tte_windows *windows)
{
    run(windows, 3, 2, MASKED_INT8);
}

void tte_windows_5x5_1_masked_int8(const tte_windows *windows)
{
    run(windows, 5, 1, MASKED_INT8);
}

void tte_windows_5x5_2_masked_int8(const tte_windows *windows)
{
    run(windows, 5, 2, MASKED_INT8);
}

void tte_windows_7x7_1_masked_int8(const tte_windows *windows)
{
    run(windows, 7, 1, MASKED_INT8);
}

void tte_windows_7x7_2_masked_int8(const tte_windows *windows)
{
    run(windows, 7, 2, MASKED_INT8);
}

void tte_windows_3x3_1_grad(const tte_windows *windows)
{
    run(windows, 3, 1, GRAD);
}

void tte_windows_5x5_1_grad(const tte_windows *windows)
{
    run(windows, 5, 1, GRAD);
}

void tte_windows_7x7_1_grad(const tte_windows *windows)
{
    run(windows, 7, 1, GRAD);
}

void tte_windows_3x3_2_grad(const tte_windows *windows)
{
    run_strided(windows, 3);
}

void tte_windows_5x5_2_grad(const tte_windows *windows)
{
    run_strided(windows, 5);
}

void tte_windows_7x7_2_grad(const tte_windows *windows)
{
    run_strided(windows, 7);
}
