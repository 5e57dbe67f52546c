/* SPDX-License-Identifier: Apache-2.0
 *
 * runtime_c/src/armv7em/tte_taps.S in C, so that the kernels around it run under sanitizers.
 */
#include "../../runtime_c/src/armv7em/tte_taps.h"

/* `taps` sums of blocks of 4: rows of 4 * stride inputs, tap 0 is `first` columns off. */
static void near(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                 int32_t *sums, int32_t taps, int32_t first, int32_t stride)
{
    for (; rows != end; rows++, sums += taps) {
        const int16_t *x = planes + rows->x / 2, *gradients = planes + rows->gradients / 2;
        memset(sums, 0, (size_t)taps * sizeof *sums);
        for (int32_t i = 0; i < rows->bytes / 2; i++) {
            const int16_t *row = x + i / 4 * 4 * stride;
            for (int32_t tap = 0; tap < taps; tap++) {
                const int32_t at = i % 4 * stride + first + tap;
                if (at >= 0 && at < 4 * stride) {
                    sums[tap] += gradients[i] * row[at % stride * 4 + at / stride];
                }
            }
        }
    }
}

/* Blocks of 8. */
static void far(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                int32_t *sums, int32_t step, int32_t taps, int32_t first)
{
    for (; rows != end; rows++, sums += taps) {
        const int16_t *x = planes + rows->x / 2, *gradients = planes + rows->gradients / 2;
        memset(sums, 0, (size_t)taps * sizeof *sums);
        for (int32_t i = 0; i < rows->bytes / 2; i++) {
            const int16_t *window = x + i / 8 * step / 2 + i % 8 + first;
            for (int32_t tap = 0; tap < taps; tap++) {
                sums[tap] = tte_mla(gradients[i], window[tap], sums[tap]);
            }
        }
    }
}

void tte_taps_near_3(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                     int32_t *sums, int32_t step)
{
    (void)step;
    near(planes, rows, end, sums, 3, -1, 1);
}

void tte_taps_near_5(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                     int32_t *sums, int32_t step)
{
    (void)step;
    near(planes, rows, end, sums, 5, -2, 1);
}

void tte_taps_near_7(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                     int32_t *sums, int32_t step)
{
    (void)step;
    near(planes, rows, end, sums, 7, -3, 1);
}

void tte_taps_near_7_2(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                       int32_t *sums, int32_t step)
{
    (void)step;
    near(planes, rows, end, sums, 7, -3, 2);
}

void tte_taps_3(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                int32_t *sums, int32_t step)
{
    far(planes, rows, end, sums, step, 3, 1);
}

void tte_taps_5(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                int32_t *sums, int32_t step)
{
    far(planes, rows, end, sums, step, 5, 0);
}

void tte_taps_7(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                int32_t *sums, int32_t step)
{
    far(planes, rows, end, sums, step, 7, 1);
}
