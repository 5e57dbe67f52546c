/* SPDX-License-Identifier: Apache-2.0
 *
 * y[oy][ox][c] = activation(bias[c] + sum over taps of weight[c][ky][kx] * (x - zero point))
 * x, y NHWC with the same channels, weight [channel][kernel_h][kernel_w]. As in the portable
 * kernel a channel is first copied to a plane, so y may overwrite x; here the plane holds x itself
 * with a border of zero points, and what they add to a sum is taken off its start. Kernels that
 * are not 3, 5 or 7 wide, dilation and strides above 2 are left to the portable kernel.
 * One rounding, half up: SMMULR. Source: docs/numerics.md, section 1; docs/performance.md.
 */
#define tte_depthwise_conv2d_int8 tte_depthwise_conv2d_int8_portable
#include "../tte_depthwise_conv2d_int8.c"
#undef tte_depthwise_conv2d_int8

#include "tte_rows.h"

void tte_depthwise_conv2d_int8(const tte_conv2d_params *params, const int8_t *x,
                               const int8_t *weight, const int32_t *bias,
                               const int32_t *multipliers, uint16_t row_begin, uint16_t row_end,
                               int8_t *y, uint8_t *mask, int16_t *scratch);

/* What all channels' planes share: input rows top .. top + rows - 1, of which begin .. end - 1
 * exist, the first of them at `first`. */
typedef struct {
    int32_t rows, cols, used_cols, begin, end;
    int16_t *first;
} tte_plane;

static tte_plane plan_plane(const tte_window *window, int32_t row_begin, int32_t row_end,
                            int16_t *scratch)
{
    const int32_t whole_w = (window->out_w + 3) & ~3;
    const int32_t top = row_begin * window->stride_h - window->pad_top;
    tte_plane plane;
    plane.rows = (row_end - row_begin - 1) * window->stride_h + window->kernel_h;
    plane.cols = ((whole_w - 1) * window->stride_w + window->kernel_w + 1) & ~1;
    plane.used_cols = plane.cols - window->pad_left;
    plane.used_cols = plane.used_cols < window->in_w ? plane.used_cols : window->in_w;
    plane.begin = top < 0 ? 0 : top;
    plane.end = top + plane.rows < window->in_h ? top + plane.rows : window->in_h;
    plane.first = scratch + (plane.begin - top) * plane.cols + window->pad_left;
    return plane;
}

/* x starts at the channel. The rows of a ring are at most two pieces of memory. */
static void copy_plane(const tte_window *window, const tte_plane *plane, const int8_t *x)
{
    const int32_t ring = window->in_ring == 0 ? window->in_h : window->in_ring;
    int16_t *to = plane->first;
    int32_t rows;
    for (int32_t iy = plane->begin; iy < plane->end && plane->used_cols > 0; iy += rows) {
        const int32_t place = iy % ring;
        rows = plane->end - iy < ring - place ? plane->end - iy : ring - place;
        tte_copy_rows(x + place * window->in_w * window->in_c, to, plane->used_cols, rows,
                      window->in_c, (window->in_w - plane->used_cols) * window->in_c,
                      2 * (plane->cols - plane->used_cols));
        to += rows * plane->cols;
    }
}

/* A run of one channel's sums to y and mask, `index` being the first one's element. */
static void activate_run(const tte_conv2d_params *params, const int32_t *sums, int32_t count,
                         int32_t multiplier, int8_t *y, uint8_t *mask, uint32_t index)
{
    const tte_requant requant = params->requant;
    const uint32_t out_c = params->window.out_c;
    const int32_t *const end = sums + count;

    if (mask == NULL || out_c % 8 != 0 || !tte_is_plain(&requant)) {
        for (; sums != end; sums++, y += out_c, index += out_c) {
            *y = tte_activation(*sums, multiplier, &requant, mask, index);
        }
        return;
    }
    uint8_t *bits = mask + index / 8;
    const uint32_t bit = 1u << (index & 7);
    for (; sums != end; sums++, y += out_c, bits += out_c / 8) {
        const int32_t value = tte_smmlar(*sums, multiplier, requant.output_zero_point);
        const int32_t clamped = tte_ssat8(value);
        *y = (int8_t)clamped;
        if (value == clamped) {
            *bits = (uint8_t)(*bits | bit);
        }
    }
}

