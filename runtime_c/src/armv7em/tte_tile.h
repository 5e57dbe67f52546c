/* SPDX-License-Identifier: Apache-2.0
 *
 * Matrix products of int8 rows: what the convolutions and their gradients have in common. Both
 * factors are widened once to int16 pairs along k (zeros up to a multiple of 4), a tile at a time:
 *   x      [k / 2][4]   four rows, their zero point taken off;   8 * k bytes a tile
 *   weight start[2][4] int32, then [k / 2][2], then 3 int32      44 + 4 * k bytes
 *   sums   [2][4] int32                                          32 bytes a tile
 * A block of x tiles stays while the weights go by two rows at a time, so neither of them is ever
 * stored in another order. The scratch holds x, weight, sums; docs/kernels.md has the formula.
 */
#ifndef TTE_TILE_H
#define TTE_TILE_H

#include "tte_dsp.h"

/* A block: 16 tiles or as many as 4 KB hold with their sums, of at most so many elements a row. */
enum { TTE_TILES = 16, TTE_TILES_BYTES = 4096, TTE_TILE_ELEMS = 1536 };

/* Tile after tile: sums[tile][row][column] = start[row] + sum over k of weight[k][row] *
 * x[tile][k][column]; k > 0. */
void tte_tile_2x4(const uint32_t *x, const uint32_t *weight, const uint32_t *weight_end,
                  int32_t *sums, int32_t *sums_end);

/* The same as activations: y[4 * tile + column][row] of out_c channels, clamped to int8 only. The
 * multipliers of the two rows and the zero point of y lie behind the weights. */
void tte_tile_2x4_int8(const uint32_t *x, const uint32_t *weight, const uint32_t *weight_end,
                       int8_t *y, int8_t *y_end, uint32_t out_c);

/* The same; sets `bit` and the next one of a pixel's byte of the mask, out_c / 8 apart, where a
 * row's activation is not clamped. */
void tte_tile_2x4_masked_int8(const uint32_t *x, const uint32_t *weight,
                              const uint32_t *weight_end, int8_t *y, int8_t *y_end, uint32_t out_c,
                              uint8_t *mask, uint32_t bit);

/* Tiles of 4 columns of weights by 4 of x: the gradients of four channels of four pixels. Weights are
 * a tile like one of x. Gradients are 0 where the bit of the mask is 0, clamped to +-127 and counted.
 * The kernel counts on the order of fields. */
typedef struct {
    const uint32_t *x;
    const uint32_t *weight, *weight_end;
    uint32_t *saturations;
    int8_t *to;
    uint32_t step; /* bytes from a pixel to the next, of `to` and of addends */
    int8_t *to_end;
    const uint8_t *mask;
    uint32_t mask_step;
    uint32_t shift; /* moves the first channel's mask bit to bit 16 */
    uint32_t mode, pre_shift;
    const int32_t *multipliers;
    const int8_t *addend;
    const int32_t *addend_multipliers;
    int32_t *sums;
} tte_grad_tiles;

enum {
    TTE_GRAD_PLAIN,  /* round(sum * multiplier / 2^32) */
    TTE_GRAD_ADDED,  /* round((sum * multiplier + addend * its multiplier) * 2^(pre_shift - 32)) */
    TTE_GRAD_SUMS,   /* are added to sums[tile][channel][pixel], and no gradients are made */
    TTE_GRAD_TOTALS  /* plain, but `sums` are added first */
};

void tte_tile_4x4_grad(const tte_grad_tiles *tiles);

/* Whole words of int8 rows, to their tile or pairs; at least one. */
void tte_widen_quads_4(const int8_t *const *rows, uint32_t offset, uint32_t *tile,
                       uint32_t *tile_end);
void tte_widen_quads_2(const int8_t *row_0, const int8_t *row_1, uint32_t *pairs,
                       uint32_t *pairs_end);

/* Tiles of rows of `count` elements, a multiple of four, that are `row_elems` apart; at least one.
 */
void tte_widen_tiles(const int8_t *x, int32_t row_elems, int32_t count, uint32_t offset,
                     uint32_t *tile, uint32_t *tiles_end);

/* Tiles of 3x3 windows of an image of three channels, two pixels apart; rows of x are `row_elems`
 * apart. The 28th element of a window is anything: the byte behind it is read. */
