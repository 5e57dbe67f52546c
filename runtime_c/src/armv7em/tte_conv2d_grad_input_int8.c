/* SPDX-License-Identifier: Apache-2.0
 *
 * grad_input[p][i] = requantise(sum over taps and o of weight[o][tap][i] * grad_output[q][o] +
 * addend), 0 where the mask bit is 0; q is the output that sees p through the tap. The product of
 * the weights' columns and the gradients' rows, in tiles of 4 input channels and 4 pixels
 * (tte_tile.h): a row is the gradients that a pixel gets through all taps, 0 outside the map. Under
 * a stride, pixels a stride apart are a phase: they share taps that others do not have. Blocks of
 * tiles leave out the rows of taps that lead all of them above or below the map. weight
 * [out_c][kernel_h][kernel_w][in_c], NHWC. Groups, single pixels and more products than a tile has
 * room for are left to the portable kernel. One rounding, half up: SMMULR.
 * Source: docs/numerics.md, section 2; docs/performance.md.
 */
#define tte_conv2d_grad_input_int8 tte_conv2d_grad_input_int8_portable
#include "../tte_conv2d_grad_input_int8.c"
#undef tte_conv2d_grad_input_int8

#include "tte_dsp_grad.h"
#include "tte_tile.h"

void tte_conv2d_grad_input_int8(const tte_conv2d_grad_input_params *params,
                                const int8_t *grad_output, const int8_t *weight,
                                const int8_t *trained, const uint16_t *channels,
                                const int32_t *multipliers, const int8_t *addend,
                                const int32_t *addend_multipliers, const uint8_t *mask,
                                int8_t *grad_input, uint32_t *saturations, int32_t *scratch);

typedef struct {
    const tte_conv2d_grad_input_params *params;
    const int8_t *grad_output, *weight, *trained;
    const uint16_t *channels;
    const int32_t *multipliers;
    const int8_t *addend;
    const int32_t *addend_multipliers;
    const uint8_t *mask;
    int8_t *grad_input;
    uint32_t *saturations;
} grad_call;

/* One axis of a phase: its pixels, a stride apart; the taps that they are seen through, first,
 * first - step, and so on; at which gradient pixel 0 is through the first of them, and how much
 * further on through the next. */
typedef struct {
    int32_t pixels, taps, first, step, at, apart;
} grad_axis;

static grad_axis plan_axis(int32_t phase, int32_t size, int32_t kernel, int32_t stride,
                           int32_t dilation, int32_t pad)
{
    grad_axis axis = {(size - phase + stride - 1) / stride, 0, 0, 0, 0, 1};
    for (int32_t tap = kernel - 1; tap >= 0; tap--) {
        const int32_t at = phase + pad - tap * dilation;
        if (at % stride == 0) {
            if (axis.taps == 0) {
                axis.first = tap;
                axis.at = at / stride;
            } else if (axis.taps == 1) {
                axis.step = axis.first - tap;
                axis.apart = at / stride - axis.at;
            }
            axis.taps++;
        }
    }
    return axis;
}

static grad_axis plan_rows(const tte_window *window, int32_t phase)
{
    return plan_axis(phase, window->in_h, window->kernel_h, window->stride_h, window->dilation_h,
                     window->pad_top);
}

static grad_axis plan_cols(const tte_window *window, int32_t phase)
{
    return plan_axis(phase, window->in_w, window->kernel_w, window->stride_w, window->dilation_w,
                     window->pad_left);
}

/* Its pixels are `lines` times `count`, so many pixels of the map apart from number `first` on. */
typedef struct {
    grad_axis rows, cols;
    int32_t first, lines, count, step, line_step;
    int32_t tiles;    /* of a line */
    int32_t run_taps; /* whose gradients are neighbours, and whole words */
    int direct;       /* a pixel's row is the gradients of one output, of the same number */
} grad_phase;

