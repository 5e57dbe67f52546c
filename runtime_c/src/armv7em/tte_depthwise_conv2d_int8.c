/* SPDX-License-Identifier: Apache-2.0
 *
 * y[oy][ox][c] = activation(bias[c] + sum over taps of weight[c][ky][kx] * (x - zero point))
 * x, y NHWC with the same channels, weight [channel][kernel_h][kernel_w]. As in the portable
 * kernel channels are first copied to planes, so y may overwrite x: four channels at a time, which
 * are a word of x. Square kernels of 3, 5 or 7 whose activation is SMMLAR and SSAT are one call
 * (tte_windows.h); other kernels of that width give sums (tte_rows.h) for C to finish. A single tap
 * needs no copies. Other widths, dilation and strides above 2 are left to the portable kernel.
 * One rounding, half up: SMMULR. Source: docs/numerics.md, section 1; docs/performance.md.
 */
#define tte_depthwise_conv2d_int8 tte_depthwise_conv2d_int8_portable
#include "../tte_depthwise_conv2d_int8.c"
#undef tte_depthwise_conv2d_int8

#include "tte_rows.h"
#include "tte_windows.h"

void tte_depthwise_conv2d_int8(const tte_conv2d_params *params, const int8_t *x,
                               const int8_t *weight, const int32_t *bias,
                               const int32_t *multipliers, uint16_t row_begin, uint16_t row_end,
                               int8_t *y, uint8_t *mask, int16_t *scratch);

/* Output rows of a call, and how many of them lie one behind the other from a row on. */
typedef struct {
    int32_t begin, end, ring;
} tte_out_rows;

static int32_t rows_from(const tte_out_rows *rows, int32_t row)
{
    const int32_t before_wrap = rows->ring - row % rows->ring;
    return rows->end - row < before_wrap ? rows->end - row : before_wrap;
}

static tte_windows_function find_windows(const tte_conv2d_params *params, int masked)
{
    static const tte_windows_function functions[3][2][2] = {
        {{tte_windows_3x3_1_int8, tte_windows_3x3_1_masked_int8},
         {tte_windows_3x3_2_int8, tte_windows_3x3_2_masked_int8}},
        {{tte_windows_5x5_1_int8, tte_windows_5x5_1_masked_int8},
         {tte_windows_5x5_2_int8, tte_windows_5x5_2_masked_int8}},
        {{tte_windows_7x7_1_int8, tte_windows_7x7_1_masked_int8},
         {tte_windows_7x7_2_int8, tte_windows_7x7_2_masked_int8}},
    };
    const tte_window *window = &params->window;
    if (!tte_windows_fit(window) || !tte_is_plain(&params->requant) ||
        (masked && window->out_c % 8 != 0)) {
        return NULL;
    }
    return functions[window->kernel_w / 2 - 1][window->stride_w - 1][masked];
}

/* Bits of eight channels, from bytes in rows of a multiple of four. */
static void store_bits(const tte_window *window, const uint8_t *bits, int32_t rows, uint8_t *mask)
{
    for (; rows > 0; rows--, bits += -window->out_w & 3) {
        for (int32_t i = 0; i < window->out_w; i++, mask += window->out_c / 8) {
            *mask = *bits++;
        }
    }
}

/* All channels, four at a time where four planes fit. */
static TTE_APART void run_windows(const tte_conv2d_params *params, const tte_plane *plane,
                                  const tte_out_rows *rows, tte_windows_function function,
                                  const int8_t *x, const int8_t *weight, const int32_t *bias,
                                  const int32_t *multipliers, int8_t *y, uint8_t *mask,
                                  int16_t *planes)
{
    const tte_window *window = &params->window;
    const int32_t row_elems = window->out_w * window->out_c;
    const int32_t whole_w = (window->out_w + 3) & ~3;
    int8_t *const buffer = (int8_t *)(planes + plane->planes * plane->rows * plane->cols);
    uint8_t *const bits = mask == NULL ? NULL : (uint8_t *)buffer + 4 * whole_w;
    tte_calls calls;
    tte_windows windows;
    tte_copies copies;
    int32_t some, count;

    windows.zero_point = params->requant.output_zero_point;
    windows.weight = weight;
    windows.weight_step = window->kernel_h * window->kernel_w;
    windows.biases = bias;
    windows.multipliers = multipliers;
    windows.bit = 1;
    tte_plan_copies(window, plane, params->requant.input_zero_point, x, planes, &copies);
    tte_begin_calls(window, plane, function, &calls);
    for (int32_t oy = rows->begin; oy < rows->end; oy += some) {
        const int32_t row = oy - rows->begin;
        some = rows_from(rows, oy);
        tte_add_rows(&calls, some, planes + row * window->stride_h * plane->cols,
                     y + oy % rows->ring * row_elems, mask == NULL ? NULL : bits + row * whole_w,
                     buffer);
    }
    for (int32_t channel = 0; channel < window->out_c; channel += count) {
        count = window->out_c - channel < plane->planes ? window->out_c - channel : plane->planes;
        tte_copy_group(&copies, count);
        if (mask != NULL && channel % 8 == 0) {
            windows.bit = 1;
            tte_clear_words(bits, (uint32_t)((rows->end - rows->begin) * whole_w / 4));
        }
        tte_run_calls(&calls, &windows, count);
        windows.bit <<= count;
        if (mask != NULL && (channel + count) % 8 == 0) {
            store_bits(window, bits, rows->end - rows->begin,
                       mask + (rows->begin * row_elems + channel) / 8);
        }
    }
}