void tte_widen_rgb_windows(const int8_t *x, int32_t row_elems, uint32_t offset, uint32_t *tile,
                           uint32_t *tiles_end);

/* Four elements at a time of neighbouring columns, whose rows are `row_elems` apart; at least one
 * time. */
void tte_widen_quads_columns_4(const int8_t *column, int32_t row_elems, uint32_t *tile,
                               uint32_t *tile_end, uint32_t offset);
void tte_widen_quads_columns_2(const int8_t *column, int32_t row_elems, uint32_t *pairs,
                               uint32_t *pairs_end);

/* One column to every fourth word of a tile. */
void tte_widen_quads_column(const int8_t *column, int32_t row_elems, uint32_t *tile,
                            uint32_t *tile_end);

/* Elements of a map that are `step` bytes apart, in rows; each becomes its row's next one. `_skip`:
 * bytes from behind a row to the next one. The kernel counts on the order of fields. */
typedef struct {
    int32_t step, count, rows; /* count: in a row */
    int32_t to_skip, from_skip;
} tte_grid;

/* Of four bytes, to words, or of one; at least one of them. */
void tte_collect_words(int8_t *to, const int8_t *from, const tte_grid *grid);
void tte_collect_bytes(int8_t *to, const int8_t *from, const tte_grid *grid);

/* The scratch of a product with `k` products a sum and `tiles` tiles of x in all, dealt out to
 * blocks of about the same size. */
typedef struct {
    int32_t k;     /* rounded up to a multiple of 4 */
    int32_t tiles; /* at most, in a block */
    uint32_t *x, *weight, *weight_end;
    int32_t *finish; /* behind the weights: multipliers, zero point */
    int32_t *sums;
} tte_product;

static inline tte_product tte_plan_product(int32_t k, int32_t tiles, void *scratch)
{
    const int32_t padded = (k + 3) & ~3;
    const int32_t room = TTE_TILE_ELEMS / padded;
    const int32_t small = TTE_TILES_BYTES / (8 * padded + 32);
    const int32_t wanted = small < TTE_TILES ? TTE_TILES : small;
    const int32_t most = room < 1 ? 1 : room < wanted ? room : wanted;
    const int32_t blocks = (tiles + most - 1) / most;
    tte_product product;
    product.k = padded;
    product.tiles = (tiles + blocks - 1) / blocks;
    product.x = (uint32_t *)scratch;
    product.weight = product.x + product.tiles * padded * 2;
    product.weight_end = product.weight + 8 + padded;
    product.finish = (int32_t *)product.weight_end;
    product.sums = product.finish + 3;
    return product;
}

/* What every sum of the two rows starts with. */
static inline void tte_start(const tte_product *product, int32_t row_0, int32_t row_1)
{
    int32_t *start = (int32_t *)product->weight;
    for (int32_t i = 0; i < 4; i++) {
        start[i] = row_0;
        start[4 + i] = row_1;
    }
}

/* One tile of x from four rows of `count` elements; `offset` is twice minus the zero point. */
static inline void tte_widen_4(const int8_t *const *rows, int32_t count, uint32_t offset,
                               uint32_t *tile)
{
    const int32_t whole = count & ~3;
    if (whole > 0) {
        tte_widen_quads_4(rows, offset, tile, tile + 2 * whole);
    }
    for (int32_t i = 0; i < 4 && whole < count; i++) {
        const uint32_t word = tte_load_up_to_4(rows[i] + whole, count - whole);
        tile[2 * whole + i] = tte_sxtab16(offset, word);
        tile[2 * whole + 4 + i] = tte_sxtab16_ror8(offset, word);
    }
}

/* Tiles of `rows` rows that are `row_elems` apart; the last tile repeats the last row. */
static inline void tte_widen_rows(const int8_t *x, int32_t row_elems, int32_t rows, int32_t count,
                                  uint32_t offset, const tte_product *product)
{
    const int32_t whole = count % 4 == 0 ? rows & ~3 : 0;
    if (whole > 0) {
        tte_widen_tiles(x, row_elems, count, offset, product->x, product->x + 2 * whole / 4 * count);
    }
    for (int32_t first = whole; first < rows; first += 4) {
        const int8_t *four[4];
        for (int32_t i = 0; i < 4; i++) {
            four[i] = x + (first + i < rows ? first + i : rows - 1) * row_elems;
        }
        tte_widen_4(four, count, offset, product->x + first / 4 * product->k * 2);
    }
}

