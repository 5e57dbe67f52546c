/* SPDX-License-Identifier: Apache-2.0
 *
 * grad_input[p][i] = requantise(sum over o of weight[o][i] * grad_output[p][o] + addend), 0 where
 * the mask bit is 0: for 1x1 kernels the product of the weights' columns and the gradients' rows,
 * in tiles of 2 input channels and 4 pixels (tte_tile.h). weight [out_c][in_c], NHWC. Other kernels
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
    /* Two channels whose gradients go from the tiles to where they belong. */
    static const uint8_t all = 0xFF;
    const int plain = (params->pre_shift == 0 || addend != NULL) &&
                      (mask == NULL || in_c % 8 == 0);
    int32_t count;

    tte_start(&product, 0, 0);
    for (int32_t pixel = 0; pixel < pixels; pixel += count) {
        count = pixels - pixel < product.tiles * 4 ? pixels - pixel : product.tiles * 4;
        tte_widen_rows(grad_output + pixel * out_c, out_c, count, out_c, 0, &product);
        int32_t merged = 0; /* trained channels so far */
        for (int32_t i = 0; i < in_c; i += 2) {
            tte_widen_columns_2(weight + i, in_c, in_c - i, out_c, product.weight + 8);
            for (; merged < trained_c && channels[merged] < i + 2; merged++) {
                tte_widen_column(trained + merged, trained_c, out_c, channels[merged] - i,
                                 product.weight + 8);
            }
            const int32_t channels_left = in_c - i, first = pixel * in_c + i;
            const int32_t at_once = plain && channels_left > 1 ? count & ~3 : 0;
            if (at_once > 0) {
                product.finish[0] = multipliers[i];
                product.finish[1] = multipliers[i + 1];
                tte_tile_2x4_grad(product.x, product.weight, product.weight_end,
                                  grad_input + first, grad_input + first + at_once * in_c,
                                  window->in_c, params->pre_shift, saturations,
                                  addend == NULL ? NULL : addend + first,
                                  addend == NULL ? NULL : addend_multipliers + i,
                                  30 - (first & 7), mask == NULL ? &all : mask + first / 8,
                                  mask == NULL ? 0 : window->in_c / 8u);
            }
            if (at_once < count) {
                tte_tile_2x4(product.x + at_once / 4 * product.k * 2, product.weight,
                             product.weight_end, product.sums,
                             product.sums + (count - at_once + 3) / 4 * 8);
                for (int32_t j = at_once; j < count; j++) {
                    const int32_t *sum = product.sums + (j - at_once) / 4 * 8 + j % 4;
                    for (int32_t k = i; k < in_c && k < i + 2; k++, sum += 4) {
                        const uint32_t index = (uint32_t)(first + (j * in_c + k - i));
                        grad_input[index] = tte_grad_value(
                            *sum, multipliers[k], addend, addend_multipliers, (uint32_t)k, mask,
                            index, params->pre_shift, saturations);
                    }
                }
            }
        }
    }
}
