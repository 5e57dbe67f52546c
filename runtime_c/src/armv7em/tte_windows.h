/* SPDX-License-Identifier: Apache-2.0
 *
 * Depthwise convolutions of planes (tte_planes.h) with a square kernel of 3, 5 or 7 taps, stride 1
 * or 2, straight to int8 (tte_windows.S). Weights are int8, [channel][kernel_h][kernel_w].
 *
 * Masks are first bytes: one a pixel, for eight channels, in rows of a multiple of four. Outputs
 * are written four at a time too; where a row is no multiple of four the surplus lands on the next
 * row, which is written later, and the last row goes through a buffer.
 */
#ifndef TTE_WINDOWS_H
#define TTE_WINDOWS_H

#include "tte_planes.h"

/* One call: rows of outputs of some channels. The kernels count on the order of fields; those
 * without a comment are theirs. */
typedef struct {
    int32_t x_next; /* bytes from the last row of four outputs' windows to the next ones' first */
    int32_t bias, multiplier;
    int32_t zero_point; /* of the output */
    int8_t *row_end, *to;
    uint32_t step;  /* bytes from an output to the next; gradients: from four to the next */
    int32_t x_step; /* bytes from behind a row's windows to the next row's */
    int32_t y_step; /* the same of the outputs */
    uint32_t row;   /* bytes of a row of a multiple of four outputs */
    int8_t *end;
    const int16_t *at;
    uint32_t row_bytes; /* from a row of a plane to the next */
    uint8_t *bits;
    uint32_t bit;         /* the first channel's */
    const int16_t *x;     /* the first channel's first window */
    uint32_t plane_bytes; /* from a channel's plane to the next */
    int8_t *y;            /* the first output */
    uint32_t y_bytes;     /* of all rows */
    const int8_t *weight;
    int32_t weight_step; /* bytes from a channel's to the next one's */
    const int32_t *biases, *multipliers;
    uint32_t channels;
    uint8_t *mask;
    int32_t between; /* gradients of stride 2: bytes from the first row's windows to the second's */
} tte_windows;

typedef void (*tte_windows_function)(const tte_windows *windows);

void tte_windows_3x3_1_int8(const tte_windows *windows);
void tte_windows_3x3_2_int8(const tte_windows *windows);
void tte_windows_5x5_1_int8(const tte_windows *windows);
void tte_windows_5x5_2_int8(const tte_windows *windows);
void tte_windows_7x7_1_int8(const tte_windows *windows);
void tte_windows_7x7_2_int8(const tte_windows *windows);

/* Sets the bit of `mask` where an output is not clamped. */
void tte_windows_3x3_1_masked_int8(const tte_windows *windows);
void tte_windows_3x3_2_masked_int8(const tte_windows *windows);
void tte_windows_5x5_1_masked_int8(const tte_windows *windows);
void tte_windows_5x5_2_masked_int8(const tte_windows *windows);
void tte_windows_7x7_1_masked_int8(const tte_windows *windows);
void tte_windows_7x7_2_masked_int8(const tte_windows *windows);

/* Gradients: no bias, int16 and not clamped. Four of a channel are followed by the next channel's
 * (tte_store_grads() in tte_dsp_grad.h takes them like that). The weights are turned round. */
void tte_windows_3x3_1_grad(const tte_windows *windows);
void tte_windows_5x5_1_grad(const tte_windows *windows);
void tte_windows_7x7_1_grad(const tte_windows *windows);
/* Stride 2: a row of outputs with one row of taps more, then the one `step` away with less, eight
 * outputs at a time; the first tap of a row is element 1. Weights are pairs: for both rows those of
 * the even columns, then of the odd ones, row after row. Three taps, with 0 for those that are
 * missing, are the pairs (1, 0), (2, 1); four, in the odd columns of 7x7, (1, 0), (1, 2), (3, 2). */
void tte_windows_3x3_2_grad(const tte_windows *windows);
void tte_windows_5x5_2_grad(const tte_windows *windows);
void tte_windows_7x7_2_grad(const tte_windows *windows);

#include "tte_unused.h"

/* The element of a plane's row where the first tap lies: the kernel's middle is an even one. */
static inline int32_t tte_windows_origin(int32_t kernel)
{
    return kernel / 2 % 2;
}

/* Whether outputs can go to where they belong: see above. */
static inline int tte_windows_fit(const tte_window *window)
{
    return window->out_w > 1 && window->kernel_h == window->kernel_w &&
           window->dilation_h * window->dilation_w == 1;
}

