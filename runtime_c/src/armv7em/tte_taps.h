/* SPDX-License-Identifier: Apache-2.0
 *
 * Sums of a depthwise weight gradient: for all taps of one kernel row after the other, products of
 * a channel's gradients with its inputs, both planes of int16 (tte_planes.h). Gradients lie in
 * blocks of 4 or 8 columns, row after row, with zeros where the map has no more columns. For a
 * stride of 2 the inputs of columns 1 and 2 of four have changed places, so that words are two even
 * or two odd columns. Source: docs/performance.md.
 */
#ifndef TTE_TAPS_H
#define TTE_TAPS_H

#include "tte_planes.h"

/* A kernel row: where the input and the gradients of its first pair of rows begin in the planes,
 * and how many gradients of a block there are, all in bytes. The kernels count on the order of
 * fields. */
typedef struct {
    int32_t x, gradients, bytes;
} tte_tap_row;

/* Blocks of 8: bytes from the inputs of a pair of rows to the next, blocks, bytes from a block of
 * gradients to the next. The kernels count on the order of fields. */
typedef struct {
    int32_t step, count, bytes;
} tte_tap_blocks;

/* Writes so many sums for each kernel row as the name says: of the taps from 1, 2 or 3 columns to
 * the left up to as many to the right. */
typedef void (*tte_taps_function)(const int16_t *planes, const tte_tap_row *rows,
                                  const tte_tap_row *end, int32_t *sums,
                                  const tte_tap_blocks *blocks);

/* One block of 4 columns, inputs of as many without a border. `blocks` is not used. The last three:
 * stride 2 both ways, all rows of inputs. */
void tte_taps_near_3(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                     int32_t *sums, const tte_tap_blocks *blocks);
void tte_taps_near_5(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                     int32_t *sums, const tte_tap_blocks *blocks);
void tte_taps_near_7(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                     int32_t *sums, const tte_tap_blocks *blocks);
void tte_taps_near_3_2(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                       int32_t *sums, const tte_tap_blocks *blocks);
void tte_taps_near_5_2(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                       int32_t *sums, const tte_tap_blocks *blocks);
void tte_taps_near_7_2(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                       int32_t *sums, const tte_tap_blocks *blocks);

/* Blocks of 8; the inputs begin 2 columns (of 7 taps and a stride of 1: 4) to the left of the first
 * gradient, of a stride of 2 twice as many. */
void tte_taps_3(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                int32_t *sums, const tte_tap_blocks *blocks);
void tte_taps_5(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                int32_t *sums, const tte_tap_blocks *blocks);
void tte_taps_7(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                int32_t *sums, const tte_tap_blocks *blocks);
void tte_taps_3_2(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                  int32_t *sums, const tte_tap_blocks *blocks);
void tte_taps_5_2(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                  int32_t *sums, const tte_tap_blocks *blocks);
void tte_taps_7_2(const int16_t *planes, const tte_tap_row *rows, const tte_tap_row *end,
                  int32_t *sums, const tte_tap_blocks *blocks);

/* As tte_copy_channel() and tte_copy_four_channels(), to inputs of a stride of 2. A row that is no
 * multiple of four ends at the next one. */
void tte_taps_split_channel(const tte_copy *copy);
void tte_taps_split_four_channels(const tte_copy *copy);

#include "tte_unused.h"

#endif
