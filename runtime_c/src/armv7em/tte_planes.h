/* SPDX-License-Identifier: Apache-2.0
 *
 * What the depthwise kernels look at: channels of an NHWC map, each a plane of int16 with a border
 * of zeros, less the zero point. Rows of a plane have an even length and begin at a word. Four
 * channels are copied at once where there is room for four planes.
 */
#ifndef TTE_PLANES_H
#define TTE_PLANES_H

#include "tte_dsp.h"

/* Channels of a map, `rows` x `cols` pixels, both > 0. The steps lead from behind a row to the
 * next one, in bytes. The kernels count on the order of fields. */
typedef struct {
    const int8_t *x;
    int16_t *to;
    uint32_t channels;    /* of the map */
    uint32_t plane_bytes; /* from a channel's plane to the next */
    int32_t zero_point;
    int32_t cols, rows;
    int32_t x_step, to_step;
} tte_copy;

void tte_copy_channel(const tte_copy *copy);
/* cols >= 4, `to` at a word, channels .. channel + 3 exist. */
void tte_copy_four_channels(const tte_copy *copy);

/* Zeros. */
void tte_clear_words(void *to, uint32_t words);

/* To a lower place, or one that has none of them. */
void tte_move_words(void *to, const void *from, uint32_t words);

/* Four planes in at most so many bytes, or else one. */
enum { TTE_FOUR_PLANES_BYTES = 8192 };

/* What all channels' planes share. Row 0 is row `top` of the map; its rows begin .. end - 1 are
 * copied. */
typedef struct {
    int32_t rows, cols;
    int32_t begin, end, used_cols;
    int32_t first;  /* element of the first pixel */
    int32_t planes; /* at once, 4 or 1 */
} tte_plane;

/* For output rows row_begin .. row_end - 1, a multiple of four outputs in a row. The first tap of
 * the first output is element `origin` of a row. */
static inline tte_plane tte_plan_plane(const tte_window *window, int32_t row_begin,
                                       int32_t row_end, int32_t origin)
{
    const int32_t whole_w = (window->out_w + 3) & ~3;
    const int32_t top = row_begin * window->stride_h - window->pad_top;
    const int32_t left = origin + window->pad_left;
    tte_plane plane;
    plane.rows = (row_end - row_begin - 1) * window->stride_h + window->kernel_h;
    plane.cols = ((whole_w - 1) * window->stride_w + window->kernel_w + origin + 1) & ~1;
    plane.begin = top < 0 ? 0 : top;
    plane.end = top + plane.rows < window->in_h ? top + plane.rows : window->in_h;
    plane.used_cols = plane.cols - left < window->in_w ? plane.cols - left : window->in_w;
    plane.first = (plane.begin - top) * plane.cols + left;
    plane.planes = 4 * 2 * plane.rows * plane.cols <= TTE_FOUR_PLANES_BYTES ? 4 : 1;
    return plane;
}

/* How one group of channels after the other is copied: the rows of a ring are at most two pieces of
 * memory. */
typedef struct {
    tte_copy copies[2];
    int32_t pieces;
    int fours; /* whether four channels can be copied at once */
} tte_copies;

/* From x to planes that are clear but for the same pixels of other channels. */
static inline void tte_plan_copies(const tte_window *window, const tte_plane *plane,
                                   int32_t zero_point, const int8_t *x, int16_t *planes,
                                   tte_copies *copies)
{
    const int32_t ring = window->in_ring == 0 ? window->in_h : window->in_ring;
    copies->fours = plane->planes == 4 && plane->used_cols >= 4 && plane->first % 2 == 0;
    copies->pieces = 0;
    planes += plane->first;
    for (int32_t iy = plane->begin; iy < plane->end && plane->used_cols > 0;) {
        tte_copy *copy = &copies->copies[copies->pieces++];
        const int32_t place = iy % ring;
        copy->x = x + place * window->in_w * window->in_c;
        copy->to = planes;
        copy->channels = window->in_c;
        copy->plane_bytes = (uint32_t)(2 * plane->rows * plane->cols);
        copy->zero_point = zero_point;
        copy->cols = plane->used_cols;
        copy->rows = plane->end - iy < ring - place ? plane->end - iy : ring - place;
        copy->x_step = (window->in_w - plane->used_cols) * window->in_c;
        copy->to_step = 2 * (plane->cols - plane->used_cols);
        iy += copy->rows;
        planes += copy->rows * plane->cols;
    }
}

/* The next `count` channels. */
static inline void tte_copy_group(tte_copies *copies, int32_t count)
{
    for (tte_copy *copy = copies->copies; copy != copies->copies + copies->pieces; copy++) {
        if (copies->fours && count == 4) {
            tte_copy_four_channels(copy);
        } else {
            tte_copy one = *copy;
            for (int32_t i = 0; i < count; i++, one.x++, one.to += one.plane_bytes / 2) {
                tte_copy_channel(&one);
            }
        }
        copy->x += count;
    }
}

#endif
