/* SPDX-License-Identifier: Apache-2.0
 *
 * runtime_c/src/armv7em/tte_taps.S in C, so that the kernels around it run under sanitizers.
 */
#include "../../runtime_c/src/armv7em/tte_taps.h"

/* The element of column `column` in a row of inputs. */
static int32_t element(int32_t column, int32_t stride)
{
    static const int32_t places[] = {0, 2, 1, 3};
    return stride == 1 ? column : column / 4 * 4 + places[column % 4];
}

/* `taps` sums of blocks of 4. */
static void near(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                 int32_t *sums, int32_t taps, int32_t stride)
{
    for (; rows != end; rows++, sums += taps) {
        const int16_t *x = planes + rows->x / 2, *gradients = planes + rows->gradients / 2;
        memset(sums, 0, (size_t)taps * sizeof *sums);
        for (int32_t i = 0; i < rows->bytes / 2; i++) {
            const int16_t *row = x + i / 4 * 4 * stride * stride;
            for (int32_t tap = 0; tap < taps; tap++) {
                const int32_t column = i % 4 * stride - taps / 2 + tap;
                if (column >= 0 && column < 4 * stride) {
                    sums[tap] += gradients[i] * row[element(column, stride)];
                }
            }
        }
    }
}

/* The same of blocks of 8; inputs begin `left` columns to the left. */
static void far(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                int32_t *sums, const tte_tap_blocks *blocks, int32_t taps, int32_t stride,
                int32_t left)
{
    for (; rows != end; rows++, sums += taps) {
        memset(sums, 0, (size_t)taps * sizeof *sums);
        for (int32_t block = 0; block < blocks->count; block++) {
            const int16_t *x = planes + rows->x / 2 + block * 8 * stride;
            const int16_t *gradients = planes + (rows->gradients + block * blocks->bytes) / 2;
            for (int32_t i = 0; i < rows->bytes / 2; i++) {
                const int16_t *row = x + i / 8 * blocks->step / 2;
                for (int32_t tap = 0; tap < taps; tap++) {
                    const int32_t column = i % 8 * stride - taps / 2 + tap + left;
                    sums[tap] = tte_mla(gradients[i], row[element(column, stride)], sums[tap]);
                }
            }
        }
    }
}

void tte_taps_near_3(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                     int32_t *sums, const tte_tap_blocks *blocks)
{
    (void)blocks;
    near(planes, rows, end, sums, 3, 1);
}

void tte_taps_near_5(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                     int32_t *sums, const tte_tap_blocks *blocks)
{
    (void)blocks;
    near(planes, rows, end, sums, 5, 1);
}

void tte_taps_near_7(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                     int32_t *sums, const tte_tap_blocks *blocks)
{
    (void)blocks;
    near(planes, rows, end, sums, 7, 1);
}

void tte_taps_near_3_2(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                       int32_t *sums, const tte_tap_blocks *blocks)
{
    (void)blocks;
    near(planes, rows, end, sums, 3, 2);
}

void tte_taps_near_5_2(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                       int32_t *sums, const tte_tap_blocks *blocks)
{
    (void)blocks;
    near(planes, rows, end, sums, 5, 2);
}

void tte_taps_near_7_2(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                       int32_t *sums, const tte_tap_blocks *blocks)
{
    (void)blocks;
    near(planes, rows, end, sums, 7, 2);
}

void tte_taps_3(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                int32_t *sums, const tte_tap_blocks *blocks)
{
    far(planes, rows, end, sums, blocks, 3, 1, 2);
}

void tte_taps_5(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                int32_t *sums, const tte_tap_blocks *blocks)
{
    far(planes, rows, end, sums, blocks, 5, 1, 2);
}

void tte_taps_7(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                int32_t *sums, const tte_tap_blocks *blocks)
{
    far(planes, rows, end, sums, blocks, 7, 1, 4);
}

void tte_taps_3_2(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                  int32_t *sums, const tte_tap_blocks *blocks)
{
    far(planes, rows, end, sums, blocks, 3, 2, 4);
}

void tte_taps_5_2(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                  int32_t *sums, const tte_tap_blocks *blocks)
{
    far(planes, rows, end, sums, blocks, 5, 2, 4);
}

void tte_taps_7_2(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                  int32_t *sums, const tte_tap_blocks *blocks)
{
    far(planes, rows, end, sums, blocks, 7, 2, 4);
}

void tte_taps_split_channel(const tte_copy *copy)
{
    const int8_t *x = copy->x;
    int16_t *to = copy->to;
    for (int32_t row = 0; row < copy->rows; row++, x += copy->x_step, to += copy->to_step / 2) {
        for (int32_t i = 0; i < copy->cols; i++, x += copy->channels) {
            to[element(i, 2)] = (int16_t)(*x - copy->zero_point);
        }
        to += (copy->cols + 3) / 4 * 4;
    }
}

void tte_taps_split_four_channels(const tte_copy *copy)
{
    tte_copy one = *copy;
    for (int32_t i = 0; i < 4; i++, one.x++, one.to += one.plane_bytes / 2) {
        tte_taps_split_channel(&one);
    }
}