static grad_phase plan_phase(const tte_window *window, int32_t row, int32_t col)
{
    grad_phase phase;
    phase.rows = plan_rows(window, row);
    phase.cols = plan_cols(window, col);
    phase.first = row * window->in_w + col;
    phase.lines = phase.rows.pixels;
    phase.count = phase.cols.pixels;
    phase.line_step = window->stride_h * window->in_w;
    phase.step = phase.count == 1 ? phase.line_step : window->stride_w;
    if (phase.count * phase.step == phase.line_step) {
        phase.count *= phase.lines;
        phase.lines = 1;
    }
    phase.tiles = (phase.count + 3) / 4;
    phase.run_taps =
        window->out_c % 4 == 0 && phase.cols.apart == 1 ? phase.cols.taps : 1;
    phase.direct = tte_is_pointwise(window);
    return phase;
}

/* Of a sum, in the phase that has most. */
static int32_t most_products(const tte_window *window)
{
    int32_t rows = 0, cols = 0;
    for (int32_t i = 0; i < window->stride_h && i < window->in_h; i++) {
        const int32_t taps = plan_rows(window, i).taps;
        rows = taps > rows ? taps : rows;
    }
    for (int32_t i = 0; i < window->stride_w && i < window->in_w; i++) {
        const int32_t taps = plan_cols(window, i).taps;
        cols = taps > cols ? taps : cols;
    }
    return rows * cols * ((window->out_c + 3) & ~3);
}

/* Gradients of `count` outputs of a row from (oy, ox) on, zeros outside the map: where they are, or
 * a copy. */
static TTE_APART const int8_t *copy_run(const tte_window *window, const int8_t *grad_output,
                                        int32_t oy, int32_t ox, int32_t count, int8_t *copy)
{
    const tte_range inside = tte_inside(ox, count, 1, window->out_w);
    memset(copy, 0, (size_t)(count * window->out_c));
    if (0 <= oy && oy < window->out_h && inside.begin < inside.end) {
        memcpy(copy + inside.begin * window->out_c,
               grad_output + (oy * window->out_w + ox + inside.begin) * window->out_c,
               (size_t)((inside.end - inside.begin) * window->out_c));
    }
    return copy;
}

static inline const int8_t *find_run(const tte_window *window, const int8_t *grad_output,
                                     int32_t oy, int32_t ox, int32_t count, int8_t *copy)
{
    if (0 <= oy && oy < window->out_h && 0 <= ox && ox + count <= window->out_w) {
        return grad_output + (oy * window->out_w + ox) * window->out_c;
    }
    return copy_run(window, grad_output, oy, ox, count, copy);
}

/* Without taps that lead pixels of rows `begin` to `last` only above or below the map. */
static void trim_rows(grad_axis *rows, int32_t begin, int32_t last, int32_t out_h)
{
    while (rows->taps > 0 && rows->at + last < 0) {
        rows->at += rows->apart;
        rows->first -= rows->step;
        rows->taps--;
    }
    while (rows->taps > 0 && rows->at + (rows->taps - 1) * rows->apart + begin >= out_h) {
        rows->taps--;
    }
}

/* The row of pixel number `at` of a line. */
static inline int32_t row_of(const grad_phase *phase, int32_t line, int32_t at)
{
    return (line * phase->count + (at < phase->count ? at : phase->count - 1)) /
           phase->cols.pixels;
}

/* `count` tiles of gradients, from tile `number` of line `line` on. The last one of a line repeats
 * its last pixel. */
