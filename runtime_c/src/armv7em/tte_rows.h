/* SPDX-License-Identifier: Apache-2.0
 *
 * Sums of the windows over one channel, for the depthwise convolution and its gradient.
 *   x       a plane of int16 with its border, rows of an even length that begin at a word
 *   weight  a kernel row in int16 pairs. Stride 1: (0, 1), (2, 3), ... (k-3, k-2), then (1, 2),
 *           (3, 4), ... (k-2, k-1), k - 1 words; stride 2: (0, 1), ... (k-1, 0), (k + 1) / 2 words
 *   sums    int32, rows of a multiple of four
 */
#ifndef TTE_ROWS_H
#define TTE_ROWS_H

#include "tte_dsp.h"

/* One call: output rows whose sums end at sums_end. The kernels count on the order of fields. */
typedef struct {
    const int16_t *x;                    /* under the first output */
    const uint32_t *weight, *weight_end; /* of the kernel rows in use */
    uint32_t row_bytes;                  /* from a row of x to the next */
    int32_t start;                       /* what every sum starts with */
    int32_t *sums, *row_end;             /* of the first output row */
    int32_t x_step;                      /* bytes from behind a row's windows to the next row's */
    uint32_t sums_step;                  /* bytes of a row of sums */
    int32_t *sums_end;
} tte_rows;

typedef void (*tte_rows_function)(const tte_rows *rows);

/* Any number of rows; taps, stride. */
void tte_rows_3_1(const tte_rows *rows);
void tte_rows_3_2(const tte_rows *rows);
void tte_rows_5_1(const tte_rows *rows);
void tte_rows_5_2(const tte_rows *rows);
void tte_rows_7_1(const tte_rows *rows);
void tte_rows_7_2(const tte_rows *rows);

/* TTE_ROWS_SUMS: room for sums, at least; more rows than one in a call where they are short. */
enum { TTE_ROWS_MAX_TAPS = 7, TTE_ROWS_MAX_WORDS = 6, TTE_ROWS_SUMS = 64 };

/* The one for a kernel of `rows` x `taps`, NULL where there is none. */
static inline tte_rows_function tte_find_rows(int32_t rows, int32_t taps, int32_t stride)
{
    if (rows > TTE_ROWS_MAX_TAPS || stride > 2) {
        return NULL;
    }
    switch (taps) {
    case 3:
        return stride == 1 ? tte_rows_3_1 : tte_rows_3_2;
    case 5:
        return stride == 1 ? tte_rows_5_1 : tte_rows_5_2;
    case 7:
        return stride == 1 ? tte_rows_7_1 : tte_rows_7_2;
    default:
        return NULL;
    }
}

/* The pairs of `count` kernel rows. */
static inline void tte_pack_rows(const int8_t *weight, int32_t count, int32_t taps, int32_t stride,
                                 tte_rows *rows, uint32_t *pairs)
{
    rows->weight = pairs;
    for (; count > 0; count--, weight += taps) {
        for (int32_t t = 0; t + 1 < taps; t += 2) {
            *pairs++ = tte_pkhbt((uint32_t)weight[t], (uint32_t)weight[t + 1]);
        }
        if (stride == 2) {
            *pairs++ = tte_pkhbt((uint32_t)weight[taps - 1], 0);
        }
        for (int32_t t = 1; t + 1 < taps && stride == 1; t += 2) {
            *pairs++ = tte_pkhbt((uint32_t)weight[t], (uint32_t)weight[t + 1]);
        }
    }
    rows->weight_end = pairs;
}

#endif
