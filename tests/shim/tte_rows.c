/* SPDX-License-Identifier: Apache-2.0
 *
 * runtime_c/src/armv7em/tte_rows.S in C, so that the kernels around it run under sanitizers.
 */
#include "../../runtime_c/src/armv7em/tte_rows.h"

/* The same words of x as the assembly reads: a multiple of four outputs, whole pairs. */
static void run(const tte_rows *rows, int32_t taps, int32_t stride)
{
    const int16_t *x = rows->x;
    int32_t *sums = rows->sums, *row_end = rows->row_end;
    const int32_t words = stride == 1 ? taps - 1 : (taps + 1) / 2;

    while (sums != rows->sums_end) {
        for (; sums != row_end; sums += 4, x += 4 * stride) {
            const int16_t *row = x;
            for (int32_t i = 0; i < 4; i++) {
                sums[i] = rows->start;
            }
            for (const uint32_t *w = rows->weight; w != rows->weight_end; w += words) {
                uint32_t pairs[7];
                memcpy(pairs, row, (size_t)((4 * stride + taps - stride + 1) / 2) * 4);
                const int16_t *values = (const int16_t *)pairs;
                for (int32_t i = 0; i < 4; i++) {
                    for (int32_t t = 0; t < taps; t++) {
                        const int last = t == taps - 1 && stride == 1;
                        const uint32_t pair = last ? w[words - 1] >> 16 : w[t / 2] >> (t % 2 * 16);
                        sums[i] += (int16_t)(uint16_t)pair * values[i * stride + t];
                    }
                }
                row += rows->row_bytes / 2;
            }
        }
        x += rows->x_step / 2;
        row_end += rows->sums_step / 4;
    }
}

void tte_rows_3_1(const tte_rows *rows)
{
    run(rows, 3, 1);
}

void tte_rows_3_2(const tte_rows *rows)
{
    run(rows, 3, 2);
}

void tte_rows_5_1(const tte_rows *rows)
{
    run(rows, 5, 1);
}

void tte_rows_5_2(const tte_rows *rows)
{
    run(rows, 5, 2);
}

void tte_rows_7_1(const tte_rows *rows)
{
    run(rows, 7, 1);
}

void tte_rows_7_2(const tte_rows *rows)
{
    run(rows, 7, 2);
}
