/* SPDX-License-Identifier: Apache-2.0
 *
 * runtime_c/src/armv7em/tte_tile.S in C, so that the kernels around it run under sanitizers.
 */
#include "../../runtime_c/src/armv7em/tte_tile.h"

/* The sums of one tile; returns the next one. */
static const uint32_t *multiply(const uint32_t *x, const uint32_t *weight,
                                const uint32_t *weight_end, int32_t *sums)
{
    memcpy(sums, weight, 8 * sizeof *sums);
    for (const uint32_t *pair = weight + 8; pair != weight_end; pair += 2, x += 4) {
        for (int32_t i = 0; i < 4; i++) {
            sums[i] = tte_smlad(pair[0], x[i], sums[i]);
            sums[4 + i] = tte_smlad(pair[1], x[i], sums[4 + i]);
        }
    }
    return x;
}

void tte_tile_2x4(const uint32_t *x, const uint32_t *weight, const uint32_t *weight_end,
                  int32_t *sums, int32_t *sums_end)
{
    for (; sums != sums_end; sums += 8) {
        x = multiply(x, weight, weight_end, sums);
    }
}

void tte_tile_2x4_int8(const uint32_t *x, const uint32_t *weight, const uint32_t *weight_end,
                       int8_t *y, int8_t *y_end, uint32_t out_c)
{
    const int32_t *finish = (const int32_t *)weight_end;
    while (y != y_end) {
        int32_t sums[8];
        x = multiply(x, weight, weight_end, sums);
        for (int32_t i = 0; i < 4; i++, y += out_c) {
            y[0] = (int8_t)tte_ssat8(tte_smmlar(sums[i], finish[0], finish[2]));
            y[1] = (int8_t)tte_ssat8(tte_smmlar(sums[4 + i], finish[1], finish[2]));
        }
    }
}

void tte_tile_2x4_masked_int8(const uint32_t *x, const uint32_t *weight,
                              const uint32_t *weight_end, int8_t *y, int8_t *y_end, uint32_t out_c,
                              uint8_t *mask, uint32_t bit)
{
    const int32_t *finish = (const int32_t *)weight_end;
    while (y != y_end) {
        int32_t sums[8];
        x = multiply(x, weight, weight_end, sums);
        for (int32_t i = 0; i < 4; i++, y += out_c, mask += out_c / 8) {
            for (int32_t row = 0; row < 2; row++) {
                const int32_t value = tte_smmlar(sums[4 * row + i], finish[row], finish[2]);
                y[row] = (int8_t)tte_ssat8(value);
                *mask = (uint8_t)(*mask | (y[row] == value ? bit << row : 0));
            }
        }
    }
}

void tte_tile_4x4_grad(const tte_grad_tiles *tiles)
{
    const uint32_t *x = tiles->x;
    const uint8_t *mask = tiles->mask;
    const int8_t *addend = tiles->addend;
    const int32_t scale = (int32_t)1 << tiles->pre_shift;
    int32_t *so_far = tiles->sums;
    int8_t *to = tiles->to;
    do {
        int32_t sums[4][4] = {{0}};
        for (const uint32_t *pair = tiles->weight; pair != tiles->weight_end; pair += 4, x += 4) {
            for (int32_t i = 0; i < 16; i++) {
                sums[i / 4][i % 4] = tte_smlad(pair[i / 4], x[i % 4], sums[i / 4][i % 4]);
            }
        }
        if (tiles->mode == TTE_GRAD_SUMS || tiles->mode == TTE_GRAD_TOTALS) {
            for (int32_t i = 0; i < 16; i++) {
                sums[i / 4][i % 4] += so_far[i];
            }
        }
        if (tiles->mode == TTE_GRAD_SUMS) {
            memcpy(so_far, sums, sizeof sums);
            to += 4 * tiles->step;
            so_far += 16;
            continue;
        }
        for (int32_t i = 0; i < 4; i++, to += tiles->step, mask += tiles->mask_step) {
            for (int32_t column = 0; column < 4; column++) {
                const int32_t multiplier = tiles->multipliers[column];
                int32_t value = tte_smmulr(sums[column][i], multiplier);
                if (tiles->mode == TTE_GRAD_ADDED) {
                    int64_t total = (int64_t)(sums[column][i] * scale) * multiplier;
                    total += (int64_t)(addend[column] * scale) * tiles->addend_multipliers[column];
                    value = (int32_t)((total + ((int64_t)1 << 31)) >> 32);
                }
                if (((uint32_t)*mask << tiles->shift >> (16 + column) & 1) == 0) {
                    value = 0;
                }
                to[column] = (int8_t)tte_clamp(value, -127, 127);
                *tiles->saturations += to[column] != value;
            }
            if (tiles->mode == TTE_GRAD_ADDED) {
                addend += tiles->step;
            }
        }
        so_far += tiles->mode == TTE_GRAD_TOTALS ? 16 : 0;
    } while (to != tiles->to_end);
}

