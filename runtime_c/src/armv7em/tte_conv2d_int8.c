/* SPDX-License-Identifier: Apache-2.0
 *
 * y[oy][ox][o] = activation(bias[o] + sum over taps and inputs of weight * (x - zero point))
 * x, y NHWC, weight [out_c][kernel_h][kernel_w][in_c / groups]: the product of the weights' rows
 * and the pixels' columns, in tiles of 2 output channels and 4 pixels (tte_tile.h). A pixel of a
 * 1x1 convolution is its own column; others are collected first, with the zero point where the
 * window is in the padding. Weights that are trained replace the frozen ones where those are
 * widened. One rounding, half up: SMMULR.
 * Source: docs/numerics.md, section 1; docs/performance.md.
 */
#include "tte_kernels.h"
#include "tte_tile.h"
#include "tte_window.h"

static inline void copy_4(int8_t *to, const int8_t *from)
{
    const uint32_t word = tte_load_4(from);
    memcpy(to, &word, sizeof word);
}

/* Words; the last one overlaps the one before it. 9 is a row of 3x3 windows on an RGB image. */
static inline void copy(int8_t *to, const int8_t *from, int32_t count)
{
    if (count == 9) {
        copy_4(to, from);
        copy_4(to + 4, from + 4);
        to[8] = from[8];
    } else if (count >= 4) {
        for (int32_t i = 0; i < count - 4; i += 4) {
            copy_4(to + i, from + i);
        }
        copy_4(to + count - 4, from + count - 4);
    } else {
        for (int32_t i = 0; i < count; i++) {
            to[i] = from[i];
        }
    }
}

/* The column of a window that is partly in the padding, or whose rows are not runs of memory
 * because of dilation or groups. */
static void collect_taps(const tte_conv2d_params *params, const int8_t *x, int32_t top,
                         int32_t left, int8_t *column)
{
    const tte_window *window = &params->window;
    const int32_t group_in_c = window->in_c / window->groups;
    const int32_t row_elems = window->kernel_w * group_in_c;
    const int joined = window->dilation_w == 1 && window->groups == 1;
    const tte_range cols = tte_inside(left, window->kernel_w, window->dilation_w, window->in_w);
    const int32_t run = joined ? cols.end - cols.begin : 1;

    memset(column, params->requant.input_zero_point, (size_t)(window->kernel_h * row_elems));
    for (int32_t ky = 0; ky < window->kernel_h; ky++, column += row_elems) {
        const int32_t iy = top + ky * window->dilation_h;
        if (0 <= iy && iy < window->in_h) {
            const int32_t row = tte_ring_row(iy, window->in_ring) * window->in_w + left;
            for (int32_t kx = cols.begin; kx < cols.end; kx += run) {
                copy(column + kx * group_in_c,
                     x + (row + kx * window->dilation_w) * window->in_c, run * group_in_c);
            }
        }
    }
}

/* The inputs under the window of output pixel (oy, ox), in the order of the weights. */
static inline void collect_column(const tte_conv2d_params *params, const int8_t *x, int32_t oy,
                                  int32_t ox, int8_t *column)
{
    const tte_window *window = &params->window;
    const int32_t run = window->kernel_w * window->in_c;
    const int32_t top = oy * window->stride_h - window->pad_top;
    const int32_t left = ox * window->stride_w - window->pad_left;
    const int32_t bottom = top + window->kernel_h;

    if (top < 0 || left < 0 || bottom > window->in_h || left + window->kernel_w > window->in_w ||
        window->dilation_h * window->dilation_w * window->groups > 1) {
        collect_taps(params, x, top, left, column);
        return;
    }
    for (int32_t iy = top; iy < bottom; iy++, column += run) {
        const int32_t row = tte_ring_row(iy, window->in_ring);
        copy(column, x + (row * window->in_w + left) * window->in_c, run);
    }
}

/* Whether every window is a pixel. */
static int is_pointwise(const tte_window *window)
{
    return window->kernel_h * window->kernel_w == 1 &&
           window->pad_top + window->pad_left == 0 &&
           (window->out_h - 1) * window->stride_h < window->in_h &&
           (window->out_w - 1) * window->stride_w < window->in_w;
}

/* How many windows from (oy, ox) on tte_widen_rgb_windows() can take: inside of the image, with a
 * byte behind them, in one row. */