static void widen_gradients(const grad_call *call, const grad_phase *phase, int32_t line,
                            int32_t number, int32_t count, uint32_t *tile, int32_t tile_words,
                            int8_t *copies)
{
    const tte_window *window = &call->params->window;
    const int32_t out_c = window->out_c, taps = phase->run_taps, run = taps * out_c;
    const int32_t words = 2 * ((run + 3) & ~3);
    for (; count > 0; count--, tile += tile_words) {
        const int32_t left = phase->count - number * 4 - 1;
        const int32_t pixel = line * phase->count + number * 4;
        uint32_t *to = tile;
        int32_t ys[4], xs[4];
        int32_t y = pixel / phase->cols.pixels, x = pixel % phase->cols.pixels;
        for (int32_t i = 0; i < 4; i++) {
            ys[i] = y + phase->rows.at;
            xs[i] = x + phase->cols.at;
            x += i < left;
            if (x == phase->cols.pixels) {
                x = 0;
                y++;
            }
        }
        const int32_t reach = taps + (ys[0] == ys[3] && xs[3] - xs[0] == 3 ? 3 : window->out_w);
        for (int32_t a = 0; a < phase->rows.taps; a++) {
            const int32_t down = a * phase->rows.apart, oy = ys[0] + down;
            for (int32_t b = 0; b < phase->cols.taps; b += taps, to += words) {
                const int32_t right = b * phase->cols.apart, ox = xs[0] + right;
                if (0 <= oy && oy < window->out_h && 0 <= ox && ox + reach <= window->out_w &&
                    run % 4 == 0) {
                    tte_widen_tiles(call->grad_output + (oy * window->out_w + ox) * out_c, out_c,
                                    run, 0, to, to + words);
                } else {
                    const int8_t *rows[4];
                    for (int32_t i = 0; i < 4; i++) {
                        rows[i] = find_run(window, call->grad_output, ys[i] + down, xs[i] + right,
                                           taps, copies + i * run);
                    }
                    tte_widen_4(rows, run, 0, to);
                }
            }
        }
        if (++number == phase->tiles) {
            number = 0;
            line++;
        }
    }
}

/* Columns of weights [out_c][kernel_h][kernel_w][channels], the highest tap first. */
typedef struct {
    int32_t row_elems;          /* of an output channel */
    int32_t row_step, col_step; /* from a tap to the one before it */
    int32_t channels, products;
} grad_taps;

static grad_taps plan_taps(const grad_phase *phase, const tte_window *window, int32_t channels,
                           int32_t products)
{
    const grad_taps taps = {window->kernel_h * window->kernel_w * channels,
                            phase->rows.step * window->kernel_w * channels,
                            phase->cols.step * channels, channels, products};
    return taps;
}

/* Four columns, tap after tap. There are `left` of them; the others are anything, and lower taps
 * have the weights of higher ones behind theirs. */
static TTE_APART void widen_weights(const grad_phase *phase, const grad_taps *taps,
                                    const int8_t *weight, int32_t left, uint32_t *columns)
{
    const int32_t words = 2 * ((taps->products + 3) & ~3);
    for (int32_t a = 0; a < phase->rows.taps; a++) {
        int32_t at = -a * taps->row_step;
        for (int32_t b = 0; b < phase->cols.taps; b++, at -= taps->col_step) {
            tte_widen_columns_4(weight + at, taps->row_elems, left, taps->products, 0, columns);
            left += taps->channels;
            columns += words;
        }
    }
}

/* One trained column takes the place of column i. */
static TTE_APART void merge_weights(const grad_phase *phase, const grad_taps *taps,
                                    const int8_t *trained, int32_t i, uint32_t *columns)
{
    const int32_t words = 2 * ((taps->products + 3) & ~3);
    for (int32_t a = 0; a < phase->rows.taps; a++) {
        int32_t at = -a * taps->row_step;
        for (int32_t b = 0; b < phase->cols.taps; b++, at -= taps->col_step) {
            tte_widen_column(trained + at, taps->row_elems, taps->products, i, columns);
            columns += words;
        }
    }
}

/* Where not all pixels are one block, they are if only `k` products a sum are made at a time, with all
 * sums behind the tiles. Returns such a k that needs no more scratch, or all products if weights cost
 * less to widen for each block than sums to add. */
static int32_t plan_part(const tte_product *product, int32_t tiles, int32_t in_c)
{
    const int32_t room = 8 * product->k * (product->tiles + 1) - 16 * tiles * in_c;
    const int32_t k = room < 0 ? 0 : room / (8 * (tiles + 1)) & ~3;
    const int32_t blocks = (tiles + product->tiles - 1) / product->tiles;
    const int32_t parts = k == 0 ? product->k : (product->k + k - 1) / k;
    return (blocks - 1) * product->k > 16 * (parts - 1) * tiles ? k : product->k;
}

/* sums[channel][pixel] of one tile of x. */
static void sum_tile(const tte_grad_tiles *tiles, const uint32_t *x, int32_t *sums)
{
    tte_grad_tiles one = *tiles;
    memset(sums, 0, 16 * sizeof *sums);
    one.x = x;
    one.to_end = one.to + 4 * one.step;
    one.mode = TTE_GRAD_SUMS;
    one.sums = sums;
    tte_tile_4x4_grad(&one);
}