void tte_depthwise_conv2d_int8(const tte_conv2d_params *params, const int8_t *x,
                               const int8_t *weight, const int32_t *bias,
                               const int32_t *multipliers, uint16_t row_begin, uint16_t row_end,
                               int8_t *y, uint8_t *mask, int16_t *scratch)
{
    const tte_window window = params->window;
    const tte_requant requant = params->requant;
    const tte_rows_function multiply =
        tte_find_rows(window.kernel_h, window.kernel_w, window.stride_w);
    if (multiply == NULL || window.dilation_h * window.dilation_w > 1) {
        tte_depthwise_conv2d_int8_portable(params, x, weight, bias, multipliers, row_begin,
                                           row_end, y, mask, scratch);
        return;
    }

    const uint32_t row_elems = (uint32_t)window.out_w * window.out_c;
    const int32_t whole_w = (window.out_w + 3) & ~3;
    const int joined = whole_w == window.out_w; /* no gaps between rows of sums */
    const int at_once = tte_is_plain(&requant) && mask == NULL && joined;
    const tte_rows_int8_function finish =
        tte_find_rows_int8(window.kernel_h, window.kernel_w, window.stride_w);
    const tte_plane plane = plan_plane(&window, row_begin, row_end, scratch);
    int32_t *const sums = (int32_t *)(void *)(scratch + plane.rows * plane.cols);
    const int32_t room = whole_w < TTE_ROWS_SUMS ? TTE_ROWS_SUMS / whole_w : 1;
    const int32_t most = at_once ? window.out_h : room;
    const int32_t ring = window.out_ring == 0 ? window.out_h : window.out_ring;
    uint32_t pairs[TTE_ROWS_MAX_TAPS * TTE_ROWS_MAX_WORDS];
    tte_rows_int8 call;
    tte_rows *const rows = &call.rows;
    int32_t count;

    for (int32_t i = 0; i < plane.rows * plane.cols; i++) {
        scratch[i] = requant.input_zero_point;
    }
    if (mask != NULL) {
        tte_mask_clear(mask, row_begin * row_elems, row_end * row_elems);
    }
    rows->row_bytes = (uint32_t)plane.cols * 2;
    rows->x_step = 2 * (window.stride_h * plane.cols - whole_w * window.stride_w);
    rows->sums_step = at_once ? row_elems : (uint32_t)whole_w * 4;
    call.zero_point = requant.output_zero_point;
    call.out_c = window.out_c;
    for (int32_t channel = 0; channel < window.out_c; channel++) {
        const int32_t total =
            tte_pack_rows(weight, window.kernel_h, window.kernel_w, window.kernel_w, 1,
                          window.stride_w, rows, pairs);
        weight += window.kernel_h * window.kernel_w;
        rows->start = bias[channel] - total * requant.input_zero_point;
        rows->x = scratch;
        call.multiplier = multipliers[channel];
        copy_plane(&window, &plane, x + channel);
        for (int32_t oy = row_begin; oy < row_end; oy += count) {
            const int32_t place = oy % ring;
            int8_t *to = y + (uint32_t)place * row_elems + channel;
            count = row_end - oy < most ? row_end - oy : most;
            count = ring - place < count ? ring - place : count;
            rows->sums = at_once ? (int32_t *)(void *)to : sums;
            rows->row_end = (int32_t *)(void *)((int8_t *)rows->sums + rows->sums_step);
            rows->sums_end =
                (int32_t *)(void *)((int8_t *)rows->sums + (uint32_t)count * rows->sums_step);
            if (at_once) {
                finish(&call);
            } else {
                uint32_t index = (uint32_t)oy * row_elems + (uint32_t)channel;
                const int32_t run = joined ? count * window.out_w : window.out_w;
                multiply(rows);
                for (int32_t i = 0; i < count; i += joined ? count : 1) {
                    activate_run(params, sums + i * whole_w, run, call.multiplier, to, mask, index);
                    to += run * window.out_c;
                    index += (uint32_t)run * window.out_c;
                }
            }
            rows->x += count * window.stride_h * plane.cols;
        }
    }
}
