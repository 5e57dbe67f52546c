/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a sliding window meets the map. Along one axis, tap k of output o reads input
 * o * stride - pad + k * dilation; padding contributes 0 everywhere, so taps outside are skipped.
 */
#ifndef TTE_WINDOW_H
#define TTE_WINDOW_H

#include "tte_types.h"

/* begin .. end-1 */
typedef struct {
    int32_t begin, end;
} tte_range;

/* Steps that cover a distance. A division is slow, on some machines a call. */
static inline int32_t tte_steps(int32_t distance, int32_t step)
{
    return step == 1 ? distance : (distance + step - 1) / step;
}

/* The k of 0 .. count-1 with 0 <= origin + k * step < size: the taps of one output that lie on
 * the map (step = dilation), or the outputs that one tap serves (step = stride). */
static inline tte_range tte_inside(int32_t origin, int32_t count, int32_t step, int32_t size)
{
    const int32_t begin = origin < 0 ? tte_steps(-origin, step) : 0;
    const int32_t end = origin < size ? tte_steps(size - origin, step) : 0;
    const int32_t last = end < count ? end : count;
    const tte_range range = {begin, last < begin ? begin : last};
    return range;
}

/* Where a row lies: a map of which only the last `ring` rows exist keeps row i at i % ring. */
static inline int32_t tte_ring_row(int32_t row, uint16_t ring)
{
    return ring == 0 ? row : row % ring;
}

/* Whether every output sees one position of the map, the same as its own. */
static inline int tte_is_pointwise(const tte_window *window)
{
    return window->kernel_h == 1 && window->kernel_w == 1 && window->stride_h == 1 &&
           window->stride_w == 1 && window->pad_top == 0 && window->pad_left == 0 &&
           window->in_h == window->out_h && window->in_w == window->out_w;
}

/* The output o with o * stride == position and o < count, or -1. */
static inline int32_t tte_output_at(int32_t position, int32_t stride, int32_t count)
{
    return position >= 0 && position % stride == 0 && position / stride < count
               ? position / stride
               : -1;
}

#endif