/* Gradients of up to four channels from i on, one after the other: of `count` pixels whose first
 * element is number `first`. */
static TTE_APART void store_each(const grad_call *call, const tte_grad_tiles *tiles,
                                 const uint32_t *x, int32_t tile_words, int32_t i, int32_t first,
                                 int32_t count)
{
    const int32_t in_c = call->params->window.in_c;
    int32_t sums[16];
    for (int32_t j = 0; j < count; j++) {
        if (j % 4 == 0) {
            sum_tile(tiles, x + j / 4 * tile_words, sums);
        }
        for (int32_t k = i; k < in_c && k < i + 4; k++) {
            const uint32_t index = (uint32_t)(first + k - i) + (uint32_t)j * tiles->step;
            call->grad_input[index] = tte_grad_value(
                sums[(k - i) * 4 + j % 4], call->multipliers[k], call->addend,
                call->addend_multipliers, (uint32_t)k, call->mask, index, call->params->pre_shift,
                call->saturations);
        }
    }
}

/* All four channels at once, of whole tiles. Pixels do not have their mask bits at the same place of
 * a byte: each gets a byte of its own. */
enum { MASK_BYTES = 64 };

static TTE_APART void store_masked(const grad_call *call, tte_grad_tiles *tiles, int32_t tile_words,
                                   int32_t first, int32_t count)
{
    uint8_t bytes[MASK_BYTES];
    uint32_t bit = (uint32_t)first;
    int32_t some;
    tiles->mask = bytes;
    tiles->mask_step = 1;
    tiles->shift = 16;
    for (; count > 0; count -= some) {
        some = count < MASK_BYTES ? count : MASK_BYTES;
        for (int32_t i = 0; i < some; i++, bit += tiles->step) {
            const uint8_t *at = call->mask + bit / 8;
            const uint32_t high = bit % 8 > 4 ? at[1] : 0;
            bytes[i] = (uint8_t)((at[0] | high << 8) >> bit % 8);
        }
        tiles->to_end = tiles->to + some * (int32_t)tiles->step;
        tte_tile_4x4_grad(tiles);
        tiles->to = tiles->to_end;
        tiles->x += some / 4 * tile_words;
        if (tiles->addend != NULL) {
            tiles->addend += some * (int32_t)tiles->step;
        }
    }
}

/* The same of pixels one step apart, all four channels at once where they are `whole`. */
static inline void store_run(const grad_call *call, tte_grad_tiles *tiles, const uint32_t *x,
                             int32_t tile_words, int32_t i, int32_t first, int32_t count, int whole)
{
    static const uint8_t all = 0xFF;
    const int32_t at_once = whole ? count & ~3 : 0, done = at_once * (int32_t)tiles->step;
    tiles->x = x;
    tiles->to = call->grad_input + first;
    tiles->to_end = tiles->to + done;
    tiles->mask = call->mask == NULL ? &all : call->mask + first / 8;
    tiles->addend = call->addend == NULL ? NULL : call->addend + first;
    if (at_once > 0 && call->mask != NULL && call->params->window.in_c % 8 != 0) {
        store_masked(call, tiles, tile_words, first, at_once);
    } else if (at_once > 0) {
        tte_tile_4x4_grad(tiles);
    }
    if (at_once < count) {
        store_each(call, tiles, x + at_once / 4 * tile_words, tile_words, i, first + done,
                   count - at_once);
    }
}

/* The same of `count` tiles in several lines, from tile `number` of one on. */
static TTE_APART void store_lines(const grad_call *call, const grad_phase *phase,
                                  tte_grad_tiles *tiles, const uint32_t *x, int32_t tile_words,
                                  int32_t i, int32_t first, int32_t number, int32_t count,
                                  int whole)
{
    const int32_t line_step = phase->line_step * call->params->window.in_c;
    int32_t some;
    for (; count > 0; count -= some, x += some * tile_words) {
        const int32_t left = phase->count - number * 4;
        some = phase->tiles - number < count ? phase->tiles - number : count;
        store_run(call, tiles, x, tile_words, i, first, some * 4 < left ? some * 4 : left, whole);
        first += line_step - number * 4 * (int32_t)tiles->step;
        number = 0;
    }
}

