/* SPDX-License-Identifier: Apache-2.0
 *
 * sums[o][i] = sum over output pixels p of grad_output[p][o] * (input of weight i at p - zero point),
 * then 256 * weight + residual -= round(sums * step * rates[o]): the product of the gradients' and
 * the inputs' columns, in tiles of 2 output channels and 4 weights (tte_tile.h); a layer of one
 * window, which is the map, needs no tiles. The columns of 1x1 kernels are those of the map, others
 * are collected first, with the zero point where the window is in the padding. weight, residual
 * [out_c][kernel_h][kernel_w][in_c], NHWC. A rate of 0 marks a channel that is never trained. Large
 * maps go in parts. Groups and very long rows are left to the portable kernel.
 * Source: docs/numerics.md, section 3; docs/performance.md.
 */
#define tte_conv2d_grad_weight_int8 tte_conv2d_grad_weight_int8_portable
#include "../tte_conv2d_grad_weight_int8.c"
#undef tte_conv2d_grad_weight_int8

#include "tte_dsp_grad.h"
#include "tte_tile.h"

/* A part of a large map, and how many tiles of inputs of it there are at most. */
enum { TTE_PART_ELEMS = 256, TTE_PART_TILES = 4 };

void tte_conv2d_grad_weight_int8(const tte_conv2d_grad_weight_params *params, const int8_t *x,
                                 const int8_t *grad_output, const tte_factor *step,
                                 const tte_factor *rates, int8_t *weight, int8_t *residual,
                                 int32_t *scratch);

/* Weights of an output channel. */
static int32_t row_elems(const tte_window *window)
{
    return window->kernel_h * window->kernel_w * window->in_c;
}

/* Whether there is one window, which is the whole map. */
static int is_whole_map(const tte_window *window)
{
    return window->out_h * window->out_w == 1 && window->kernel_h == window->in_h &&
           window->kernel_w == window->in_w && window->dilation_h * window->dilation_w == 1 &&
           window->pad_top == 0 && window->pad_left == 0;
}

/* The same of a run of weights from number i on, of which no four more are left to
 * tte_update_fours(), or the next four have a step that is no int16, or the shift is odd. */
static TTE_APART void update_rest(int8_t *weight, int8_t *residual, const int32_t *sums,
                                  int32_t i, int32_t count, const tte_move *move, tte_factor step,
                                  tte_factor rate)
{
    const int32_t whole = count & ~3;
    while (i < count) {
        const int32_t next = i + 4 < count ? i + 4 : count;
        tte_update_plainly(weight + i, residual + i, sums + 2 * i, next - i, step, rate);
        i = next;
        if (move != NULL && i < whole) {
            i = (int32_t)(tte_update_fours(weight + i, residual + i, sums + 2 * i,
                                           sums + 2 * whole, move) -
                          sums) /
                2;
        }
    }
}

/* tte_update_weight() of a run of weights; sums come in fours, with four others in between. */
static inline void update(int8_t *weight, int8_t *residual, const int32_t *sums, int32_t count,
                          tte_factor step, tte_factor rate)
{
    const int32_t *const sums_end = sums + 2 * (count & ~3);
    const int32_t *at = sums;
    tte_move move;
    const int simple = tte_plan_move(step, rate, &move);
    if (simple) {
        at = tte_update_fours(weight, residual, sums, sums_end, &move);
    }
    if (at != sums_end || count % 4 != 0) {
        update_rest(weight, residual, sums, (int32_t)(at - sums) / 2, count,
                    simple ? &move : NULL, step, rate);
    }
}

/* The inputs of weight i, of the pixels of some rows, and where `size` is 4 also of the next three
 * weights, which have the same tap: elements of `size` bytes. */