static int32_t rgb_windows(const tte_window *window, int32_t oy, int32_t ox)
{
    const int32_t top = oy * window->stride_h - window->pad_top;
    const int32_t left = ox * window->stride_w - window->pad_left;
    int32_t count = (window->in_w - 3 - left) / 2 + 1;
    if (window->in_c * window->groups != 3 || window->kernel_h != 3 || window->kernel_w != 3 ||
        window->stride_w != 2 || window->dilation_h * window->dilation_w != 1 ||
        window->in_ring != 0 || top < 0 || left < 0 || top + 3 > window->in_h ||
        left + 3 > window->in_w) {
        return 0;
    }
    count -= top + 3 == window->in_h && left + 2 * count + 1 == window->in_w;
    return count < window->out_w - ox ? count : window->out_w - ox;
}

/* Some pixels on, at most to the next row. */
static inline void step(const tte_window *window, int32_t *oy, int32_t *ox, int32_t count)
{
    *ox += count;
    if (*ox == window->out_w) {
        *ox = 0;
        ++*oy;
    }
}

/* Tiles of x: `count` output pixels from number `pixel` on; the last tile repeats the last one.
 * Columns are collected where the weights will be; what is behind their end meets weights of 0. */
static void widen_pixels(const tte_conv2d_params *params, const tte_product *product,
                         const int8_t *x, uint32_t pixel, int32_t count)
{
    const tte_window *window = &params->window;
    const int32_t taps = window->kernel_h * window->kernel_w * (window->in_c / window->groups);
    const uint32_t offset = tte_both(-params->requant.input_zero_point);
    const uint32_t ring = (uint32_t)window->in_ring * window->in_w;
    int8_t *columns = (int8_t *)product->weight;
    uint32_t *tile = product->x;
    const int direct = is_pointwise(window);
    int32_t oy = (int32_t)(pixel / window->out_w), ox = (int32_t)(pixel % window->out_w);
    int32_t some;

    if (direct && window->stride_h * window->stride_w == 1 && window->in_w == window->out_w) {
        const uint32_t place = ring == 0 ? pixel : pixel % ring;
        if (ring == 0 || place + (uint32_t)count <= ring) {
            tte_widen_rows(x + place * window->in_c, window->in_c, count, taps, offset, product);
            return;
        }
    }
    for (; count > 0; count -= some, tile += (some + 3) / 4 * product->k * 2) {
        some = rgb_windows(window, oy, ox);
        some = (some < count ? some : count) & ~3;
        if (some > 0) {
            const int32_t row = oy * window->stride_h - window->pad_top;
            const int32_t left = ox * window->stride_w - window->pad_left;
            tte_widen_rgb_windows(x + (row * window->in_w + left) * 3, window->in_w * 3, offset,
                                  tile, tile + some / 4 * product->k * 2);
            step(window, &oy, &ox, some);
        } else {
            const int8_t *rows[4];
            some = count < 4 ? count : 4;
            for (int32_t i = 0; i < some; i++) {
                rows[i] = columns + i * product->k;
                if (direct) {
                    const int32_t iy = tte_ring_row(oy * window->stride_h, window->in_ring);
                    rows[i] = x + (iy * window->in_w + ox * window->stride_w) * window->in_c;
                } else {
                    collect_column(params, x, oy, ox, columns + i * product->k);
                }
                step(window, &oy, &ox, 1);
            }
            for (int32_t i = some; i < 4; i++) {
                rows[i] = rows[some - 1];
            }
            tte_widen_4(rows, direct ? taps : product->k, offset, tile);
        }
    }
}

/* y (and mask, from bit `index` on) of `outputs` channels, 1 or 2, of `count` pixels. */
static void activate(const tte_conv2d_params *params, const int32_t *sums,
                     const int32_t *multipliers, int32_t outputs, int32_t count, int8_t *y,
                     uint8_t *mask, uint32_t index)
{
    const tte_requant requant = params->requant;
    const uint32_t out_c = params->window.out_c;

    for (int32_t i = 0; i < count; i++, y += out_c, index += out_c) {
        const int32_t *sum = sums + (i / 4 * 8 + i % 4);
        for (int32_t j = 0; j < outputs; j++) {
            y[j] = tte_activation(sum[4 * j], multipliers[j], &requant, mask,
                                  index + (uint32_t)j);
        }
    }
}

/* The trained weights of two output channels (of one, where `outputs` is 1) go to their places
 * among the frozen ones. */
static void merge(const tte_conv2d_params *params, const int8_t *trained,
                  const uint16_t *channels, int32_t outputs, uint32_t *pairs)
{
    const tte_window *window = &params->window;
    const int32_t share = window->in_c / window->groups, count = params->trained_c;
    const int32_t taps = window->kernel_h * window->kernel_w;
    const int8_t *second = trained + (outputs - 1) * taps * count;

    for (int32_t tap = 0; tap < taps; tap++) {
        for (int32_t j = 0; j < count; j++) {
            const int32_t k = tap * share + channels[j];
            tte_set_pair(pairs, 0, k, *trained++);
            tte_set_pair(pairs, 1, k, *second++);
        }
    }
}