/* The gradients of pixels that no output sees. */
static void clear_phase(const grad_call *call, const grad_phase *phase)
{
    const int32_t in_c = call->params->window.in_c;
    for (int32_t line = 0; line < phase->lines; line++) {
        int8_t *to = call->grad_input + (phase->first + line * phase->line_step) * in_c;
        for (int32_t i = 0; i < phase->count; i++, to += phase->step * in_c) {
            memset(to, 0, (size_t)in_c);
        }
    }
}

static void make_phase(const grad_call *call, const grad_phase *phase, int32_t *scratch)
{
    static const int32_t nothing[4] = {0};
    const tte_window *window = &call->params->window;
    const int32_t in_c = window->in_c, out_c = window->out_c;
    const int32_t all = phase->lines * phase->tiles;
    const int32_t most = phase->rows.taps * phase->cols.taps * ((out_c + 3) & ~3);
    /* Whether four channels of four pixels go from the tiles to where they belong. */
    const int whole = call->params->pre_shift == 0 || call->addend != NULL;
    tte_product product = tte_plan_product(most == 0 ? 1 : most, all, scratch);
    int32_t part = out_c;
    if (phase->direct && whole && call->addend == NULL && (call->mask == NULL || in_c % 8 == 0) &&
        (phase->count | in_c | out_c) % 4 == 0) {
        part = plan_part(&product, all, in_c);
        if (part < product.k) {
            product.tiles = all;
            product.k = part;
        }
    }
    const int in_parts = part < out_c;
    uint32_t *const columns = product.x + product.tiles * product.k * 2;
    int32_t *const totals = (int32_t *)columns + product.k * 2; /* [channel / 4][tile][4][4] */
    tte_grad_tiles tiles;

    tiles.weight = columns;
    tiles.saturations = call->saturations;
    tiles.mode = call->addend == NULL ? TTE_GRAD_PLAIN : TTE_GRAD_ADDED;
    tiles.step = (uint32_t)(phase->step * in_c);
    tiles.pre_shift = call->params->pre_shift;
    tiles.mask_step = call->mask == NULL ? 0 : tiles.step / 8;
    if (in_parts) {
        memset(totals, 0, sizeof *totals * (size_t)(16 * all) * (size_t)(in_c / 4));
    }
    const int32_t trained_c = call->trained == NULL ? 0 : call->params->trained_c;
    for (int32_t tile = 0, o = 0; tile < all;) {
        const int32_t products = out_c - o < part ? out_c - o : part;
        const int32_t count = all - tile < product.tiles ? all - tile : product.tiles;
        const int32_t line = tile / phase->tiles, number = tile % phase->tiles;
        const int32_t first = phase->first + line * phase->line_step + number * 4 * phase->step;
        const int32_t left = phase->count - number * 4;
        const int32_t pixels = left < count * 4 ? left : count * 4; /* in this line */
        grad_phase block = *phase;
        if (!phase->direct) {
            const int32_t last = tile + count - 1;
            trim_rows(&block.rows, row_of(phase, line, number * 4),
                      row_of(phase, last / phase->tiles, last % phase->tiles * 4 + 3),
                      window->out_h);
        }
        const int32_t taps = block.rows.taps * block.cols.taps;
        const int32_t padded = taps * ((products + 3) & ~3), k = padded == 0 ? 4 : padded;
        const int32_t tap = block.rows.first * window->kernel_w + block.cols.first;
        const int32_t tile_words = phase->direct ? product.k * 2 : k * 2;
        const grad_taps frozen = plan_taps(&block, window, in_c, products);
        const grad_taps others = plan_taps(&block, window, trained_c, products);
        const int8_t *weight = call->weight + o * frozen.row_elems + tap * in_c;
        const int8_t *trained = call->trained;
        if (phase->direct) {
            tte_widen_rows(call->grad_output + tile * 4 * out_c + o, out_c, pixels, products, 0,
                           &product);
        } else {
            widen_gradients(call, &block, line, number, count, product.x, tile_words,
                            (int8_t *)columns);
        }
        if (trained_c > 0) {
            trained += o * others.row_elems + tap * trained_c;
        }
        if (taps == 0) {
            memset(columns, 0, 8 * sizeof *columns);
        }
        tiles.weight_end = columns + k * 2;
        if (in_parts) {
            tiles.mode = o + products < out_c ? TTE_GRAD_SUMS : TTE_GRAD_TOTALS;
        }
        int32_t merged = 0; /* trained channels so far */
        for (int32_t i = 0; i < in_c; i += 4) {
            const int32_t channels = in_c - i;
            if (taps == 1) {
                tte_widen_columns_4(weight + i, frozen.row_elems, channels, products, 0, columns);
            } else {
                widen_weights(&block, &frozen, weight + i, channels, columns);
            }
            for (; merged < trained_c && call->channels[merged] < i + 4; merged++) {
                merge_weights(&block, &others, trained + merged, call->channels[merged] - i,
                              columns);
            }
            tiles.shift = 16u - (uint32_t)(i & 4);
            tiles.multipliers = channels < 4 ? nothing : call->multipliers + i;
            tiles.addend_multipliers =
                call->addend == NULL ? NULL : call->addend_multipliers + i;
            tiles.sums = in_parts ? totals + i * all * 4 : NULL;
            if (phase->lines == 1) {
                store_run(call, &tiles, product.x, tile_words, i, first * in_c + i, pixels,
                          whole && channels >= 4);
            } else {
                store_lines(call, phase, &tiles, product.x, tile_words, i, first * in_c + i,
                            number, count, whole && channels >= 4);
            }
        }
        o += products;
        if (o == out_c) {
            o = 0;
            tile += count;
        }
    }
}