/* The pairs of two rows of weights; 0 behind the last, so that x may be anything there. */
static inline void tte_widen_2(const int8_t *row_0, const int8_t *row_1, int32_t count,
                               uint32_t *pairs)
{
    const int32_t whole = count & ~3;
    if (whole > 0) {
        tte_widen_quads_2(row_0, row_1, pairs, pairs + whole);
    }
    if (whole < count) {
        const uint32_t a = tte_load_up_to_4(row_0 + whole, count - whole);
        const uint32_t b = tte_load_up_to_4(row_1 + whole, count - whole);
        pairs[whole] = tte_sxtb16(a);
        pairs[whole + 1] = tte_sxtb16(b);
        pairs[whole + 2] = tte_sxtb16_ror8(a);
        pairs[whole + 3] = tte_sxtb16_ror8(b);
    }
}

/* Product k of one of the two rows becomes `value`. */
static inline void tte_set_pair(uint32_t *pairs, int32_t row, int32_t k, int8_t value)
{
    const int16_t wide = value;
    const int32_t place = 2 * ((k & ~3) + row) + (k & 1) * 4 + (k >> 1 & 1);
    memcpy((char *)pairs + 2 * place, &wide, sizeof wide);
}

/* The pairs of two columns of `count` elements. There are `left` columns from the first one on;
 * with only one left the second is the same again. */
static inline void tte_widen_columns_2(const int8_t *column, int32_t row_elems, int32_t left,
                                       int32_t count, uint32_t *pairs)
{
    const int32_t next = left > 1 ? 1 : 0;
    const int32_t whole = left > 1 ? count & ~3 : 0;
    if (whole > 0) {
        tte_widen_quads_columns_2(column, row_elems, pairs, pairs + whole);
    }
    for (int32_t k = whole; k < count; k += 4) {
        uint32_t a = 0, b = 0;
        for (int32_t i = 0; i < 4 && k + i < count; i++) {
            const int8_t *row = column + (k + i) * row_elems;
            a |= (uint32_t)(uint8_t)row[0] << (8 * i);
            b |= (uint32_t)(uint8_t)row[next] << (8 * i);
        }
        pairs[k] = tte_sxtb16(a);
        pairs[k + 1] = tte_sxtb16(b);
        pairs[k + 2] = tte_sxtb16_ror8(a);
        pairs[k + 3] = tte_sxtb16_ror8(b);
    }
}

/* One tile from four columns of `count` elements, as tte_widen_4() from rows. There are `left` columns
 * from the first one on; the last is repeated. */
static inline void tte_widen_columns_4(const int8_t *column, int32_t row_elems, int32_t left,
                                       int32_t count, uint32_t offset, uint32_t *tile)
{
    const int32_t whole = left >= 4 ? count & ~3 : 0;
    if (whole > 0) {
        tte_widen_quads_columns_4(column, row_elems, tile, tile + 2 * whole, offset);
    }
    for (int32_t k = whole; k < count; k += 4) {
        for (int32_t i = 0; i < 4; i++) {
            const int8_t *row = column + k * row_elems + (i < left ? i : left - 1);
            uint32_t word = 0;
            for (int32_t j = 0; j < 4 && k + j < count; j++) {
                word |= (uint32_t)(uint8_t)row[j * row_elems] << (8 * j);
            }
            tile[2 * k + i] = tte_sxtab16(offset, word);
            tile[2 * k + 4 + i] = tte_sxtab16_ror8(offset, word);
        }
    }
}

/* Column i of a tile becomes one of `count` elements. */
static inline void tte_widen_column(const int8_t *column, int32_t row_elems, int32_t count,
                                    int32_t i, uint32_t *tile)
{
    const int32_t whole = count & ~3;
    tile += i;
    if (whole > 0) {
        tte_widen_quads_column(column, row_elems, tile, tile + 2 * whole);
    }
    if (whole < count) {
        uint32_t word = 0;
        for (int32_t k = whole; k < count; k++) {
            word |= (uint32_t)(uint8_t)column[k * row_elems] << (8 * (k - whole));
        }
        tile[2 * whole] = tte_sxtb16(word);
        tile[2 * whole + 4] = tte_sxtb16_ror8(word);
    }
}

#endif
