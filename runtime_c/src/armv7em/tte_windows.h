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
    uint32_t step;  /* bytes from an output to the next */
    int32_t x_step; /* bytes from behind a row's windows to the next row's */
    int32_t y_step; /* the same of the outputs */
    uint32_t row;   /* bytes of a row of a multiple of four outputs */
    int8_t *end;
    const int16_t *at;
    uint32_t row_bytes; /* from a row of a plane to the next */
    uint8_t *bits;
    uint32_t bit;         /* the first channel's; gradients: 7 - its place in a byte */
    const int16_t *x;     /* the first channel's first window */
    uint32_t plane_bytes; /* from a channel's plane to the next */
    int8_t *y;            /* the first output */
    uint32_t y_bytes;     /* of all rows */
    const int8_t *weight;
    int32_t weight_step; /* bytes from a channel's to the next one's */
    const int32_t *biases, *multipliers;
    uint32_t channels;
    uint8_t *mask;
    uint32_t *saturations;
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

/* Gradients: no bias, 0 where the bit of `mask` is 0, clamped to +-127 and counted. */
void tte_windows_3x3_1_grad(const tte_windows *windows);
void tte_windows_5x5_1_grad(const tte_windows *windows);
void tte_windows_7x7_1_grad(const tte_windows *windows);

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

/* What all calls share. */
static inline void tte_plan_windows(const tte_window *window, const tte_plane *plane,
                                    tte_windows *windows)
{
    const int32_t row_bytes = 2 * plane->cols;
    windows->row_bytes = (uint32_t)row_bytes;
    windows->plane_bytes = (uint32_t)(plane->rows * row_bytes);
    windows->weight_step = window->kernel_h * window->kernel_w;
}

/* `rows` rows of windows from x on, of outputs that lie one behind the other from y on. */
static inline void tte_run_rows(const tte_window *window, tte_windows_function function,
                                tte_windows *windows, int32_t rows, const int16_t *x, int8_t *y,
                                uint32_t step, int32_t out_w)
{
    const int32_t whole_w = (window->out_w + 3) & ~3;
    const int32_t down = window->stride_h * (int32_t)windows->row_bytes;
    const int32_t back = (window->kernel_h - 1) * (int32_t)windows->row_bytes;

    windows->x = x;
    windows->y = y;
    windows->step = step;
    windows->y_bytes = (uint32_t)(rows * out_w) * step;
    if (out_w == 4) { /* a column is one row */
        windows->x_next = down - back;
        windows->x_step = windows->y_step = 0;
        windows->row = windows->y_bytes;
    } else {
        windows->x_next = 8 * window->stride_w - back;
        windows->x_step = down - 2 * whole_w * window->stride_w;
        windows->y_step = (out_w - whole_w) * (int32_t)step;
        windows->row = (uint32_t)whole_w * step;
    }
    function(windows);
}

/* The same for any width; `buffer` holds a row of a multiple of four outputs of four channels. */
static inline void tte_run_windows(const tte_window *window, tte_windows_function function,
                                   tte_windows *windows, int32_t rows, const int16_t *x, int8_t *y,
                                   uint8_t *mask, int8_t *buffer)
{
    const int32_t whole_w = (window->out_w + 3) & ~3;
    const int32_t direct = window->out_w == whole_w ? rows : rows - 1;
    windows->mask = mask;
    if (direct > 0) {
        tte_run_rows(window, function, windows, direct, x, y, window->out_c, window->out_w);
    }
    if (direct < rows) {
        windows->mask = mask + direct * whole_w;
        x += direct * window->stride_h * (int32_t)(windows->row_bytes / 2);
        y += direct * window->out_w * window->out_c;
        tte_run_rows(window, function, windows, 1, x, buffer, 4, whole_w);
        for (int32_t i = 0; i < window->out_w; i++, buffer += 4, y += window->out_c) {
            for (uint32_t channel = 0; channel < windows->channels; channel++) {
                y[channel] = buffer[channel];
            }
        }
    }
}

#endif
