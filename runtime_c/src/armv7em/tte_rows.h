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

/* The same for activations: sums, row_end, sums_end are the int8 outputs' places, out_c apart, and
 * sums_step the bytes of a row of them, a multiple of four outputs. Clamped to int8 only. */
typedef struct {
    tte_rows rows;
    int32_t multiplier, zero_point;
    uint32_t out_c;
} tte_rows_int8;

typedef void (*tte_rows_function)(const tte_rows *rows);
typedef void (*tte_rows_int8_function)(const tte_rows_int8 *rows);

/* Three rows of three taps. */
void tte_rows_3x3_1(const tte_rows *rows);
void tte_rows_3x3_2(const tte_rows *rows);
/* Any number of rows; taps, stride. */
void tte_rows_3_1(const tte_rows *rows);
void tte_rows_3_2(const tte_rows *rows);
void tte_rows_5_1(const tte_rows *rows);
void tte_rows_5_2(const tte_rows *rows);
void tte_rows_7_1(const tte_rows *rows);
void tte_rows_7_2(const tte_rows *rows);

void tte_rows_3x3_1_int8(const tte_rows_int8 *rows);
void tte_rows_3x3_2_int8(const tte_rows_int8 *rows);
void tte_rows_3_1_int8(const tte_rows_int8 *rows);
void tte_rows_3_2_int8(const tte_rows_int8 *rows);
void tte_rows_5_1_int8(const tte_rows_int8 *rows);
void tte_rows_5_2_int8(const tte_rows_int8 *rows);
void tte_rows_7_1_int8(const tte_rows_int8 *rows);
void tte_rows_7_2_int8(const tte_rows_int8 *rows);

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
        return rows == 3 ? stride == 1 ? tte_rows_3x3_1 : tte_rows_3x3_2
                         : stride == 1 ? tte_rows_3_1 : tte_rows_3_2;
    case 5:
        return stride == 1 ? tte_rows_5_1 : tte_rows_5_2;
    case 7:
        return stride == 1 ? tte_rows_7_1 : tte_rows_7_2;
    default:
        return NULL;
    }
}

static inline tte_rows_int8_function tte_find_rows_int8(int32_t rows, int32_t taps, int32_t stride)
{
    switch (taps) {
    case 3:
        return rows == 3 ? stride == 1 ? tte_rows_3x3_1_int8 : tte_rows_3x3_2_int8
                         : stride == 1 ? tte_rows_3_1_int8 : tte_rows_3_2_int8;
    case 5:
        return stride == 1 ? tte_rows_5_1_int8 : tte_rows_5_2_int8;
    default:
        return stride == 1 ? tte_rows_7_1_int8 : tte_rows_7_2_int8;
    }
}

/* One kernel row; inlined for each number of taps. */
static inline uint32_t *tte_pack_taps(const int8_t *weight, int32_t taps, int32_t step,
                                      int32_t stride, uint32_t *pairs, int32_t *total)
{
    uint32_t w[TTE_ROWS_MAX_TAPS];
    int32_t sum = *total;
    for (int32_t t = 0; t < taps; t++) {
        w[t] = (uint32_t)weight[t * step];
        sum += weight[t * step];
    }
    for (int32_t t = 0; t + 1 < taps; t += 2) {
        *pairs++ = tte_pkhbt(w[t], w[t + 1]);
    }
    if (stride == 2) {
        *pairs++ = tte_pkhbt(w[taps - 1], 0);
    }
    for (int32_t t = 1; t + 1 < taps && stride == 1; t += 2) {
        *pairs++ = tte_pkhbt(w[t], w[t + 1]);
    }
    *total = sum;
    return pairs;
}

/* The pairs of `count` kernel rows, `row_step` apart, whose taps are `step` apart, 1 or -1.
 * Returns the sum of all weights. */
static inline int32_t tte_pack_rows(const int8_t *weight, int32_t count, int32_t row_step,
                                    int32_t taps, int32_t step, int32_t stride, tte_rows *rows,
                                    uint32_t *pairs)
{
    int32_t total = 0;
    rows->weight = pairs;
    for (; count > 0; count--, weight += row_step) {
        pairs = taps == 3   ? tte_pack_taps(weight, 3, step, stride, pairs, &total)
                : taps == 5 ? tte_pack_taps(weight, 5, step, stride, pairs, &total)
                            : tte_pack_taps(weight, 7, step, stride, pairs, &total);
    }
    rows->weight_end = pairs;
    return total;
}

/* One channel of a map to a plane: `rows` x `cols` pixels, both > 0. The steps lead from behind a
 * row to the next one, in bytes. */
void tte_copy_rows(const int8_t *x, int16_t *to, int32_t cols, int32_t rows, int32_t channels,
                   int32_t x_step, int32_t to_step);

#endif
