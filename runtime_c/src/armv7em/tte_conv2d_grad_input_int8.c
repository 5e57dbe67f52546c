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

    const int32_t trained_c = trained == NULL ? 0 : params->trained_c;
    const tte_product product = tte_plan_product(out_c, (pixels + 3) / 4, scratch);
    const int32_t tile_words = product.k * 2;
    uint32_t *const columns = product.x + product.tiles * tile_words;
    static const uint8_t all = 0xFF;
    static const int32_t nothing[4] = {0};
    /* Whether four channels of four pixels go from the sums to where they belong. */
    const int whole = mask == NULL || in_c % 8 == 0;
    const int plain = params->pre_shift == 0 && addend == NULL;
    int32_t sums[16], count;
    tte_grad_tiles tiles;

    tiles.weight = columns;
    tiles.weight_end = columns + tile_words;
    tiles.saturations = saturations;
    tiles.step = window->in_c;
    tiles.pre_shift = params->pre_shift;
    tiles.mask_step = mask == NULL ? 0 : window->in_c / 8u;
    tiles.sums = sums;
    for (int32_t pixel = 0; pixel < pixels; pixel += count) {
        count = pixels - pixel < product.tiles * 4 ? pixels - pixel : product.tiles * 4;
        tte_widen_rows(grad_output + pixel * out_c, out_c, count, out_c, 0, &product);
        int32_t merged = 0; /* trained channels so far */
        for (int32_t i = 0; i < in_c; i += 4) {
            tte_widen_columns_4(weight + i, in_c, in_c - i, out_c, 0, columns);
            for (; merged < trained_c && channels[merged] < i + 4; merged++) {
                tte_widen_column(trained + merged, trained_c, out_c, channels[merged] - i,
                                 columns);
            }
            const int32_t first = pixel * in_c + i, left = in_c - i;
            const int32_t at_once = whole && left >= 4 ? count & ~3 : 0;
            tiles.x = product.x;
            tiles.to = grad_input + first;
            tiles.to_end = tiles.to + at_once * in_c;
            tiles.mask = mask == NULL ? &all : mask + first / 8;
            tiles.shift = 16u - (uint32_t)(i & 4);
            tiles.mode = plain ? TTE_GRAD_PLAIN : TTE_GRAD_SCALED;
            tiles.multipliers = left < 4 ? nothing : multipliers + i;
            tiles.addend = addend == NULL ? tiles.to : addend + first;
            tiles.addend_multipliers = addend == NULL ? nothing : addend_multipliers + i;
            if (at_once > 0) {
                tte_tile_4x4_grad(&tiles);
            }
            tiles.mode = TTE_GRAD_SUMS;
            tiles.x += at_once / 4 * tile_words;
            for (int32_t j = at_once; j < count; j++) {
                if (j % 4 == 0) {
                    tte_tile_4x4_grad(&tiles);
                    tiles.x += tile_words;
                }
                for (int32_t k = i; k < in_c && k < i + 4; k++) {
                    const uint32_t index = (uint32_t)(first + (j * in_c + k - i));
                    grad_input[index] = tte_grad_value(
                        sums[(k - i) * 4 + j % 4], multipliers[k], addend, addend_multipliers,
                        (uint32_t)k, mask, index, params->pre_shift, saturations);
                }
            }
        }
    }
}