static void collect(const tte_conv2d_grad_weight_params *params, const int8_t *x, tte_range part,
                    int32_t i, int32_t size, int8_t *to)
{
    const tte_window *window = &params->window;
    const int32_t in_c = window->in_c, out_w = window->out_w, tap = i / in_c;
    const int32_t top = part.begin * window->stride_h +
                        tap / window->kernel_w * window->dilation_h - window->pad_top;
    const int32_t left = tap % window->kernel_w * window->dilation_w - window->pad_left;
    const int32_t out_h = part.end - part.begin;
    const tte_range rows = tte_inside(top, out_h, window->stride_h, window->in_h);
    const tte_range cols = tte_inside(left, out_w, window->stride_w, window->in_w);
    const int32_t row_elems = window->in_w * in_c;
    tte_grid grid;
    grid.step = window->stride_w * in_c;
    grid.count = cols.end - cols.begin;
    grid.rows = rows.end - rows.begin;
    grid.to_skip = (out_w - grid.count) * size;
    grid.from_skip = window->stride_h * row_elems - grid.count * grid.step;

    if (grid.rows * grid.count != out_h * out_w) {
        memset(to, params->input_zero_point, (size_t)(out_h * out_w * size));
    }
    if (grid.rows * grid.count != 0) {
        const int32_t iy = top + rows.begin * window->stride_h;
        const int32_t ix = left + cols.begin * window->stride_w;
        (size == 4 ? tte_collect_words : tte_collect_bytes)(
            to + (rows.begin * out_w + cols.begin) * size, x + iy * row_elems + ix * in_c + i % in_c,
            &grid);
    }
}

/* Rows of output pixels that are one product: all of a map that is small or of a 1x1 kernel, else as
 * many as make up TTE_PART_ELEMS. */
static int32_t rows_at_once(const tte_window *window)
{
    const int32_t out_h = window->out_h, out_w = window->out_w;
    const int32_t most = out_w > TTE_PART_ELEMS ? 1 : TTE_PART_ELEMS / out_w;
    const int32_t parts = (out_h + most - 1) / most;
    if (out_h * out_w <= (tte_is_pointwise(window) ? TTE_TILE_ELEMS : TTE_PART_ELEMS)) {
        return out_h;
    }
    return (out_h + parts - 1) / parts;
}

/* A tile of the inputs of weights i .. i + 3, of which there are `left`; the last is repeated. They
 * are collected where the gradients will be. */
static void widen_inputs(const tte_conv2d_grad_weight_params *params, const int8_t *x,
                         const tte_product *product, tte_range part, int32_t i, int32_t left,
                         uint32_t *tile)
{
    const int32_t in_c = params->window.in_c, out_w = params->window.out_w;
    const int32_t pixels = (part.end - part.begin) * out_w;
    const uint32_t offset = tte_both(-params->input_zero_point);
    const int pointwise = tte_is_pointwise(&params->window);
    int8_t *const columns = (int8_t *)(product->weight + 8);
    const int8_t *rows[4];
    if (pointwise || (left >= 4 && i % in_c <= in_c - 4)) {
        if (!pointwise) {
            collect(params, x, part, i, 4, columns);
        }
        tte_widen_columns_4(pointwise ? x + part.begin * out_w * in_c + i : columns,
                            pointwise ? in_c : 4, left, pixels, offset, tile);
        return;
    }
    for (int32_t j = 0; j < 4; j++) {
        rows[j] = columns + (j < left ? j : left - 1) * product->k;
        if (j < left) {
            collect(params, x, part, i + j, 1, columns + j * product->k);
        }
    }
    tte_widen_4(rows, pixels, offset, tile);
}

/* The tiles of weights i .. i + count - 1. */
static TTE_APART void widen_tiles(const tte_conv2d_grad_weight_params *params, const int8_t *x,
                                  const tte_product *product, tte_range part, int32_t i,
                                  int32_t count)
{
    const int32_t pixels = (part.end - part.begin) * params->window.out_w;
    for (int32_t first = 0; first < count; first += 4) {
        widen_inputs(params, x, product, part, i + first, count - first,
                     product->x + first * ((pixels + 3) & ~3) / 2);
    }
}

/* The sums of weights i .. i + count - 1 of all output channels of a map that goes in parts: `kept`
 * for every two channels, behind those of one part. */
