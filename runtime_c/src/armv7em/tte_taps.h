/* SPDX-License-Identifier: Apache-2.0
 *
 * Sums of a depthwise weight gradient: for all taps of one kernel row after the other, products of a
 * channel's gradients with its inputs, both planes of int16 (tte_planes.h). Gradients lie in blocks
 * of 4 or 8 columns, row after row, with zeros where the map has no more columns.
 * Source: docs/performance.md.
 */
#ifndef TTE_TAPS_H
#define TTE_TAPS_H

#include "tte_planes.h"

/* A kernel row: where the input and the gradients of its first pair of rows begin in the planes,
 * and how many gradients there are, all in bytes. The kernels count on the order of fields. */
typedef struct {
    int32_t x, gradients, bytes;
} tte_tap_row;

/* Writes so many sums for each kernel row as the name says. */
typedef void (*tte_taps_function)(const int16_t *planes, const tte_tap_row *rows,
                                  const tte_tap_row *end, int32_t *sums, int32_t step);

/* Blocks of 4 gradients, rows of 4 inputs without a border: tap i is -1 + i, -2 + i or -3 + i
 * columns off. Stride 2: rows are the even columns, then the odd ones; tap i is -3 + i off. `step`
 * is not used. */
void tte_taps_near_3(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                     int32_t *sums, int32_t step);
void tte_taps_near_5(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                     int32_t *sums, int32_t step);
void tte_taps_near_7(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                     int32_t *sums, int32_t step);
void tte_taps_near_7_2(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                       int32_t *sums, int32_t step);

/* Blocks of 8 gradients, rows of inputs `step` bytes apart. Tap i is at element 1 + i, of 5 taps at
 * i, where the rows of inputs begin at a word. */
void tte_taps_3(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                int32_t *sums, int32_t step);
void tte_taps_5(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                int32_t *sums, int32_t step);
void tte_taps_7(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                int32_t *sums, int32_t step);

#include "tte_unused.h"

#endif