/* All output channels of a group, of `count` pixels whose x is in the tiles. */
static void multiply_group(const tte_conv2d_params *params, const tte_product *product,
                           const int8_t *weight, const int8_t *trained, const uint16_t *channels,
                           const int32_t *bias, const int32_t *multipliers, int32_t count,
                           int8_t *y, uint8_t *mask, uint32_t index)
{
    const tte_window *window = &params->window;
    const int32_t taps = window->kernel_h * window->kernel_w * (window->in_c / window->groups);
    const int32_t group_out_c = window->out_c / window->groups;
    const int plain =
        tte_is_plain(&params->requant) && (mask == NULL || window->out_c % 8 == 0);
    const int32_t at_once = plain ? count & ~3 : 0;
    const uint32_t *rest = product->x + at_once / 4 * product->k * 2;
    const uint32_t out_c = window->out_c;
    int8_t *const end = y + at_once * (int32_t)out_c;

    for (int32_t o = 0; o < group_out_c; o += 2) {
        const int32_t outputs = group_out_c - o == 1 ? 1 : 2;
        int32_t left = count;
        tte_start(product, bias[o], bias[o + outputs - 1]);
        tte_widen_2(weight, weight + (outputs - 1) * taps, taps, product->weight + 8);
        if (trained != NULL) {
            merge(params, trained, channels, outputs, product->weight + 8);
            trained += 2 * window->kernel_h * window->kernel_w * params->trained_c;
        }
        if (at_once > 0 && outputs == 2) {
            product->finish[0] = multipliers[o];
            product->finish[1] = multipliers[o + 1];
            product->finish[2] = params->requant.output_zero_point;
            if (mask == NULL) {
                tte_tile_2x4_int8(product->x, product->weight, product->weight_end, y + o, end + o,
                                  out_c);
            } else {
                const uint32_t first = index + (uint32_t)o;
                tte_tile_2x4_masked_int8(product->x, product->weight, product->weight_end, y + o,
                                         end + o, out_c, mask + first / 8, 1u << (first & 7));
            }
            left -= at_once;
        }
        if (left > 0) {
            const uint32_t done = (uint32_t)(count - left) * out_c + (uint32_t)o;
            tte_tile_2x4(left == count ? product->x : rest, product->weight, product->weight_end,
                         product->sums, product->sums + (left + 3) / 4 * 8);
            activate(params, product->sums, multipliers + o, outputs, left, y + done, mask,
                     index + done);
        }
        weight += 2 * taps;
    }
}

void tte_conv2d_int8(const tte_conv2d_params *params, const int8_t *x, const int8_t *weight,
                     const int8_t *trained, const uint16_t *channels, const int32_t *bias,
                     const int32_t *multipliers, uint16_t row_begin, uint16_t row_end, int8_t *y,
                     uint8_t *mask, int16_t *scratch)
{
    const tte_window *window = &params->window;
    const int32_t group_in_c = window->in_c / window->groups;
    const int32_t group_out_c = window->out_c / window->groups;
    const int32_t taps = window->kernel_h * window->kernel_w * group_in_c;
    const uint32_t begin = (uint32_t)row_begin * window->out_w;
    const uint32_t end = (uint32_t)row_end * window->out_w;
    const uint32_t ring = (uint32_t)window->out_ring * window->out_w;
    const tte_product product =
        tte_plan_product(taps, (int32_t)(end - begin + 3) / 4, scratch);
    const uint32_t block = (uint32_t)product.tiles * 4;
    uint32_t count;

    if (mask != NULL) {
        tte_mask_clear(mask, begin * window->out_c, end * window->out_c);
    }
    for (uint32_t pixel = begin; pixel < end; pixel += count) {
        const uint32_t place = ring == 0 ? pixel : pixel % ring;
        count = end - pixel < block ? end - pixel : block;
        count = ring != 0 && ring - place < count ? ring - place : count;
        for (int32_t group = 0; group < window->groups; group++) {
            const int32_t o = group * group_out_c;
            const int8_t *own =
                trained == NULL ? NULL : trained + o * (taps / group_in_c) * params->trained_c;
            widen_pixels(params, &product, x + group * group_in_c, pixel, (int32_t)count);
            multiply_group(params, &product, weight + o * taps, own, channels, bias + o,
                           multipliers + o, (int32_t)count, y + place * window->out_c + (uint32_t)o, mask,
                           pixel * window->out_c + (uint32_t)o);
        }
    }
}