void tte_widen_quads_4(const int8_t *const *rows, uint32_t offset, uint32_t *tile,
                       uint32_t *tile_end)
{
    for (int32_t k = 0; tile != tile_end; k += 4, tile += 8) {
        for (int32_t i = 0; i < 4; i++) {
            const uint32_t word = tte_load_4(rows[i] + k);
            tile[i] = tte_sxtab16(offset, word);
            tile[4 + i] = tte_sxtab16_ror8(offset, word);
        }
    }
}

void tte_widen_quads_2(const int8_t *row_0, const int8_t *row_1, uint32_t *pairs,
                       uint32_t *pairs_end)
{
    for (; pairs != pairs_end; row_0 += 4, row_1 += 4, pairs += 4) {
        pairs[0] = tte_sxtb16(tte_load_4(row_0));
        pairs[1] = tte_sxtb16(tte_load_4(row_1));
        pairs[2] = tte_sxtb16_ror8(tte_load_4(row_0));
        pairs[3] = tte_sxtb16_ror8(tte_load_4(row_1));
    }
}

void tte_widen_tiles(const int8_t *x, int32_t row_elems, int32_t count, uint32_t offset,
                     uint32_t *tile, uint32_t *tiles_end)
{
    for (; tile != tiles_end; tile += 2 * count, x += 4 * row_elems) {
        const int8_t *rows[4] = {x, x + row_elems, x + 2 * row_elems, x + 3 * row_elems};
        tte_widen_quads_4(rows, offset, tile, tile + 2 * count);
    }
}

void tte_widen_rgb_windows(const int8_t *x, int32_t row_elems, uint32_t offset, uint32_t *tile,
                           uint32_t *tiles_end)
{
    for (; tile != tiles_end; tile += 2 * 28) {
        int8_t windows[4][28];
        const int8_t *rows[4];
        for (int32_t i = 0; i < 4; i++, x += 6) {
            for (int32_t row = 0; row < 3; row++) {
                memcpy(windows[i] + 9 * row, x + row * row_elems, 9);
            }
            windows[i][27] = x[2 * row_elems + 9];
            rows[i] = windows[i];
        }
        tte_widen_quads_4(rows, offset, tile, tile + 2 * 28);
    }
}

void tte_widen_quads_columns_2(const int8_t *column, int32_t row_elems, uint32_t *pairs,
                               uint32_t *pairs_end)
{
    for (; pairs != pairs_end; pairs += 4, column += 4 * row_elems) {
        for (int32_t i = 0; i < 2; i++) {
            const int8_t *row = column + i * row_elems;
            const int8_t *far = row + 2 * row_elems;
            pairs[2 * i] = tte_pkhbt((uint32_t)row[0], (uint32_t)far[0]);
            pairs[2 * i + 1] = tte_pkhbt((uint32_t)row[1], (uint32_t)far[1]);
        }
    }
}

void tte_widen_quads_column(const int8_t *column, int32_t row_elems, uint32_t *tile,
                            uint32_t *tile_end)
{
    for (; tile != tile_end; tile += 8, column += 4 * row_elems) {
        for (int32_t i = 0; i < 2; i++) {
            const int8_t *near = column + i * row_elems;
            tile[4 * i] = tte_pkhbt((uint32_t)near[0], (uint32_t)near[2 * row_elems]);
        }
    }
}

void tte_widen_quads_columns_4(const int8_t *column, int32_t row_elems, uint32_t *tile,
                               uint32_t *tile_end, uint32_t offset)
{
    for (; tile != tile_end; tile += 8, column += 4 * row_elems) {
        for (int32_t i = 0; i < 4; i++) {
            uint32_t word = 0;
            for (int32_t j = 0; j < 4; j++) {
                word |= (uint32_t)(uint8_t)column[j * row_elems + i] << (8 * j);
            }
            tile[i] = tte_sxtab16(offset, word);
            tile[4 + i] = tte_sxtab16_ror8(offset, word);
        }
    }
}

static void collect(int8_t *to, const int8_t *from, const tte_grid *grid, int32_t size)
{
    for (int32_t row = 0; row < grid->rows; row++) {
        for (int32_t i = 0; i < grid->count; i++, to += size) {
            memcpy(to, from + i * grid->step, (size_t)size);
        }
        to += grid->to_skip;
        from += grid->count * grid->step + grid->from_skip;
    }
}

void tte_collect_words(int8_t *to, const int8_t *from, const tte_grid *grid)
{
    collect(to, from, grid, 4);
}

void tte_collect_bytes(int8_t *to, const int8_t *from, const tte_grid *grid)
{
    collect(to, from, grid, 1);
}