/* A kernel of one tap: every element by itself, by SMMLAR and SSAT. */
static TTE_APART void run_pixels(const tte_conv2d_params *params, const int8_t *x,
                                 const int8_t *weight, const int32_t *bias,
                                 const int32_t *multipliers, int32_t row_begin, int32_t row_end,
                                 int8_t *y, uint8_t *mask)
{
    const tte_window *window = &params->window;
    const int32_t zero_point = params->requant.input_zero_point;
    const int32_t out_zero_point = params->requant.output_zero_point;
    const int32_t channels = window->out_c, row_elems = window->out_w * channels;
    uint32_t index = (uint32_t)(row_begin * row_elems);
    if (mask != NULL) {
        tte_mask_clear(mask, index, (uint32_t)(row_end * row_elems));
    }
    for (int32_t row = row_begin; row < row_end; row++) {
        const int8_t *from = x + tte_ring_row(row, window->in_ring) * row_elems;
        int8_t *to = y + tte_ring_row(row, window->out_ring) * row_elems;
        for (int32_t i = 0; i < row_elems; i += channels) {
            for (int32_t c = 0; c < channels; c++) {
                const int32_t sum = tte_mla(weight[c], from[c] - zero_point, bias[c]);
                const int32_t value = tte_smmlar(sum, multipliers[c], out_zero_point);
                to[c] = (int8_t)tte_ssat8(value);
                if (mask != NULL && to[c] == value) {
                    tte_mask_set(mask, index + (uint32_t)c);
                }
            }
            from += channels;
            to += channels;
            index += (uint32_t)channels;
        }
    }
}

/* A run of one channel's sums to y and mask, `index` being the first one's element. */
static void activate_run(const tte_conv2d_params *params, const int32_t *sums, int32_t multiplier,
                         int8_t *y, uint8_t *mask, uint32_t index)
{
    const tte_requant requant = params->requant;
    const uint32_t out_c = params->window.out_c;
    for (int32_t i = 0; i < params->window.out_w; i++, y += out_c, index += out_c) {
        *y = tte_activation(sums[i], multiplier, &requant, mask, index);
    }
}

/* Channel after channel, row after row: sums and C. */
static TTE_APART void run_rows(const tte_conv2d_params *params, const tte_plane *plane,
                               const tte_out_rows *out_rows, const int8_t *x,
                               const int8_t *weight, const int32_t *bias,
                               const int32_t *multipliers, int8_t *y, uint8_t *mask,
                               int16_t *planes)
{
    const tte_window *window = &params->window;
    const tte_rows_function multiply =
        tte_find_rows(window->kernel_h, window->kernel_w, window->stride_w);
    const uint32_t row_elems = (uint32_t)window->out_w * window->out_c;
    const int32_t whole_w = (window->out_w + 3) & ~3;
    uint32_t pairs[TTE_ROWS_MAX_TAPS * TTE_ROWS_MAX_WORDS];
    tte_copies copies;
    tte_rows rows;

    tte_plan_copies(window, plane, params->requant.input_zero_point, x, planes, &copies);
    rows.row_bytes = (uint32_t)plane->cols * 2;
    rows.x_step = 0;
    rows.sums_step = 0;
    rows.sums = (int32_t *)(void *)(planes + plane->rows * plane->cols);
    rows.row_end = rows.sums_end = rows.sums + whole_w;
    if (mask != NULL) {
        tte_mask_clear(mask, (uint32_t)out_rows->begin * row_elems,
                       (uint32_t)out_rows->end * row_elems);
    }
    for (int32_t channel = 0; channel < window->out_c; channel++) {
        tte_pack_rows(weight, window->kernel_h, window->kernel_w, window->stride_w, &rows, pairs);
        weight += window->kernel_h * window->kernel_w;
        rows.start = bias[channel];
        rows.x = planes;
        tte_copy_group(&copies, 1);
        for (int32_t oy = out_rows->begin; oy < out_rows->end; oy++) {
            multiply(&rows);
            activate_run(params, rows.sums, multipliers[channel],
                         y + (uint32_t)(oy % out_rows->ring) * row_elems + channel, mask,
                         (uint32_t)oy * row_elems + (uint32_t)channel);
            rows.x += window->stride_h * plane->cols;
        }
    }
}

void tte_depthwise_conv2d_int8(const tte_conv2d_params *params, const int8_t *x,
                               const int8_t *weight, const int32_t *bias,
                               const int32_t *multipliers, uint16_t row_begin, uint16_t row_end,
                               int8_t *y, uint8_t *mask, int16_t *scratch)
{
    const tte_window *window = &params->window;
    if (tte_is_pointwise(window) && tte_is_plain(&params->requant)) {
        run_pixels(params, x, weight, bias, multipliers, row_begin, row_end, y, mask);
        return;
    }
    if (tte_find_rows(window->kernel_h, window->kernel_w, window->stride_w) == NULL ||
        window->dilation_h * window->dilation_w > 1) {
        tte_depthwise_conv2d_int8_portable(params, x, weight, bias, multipliers, row_begin,
                                           row_end, y, mask, scratch);
        return;
    }
    const tte_windows_function function = find_windows(params, mask != NULL);
    const int32_t origin = function == NULL ? 0 : tte_windows_origin(window->kernel_w);
    const tte_plane plane = tte_plan_plane(window, row_begin, row_end, origin);
    const tte_out_rows rows = {row_begin, row_end,
                               window->out_ring == 0 ? window->out_h : window->out_ring};
    tte_clear_words(scratch, (uint32_t)(plane.planes * plane.rows * plane.cols / 2));
    if (function != NULL) {
        run_windows(params, &plane, &rows, function, x, weight, bias, multipliers, y, mask,
                    scratch);
    } else {
        run_rows(params, &plane, &rows, x, weight, bias, multipliers, y, mask, scratch);
    }
}