/* The calls for a group of channels. Outputs are in at most two pieces of a ring, the last row of
 * a piece may be one by itself. Fields are those of tte_windows where they have their names. */
enum { TTE_MAX_CALLS = 4 };

typedef struct {
    const int16_t *x;
    int8_t *y;
    uint8_t *mask;
    int32_t x_next, x_step, y_step;
    uint32_t step, row, y_bytes;
    int8_t *place; /* where a row in the buffer belongs, else NULL */
} tte_call;

typedef struct {
    const tte_window *window;
    const tte_plane *plane;
    tte_windows_function function;
    tte_call calls[TTE_MAX_CALLS], *end;
} tte_calls;

static inline void tte_begin_calls(const tte_window *window, const tte_plane *plane,
                                   tte_windows_function function, tte_calls *calls)
{
    calls->window = window;
    calls->plane = plane;
    calls->function = function;
    calls->end = calls->calls;
}

/* `rows` rows of windows from x on, of outputs `step` apart that lie one behind the other. */
static inline void tte_add_call(tte_calls *calls, int32_t rows, const int16_t *x, int8_t *y,
                                uint32_t step, int32_t out_w, uint8_t *mask, int8_t *place)
{
    const tte_window *window = calls->window;
    tte_call *call = calls->end++;
    const int32_t whole_w = (window->out_w + 3) & ~3;
    const int32_t row_bytes = 2 * calls->plane->cols;
    const int32_t back = (window->kernel_h - 1) * row_bytes;

    call->x = x;
    call->y = y;
    call->mask = mask;
    call->step = step;
    call->y_bytes = (uint32_t)(rows * out_w) * step;
    call->place = place;
    if (out_w == 4) { /* a column is one row */
        call->x_next = window->stride_h * row_bytes - back;
        call->x_step = call->y_step = 0;
        call->row = call->y_bytes;
    } else {
        call->x_next = 8 * window->stride_w - back;
        call->x_step = window->stride_h * row_bytes - 2 * whole_w * window->stride_w;
        call->y_step = (out_w - whole_w) * (int32_t)step;
        call->row = (uint32_t)whole_w * step;
    }
}

/* The rows from x on to y, of any width; `buffer` holds a row of a multiple of four outputs of four
 * channels. */
static inline void tte_add_rows(tte_calls *calls, int32_t rows, const int16_t *x, int8_t *y,
                                uint8_t *mask, int8_t *buffer)
{
    const tte_window *window = calls->window;
    const int32_t whole_w = (window->out_w + 3) & ~3;
    const int32_t direct = window->out_w == whole_w ? rows : rows - 1;
    if (direct > 0) {
        tte_add_call(calls, direct, x, y, window->out_c, window->out_w, mask, NULL);
    }
    if (direct < rows) {
        x += direct * window->stride_h * calls->plane->cols;
        y += direct * window->out_w * window->out_c;
        mask = mask == NULL ? NULL : mask + direct * whole_w;
        tte_add_call(calls, 1, x, buffer, 4, whole_w, mask, y);
    }
}

/* The next `count` channels. Before it are set weight, weight_step, biases, multipliers, bit and
 * zero_point; weight, biases and multipliers move on. */
static inline void tte_run_calls(tte_calls *calls, tte_windows *windows, int32_t count)
{
    windows->row_bytes = (uint32_t)(2 * calls->plane->cols);
    windows->plane_bytes = (uint32_t)(2 * calls->plane->rows * calls->plane->cols);
    windows->channels = (uint32_t)count;
    for (tte_call *call = calls->calls; call != calls->end; call++) {
        windows->x = call->x;
        windows->y = call->y;
        windows->mask = call->mask;
        windows->x_next = call->x_next;
        windows->x_step = call->x_step;
        windows->y_step = call->y_step;
        windows->step = call->step;
        windows->row = call->row;
        windows->y_bytes = call->y_bytes;
        calls->function(windows);
        if (call->place == NULL) {
            call->y += count;
        } else {
            int8_t *to = call->place;
            for (int32_t i = 0; i < calls->window->out_w; i++, to += calls->window->out_c) {
                for (int32_t channel = 0; channel < count; channel++) {
                    to[channel] = call->y[4 * i + channel];
                }
            }
            call->place += count;
        }
    }
    windows->weight += count * windows->weight_step;
    windows->biases += count;
    windows->multipliers += count;
}

#endif