static TTE_APART void sum_parts(const tte_conv2d_grad_weight_params *params, const int8_t *x,
                                const int8_t *grad_output, const tte_product *product,
                                int32_t rows, int32_t i, int32_t count, int32_t kept)
{
    const int32_t out_h = params->window.out_h, out_w = params->window.out_w;
    const int32_t out_c = params->window.out_c, words = (count + 3) / 4 * 8;
    tte_range part;
    for (part.begin = 0; part.begin < out_h; part.begin = part.end) {
        part.end = out_h - part.begin < rows ? out_h : part.begin + rows;
        const int32_t pixels = (part.end - part.begin) * out_w;
        const uint32_t *const weight_end = product->weight + 8 + ((pixels + 3) & ~3);
        int32_t *totals = product->sums + kept;
        widen_tiles(params, x, product, part, i, count);
        for (int32_t o = 0; o < out_c; o += 2, totals += kept) {
            int32_t *const to = part.begin == 0 ? totals : product->sums;
            tte_widen_columns_2(grad_output + o, out_c, out_c - o, pixels, product->weight + 8);
            tte_tile_2x4(product->x, product->weight, weight_end, to, to + words);
            for (int32_t j = 0; j < words && part.begin > 0; j++) {
                totals[j] += to[j];
            }
        }
        grad_output += pixels * out_c;
    }
}

/* One window, as behind a classifier: every row of sums is the inputs times a gradient. Inputs and
 * sums take no more scratch than tiles of so many channels. */
static TTE_APART void update_window(const tte_conv2d_grad_weight_params *params, const int8_t *x,
                                    const int8_t *grad_output, tte_factor step,
                                    const tte_factor *rates, int8_t *weight, int8_t *residual,
                                    int32_t *scratch, int32_t channels)
{
    const int32_t row = row_elems(&params->window), out_c = params->window.out_c;
    for (int32_t i = 0; i < row; i += channels) {
        const int32_t count = row - i < channels ? row - i : channels;
        const int32_t whole = (count + 7) & ~7;
        for (int32_t j = 0; j < count; j++) {
            scratch[j] = x[i + j] - params->input_zero_point;
        }
        for (int32_t o = 0; o < out_c; o++) {
            if (rates[o].mantissa != 0) {
                tte_scale_words(scratch + whole, scratch, (uint32_t)whole, grad_output[o]);
                tte_update(weight + o * row + i, residual + o * row + i, scratch + whole, count,
                           step, rates[o]);
            }
        }
    }
}

void tte_conv2d_grad_weight_int8(const tte_conv2d_grad_weight_params *params, const int8_t *x,
                                 const int8_t *grad_output, const tte_factor *step,
                                 const tte_factor *rates, int8_t *weight, int8_t *residual,
                                 int32_t *scratch)
{
    const tte_window *window = &params->window;
    const int32_t row = row_elems(window), out_c = window->out_c;
    const int32_t out_h = window->out_h, out_w = window->out_w, rows = rows_at_once(window);
    if (window->groups != 1 || rows * out_w > TTE_TILE_ELEMS) {
        tte_conv2d_grad_weight_int8_portable(params, x, grad_output, step, rates, weight, residual,
                                             scratch);
        return;
    }
    if (step->mantissa == 0) {
        return;
    }

    /* Sums of all channels are kept from one part to the next. */
    const int in_parts = rows < out_h;
    const int32_t tiles = (row + 3) / 4;
    const tte_product product = tte_plan_product(
        rows * out_w, in_parts && tiles > TTE_PART_TILES ? TTE_PART_TILES : tiles, scratch);
    const int32_t kept = in_parts ? product.tiles * 8 : 0;
    if (is_whole_map(window)) {
        update_window(params, x, grad_output, *step, rates, weight, residual, scratch,
                      product.tiles * 4);
        return;
    }
    const tte_range all = {0, out_h};
    const int32_t pixels = out_h * out_w;
    int32_t count;
    tte_start(&product, 0, 0);
    for (int32_t i = 0; i < row; i += count) {
        int32_t *sums = product.sums;
        count = row - i < product.tiles * 4 ? row - i : product.tiles * 4;
        if (in_parts) {
            sum_parts(params, x, grad_output, &product, rows, i, count, kept);
        } else {
            widen_tiles(params, x, &product, all, i, count);
        }
        for (int32_t o = 0; o < out_c; o += 2) {
            if (in_parts) {
                sums += kept;
            } else {
                tte_widen_columns_2(grad_output + o, out_c, out_c - o, pixels, product.weight + 8);
                tte_tile_2x4(product.x, product.weight, product.weight_end, sums,
                             sums + (count + 3) / 4 * 8);
            }
            for (int32_t j = o; j < out_c && j < o + 2; j++) {
                if (rates[j].mantissa != 0) {
                    update(weight + j * row + i, residual + j * row + i, sums + (j - o) * 4, count,
                           *step, rates[j]);
                }
            }
        }
    }
}