/* Columns of one pixel are turned to rows, where gradients of neighbours are one run of memory. */
static tte_conv2d_grad_input_params turn(const tte_conv2d_grad_input_params *params)
{
    const tte_window *from = &params->window;
    tte_conv2d_grad_input_params turned = *params;
    if (from->in_w == 1 && from->out_w == 1 && from->kernel_w == 1 && from->stride_w == 1 &&
        from->pad_left == 0) {
        tte_window *to = &turned.window;
        to->in_w = from->in_h;
        to->out_w = from->out_h;
        to->kernel_w = from->kernel_h;
        to->stride_w = from->stride_h;
        to->dilation_w = from->dilation_h;
        to->pad_left = from->pad_top;
        to->in_h = to->out_h = to->kernel_h = to->stride_h = to->dilation_h = 1;
        to->pad_top = 0;
    }
    return turned;
}

void tte_conv2d_grad_input_int8(const tte_conv2d_grad_input_params *params,
                                const int8_t *grad_output, const int8_t *weight,
                                const int8_t *trained, const uint16_t *channels,
                                const int32_t *multipliers, const int8_t *addend,
                                const int32_t *addend_multipliers, const uint8_t *mask,
                                int8_t *grad_input, uint32_t *saturations, int32_t *scratch)
{
    const tte_window *window = &params->window;
    const int32_t products = most_products(window);
    if (window->groups != 1 || window->in_h * window->in_w == 1 ||
        (window->kernel_h * window->kernel_w > 1 && products > TTE_TILE_ELEMS) ||
        !tte_grad_fits(products, params->pre_shift)) {
        tte_conv2d_grad_input_int8_portable(params, grad_output, weight, trained, channels,
                                            multipliers, addend, addend_multipliers, mask,
                                            grad_input, saturations, scratch);
        return;
    }
    const tte_conv2d_grad_input_params turned = turn(params);
    const grad_call call = {&turned,    grad_output, weight,
                            trained,    channels,    multipliers,
                            addend,     addend_multipliers, mask,
                            grad_input, saturations};
    window = &turned.window;
    for (int32_t row = 0; row < window->stride_h && row < window->in_h; row++) {
        for (int32_t col = 0; col < window->stride_w && col < window->in_w; col++) {
            const grad_phase phase = plan_phase(window, row, col);
            if (phase.rows.taps * phase.cols.taps == 0 && addend == NULL) {
                clear_phase(&call, &phase);
            } else {
                make_phase(&call, &phase, scratch);
            }
        }
    }
}
