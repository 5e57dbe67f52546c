/* SPDX-License-Identifier: Apache-2.0
 *
 * grad_input[p][i] = requantise(sum over o of weight[o][i] * grad_output[p][o] + addend), 0 where
 * the mask bit is 0: for 1x1 kernels the product of the weights' columns and the gradients' rows,
 * in tiles of 4 input channels and 4 pixels (tte_tile.h). weight [out_c][in_c], NHWC. Other kernels
 * and single pixels are left to the portable kernel. One rounding, half up: SMMULR.
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

static int is_pointwise(const tte_window *window)
{
    return window->kernel_h == 1 && window->kernel_w == 1 && window->groups == 1 &&
           window->stride_h == 1 && window->stride_w == 1 && window->pad_top == 0 &&
           window->pad_left == 0 && window->in_h == window->out_h && window->in_w == window->out_w;
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

void tte_conv2d_grad_input_int8(const tte_conv2d_grad_input_params *params,
                                const int8_t *grad_output, const int8_t *weight,
                                const int8_t *trained, const uint16_t *channels,
                                const int32_t *multipliers, const int8_t *addend,
                                const int32_t *addend_multipliers, const uint8_t *mask,
                                int8_t *grad_input, uint32_t *saturations, int32_t *scratch)
{
    const tte_window *window = &params->window;
    const int32_t in_c = window->in_c, out_c = window->out_c;
    const int32_t pixels = window->in_h * window->in_w;
    if (!is_pointwise(window) || pixels == 1 || !tte_grad_fits(out_c, params->pre_shift)) {
        tte_conv2d_grad_input_int8_portable(params, grad_output, weight, trained, channels,
                                            multipliers, addend, addend_multipliers, mask,
                                            grad_input, saturations, scratch);
        return;
    }

    static const uint8_t all = 0xFF;
    static const int32_t nothing[4] = {0};
    const int32_t trained_c = trained == NULL ? 0 : params->trained_c;
    /* Whether four channels of four pixels go from the tiles to where they belong. */
    const int whole = (params->pre_shift == 0 || addend != NULL) &&
                      (mask == NULL || in_c % 8 == 0);
    tte_product product = tte_plan_product(out_c, (pixels + 3) / 4, scratch);
    if (whole && addend == NULL && (pixels | in_c | out_c) % 4 == 0) {
        const int32_t k = plan_part(&product, pixels / 4, in_c);
        product.tiles = k < product.k ? pixels / 4 : product.tiles;
        product.k = k;
    }
    const int in_parts = product.k < out_c;
    const int32_t tile_words = product.k * 2;
    uint32_t *const columns = product.x + product.tiles * tile_words;
    int32_t *const totals = (int32_t *)columns + tile_words; /* [channel / 4][tile][4][4] */
    int32_t sums[16], count;
    tte_grad_tiles tiles;

    tiles.x = product.x;
    tiles.weight = columns;
    tiles.saturations = saturations;
    tiles.mode = addend == NULL ? TTE_GRAD_PLAIN : TTE_GRAD_ADDED;
    tiles.step = window->in_c;
    tiles.pre_shift = params->pre_shift;
    tiles.mask_step = mask == NULL ? 0 : window->in_c / 8u;
    if (in_parts) {
        memset(totals, 0, sizeof *totals * (size_t)(pixels * in_c));
    }
    for (int32_t pixel = 0, o = 0; pixel < pixels;) {
        const int32_t products = out_c - o < product.k ? out_c - o : product.k;
        count = pixels - pixel < product.tiles * 4 ? pixels - pixel : product.tiles * 4;
        tte_widen_rows(grad_output + pixel * out_c + o, out_c, count, products, 0, &product);
        tiles.weight_end = columns + ((products + 3) & ~3) * 2;
        if (in_parts) {
            tiles.mode = o + products < out_c ? TTE_GRAD_SUMS : TTE_GRAD_TOTALS;
        }
        int32_t merged = 0; /* trained channels so far */
        for (int32_t i = 0; i < in_c; i += 4) {
            const int32_t first = pixel * in_c + i, left = in_c - i;
            const int32_t at_once = whole && left >= 4 ? count & ~3 : 0;
            tte_widen_columns_4(weight + o * in_c + i, in_c, left, products, 0, columns);
            for (; merged < trained_c && channels[merged] < i + 4; merged++) {
                tte_widen_column(trained + o * trained_c + merged, trained_c, products,
                                 channels[merged] - i, columns);
            }
            tiles.to = grad_input + first;
            tiles.to_end = tiles.to + at_once * in_c;
            tiles.mask = mask == NULL ? &all : mask + first / 8;
            tiles.shift = 16u - (uint32_t)(i & 4);
            tiles.multipliers = left < 4 ? nothing : multipliers + i;
            tiles.addend = addend == NULL ? NULL : addend + first;
            tiles.addend_multipliers = addend == NULL ? NULL : addend_multipliers + i;
            tiles.sums = in_parts ? totals + i * pixels : sums;
            if (at_once > 0) {
                tte_tile_4x4_grad(&tiles);
            }
            for (int32_t j = at_once; j < count; j++) {
                if (j % 4 == 0) {
                    sum_tile(&tiles, product.x + j / 4 * tile_words, sums);
                }
                for (int32_t k = i; k < in_c && k < i + 4; k++) {
                    const uint32_t index = (uint32_t)(first + (j * in_c + k - i));
                    grad_input[index] = tte_grad_value(
                        sums[(k - i) * 4 + j % 4], multipliers[k], addend, addend_multipliers,
                        (uint32_t)k, mask, index, params->pre_shift, saturations);
                }
            }
        }
        o += products;
        if (o == out_c) {
            o = 0;
            pixel += count;
        }
    }
}
