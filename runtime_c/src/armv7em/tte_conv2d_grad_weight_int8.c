/* SPDX-License-Identifier: Apache-2.0
 *
 * sums[o][i] = sum over pixels of grad_output[p][o] * (x[p][i] - zero point), then
 * 256 * weight + residual -= round(sums * step * rates[o]): for 1x1 kernels the product of the
 * gradients' and the inputs' columns, in tiles of 2 output and 4 input channels (tte_tile.h); one
 * pixel needs no tiles. weight, residual [out_c][in_c], NHWC. A rate of 0 marks a channel that is
 * never trained. Other kernels and large maps are left to the portable kernel.
 * Source: docs/numerics.md, section 3; docs/performance.md.
 */
#define tte_conv2d_grad_weight_int8 tte_conv2d_grad_weight_int8_portable
#include "../tte_conv2d_grad_weight_int8.c"
#undef tte_conv2d_grad_weight_int8

#include "tte_dsp_grad.h"
#include "tte_tile.h"

void tte_conv2d_grad_weight_int8(const tte_conv2d_grad_weight_params *params, const int8_t *x,
                                 const int8_t *grad_output, const tte_factor *step,
                                 const tte_factor *rates, int8_t *weight, int8_t *residual,
                                 int32_t *scratch);

static int is_pointwise(const tte_window *window)
{
    return window->kernel_h == 1 && window->kernel_w == 1 && window->groups == 1 &&
           window->stride_h == 1 && window->stride_w == 1 && window->pad_top == 0 &&
           window->pad_left == 0 && window->in_h == window->out_h && window->in_w == window->out_w;
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

/* One pixel, as behind a classifier: every row of sums is the inputs times a gradient. Inputs and
 * sums take no more scratch than tiles of so many channels. */
static TTE_APART void update_pixel(const tte_conv2d_grad_weight_params *params, const int8_t *x,
                                   const int8_t *grad_output, tte_factor step,
                                   const tte_factor *rates, int8_t *weight, int8_t *residual,
                                   int32_t *scratch, int32_t channels)
{
    const int32_t in_c = params->window.in_c, out_c = params->window.out_c;
    for (int32_t i = 0; i < in_c; i += channels) {
        const int32_t count = in_c - i < channels ? in_c - i : channels;
        const int32_t whole = (count + 7) & ~7;
        for (int32_t j = 0; j < count; j++) {
            scratch[j] = x[i + j] - params->input_zero_point;
        }
        for (int32_t o = 0; o < out_c; o++) {
            if (rates[o].mantissa != 0) {
                tte_scale_words(scratch + whole, scratch, (uint32_t)whole, grad_output[o]);
                tte_update(weight + o * in_c + i, residual + o * in_c + i, scratch + whole, count,
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
    const int32_t in_c = window->in_c, out_c = window->out_c;
    const int32_t pixels = window->out_h * window->out_w;
    if (!is_pointwise(window) || pixels > TTE_TILE_ELEMS) {
        tte_conv2d_grad_weight_int8_portable(params, x, grad_output, step, rates, weight, residual,
                                             scratch);
        return;
    }
    if (step->mantissa == 0) {
        return;
    }

    const tte_product product = tte_plan_product(pixels, (in_c + 3) / 4, scratch);
    if (pixels == 1) {
        update_pixel(params, x, grad_output, *step, rates, weight, residual, scratch,
                     product.tiles * 4);
        return;
    }
    const uint32_t offset = tte_both(-params->input_zero_point);
    int32_t count;
    tte_start(&product, 0, 0);
    for (int32_t i = 0; i < in_c; i += count) {
        count = in_c - i < product.tiles * 4 ? in_c - i : product.tiles * 4;
        for (int32_t first = 0; first < count; first += 4) {
            tte_widen_columns_4(x + i + first, in_c, count - first, pixels, offset,
                                product.x + first * product.k / 2);
        }
        for (int32_t o = 0; o < out_c; o += 2) {
            tte_widen_columns_2(grad_output + o, out_c, out_c - o, pixels, product.weight + 8);
            tte_tile_2x4(product.x, product.weight, product.weight_end, product.sums,
                         product.sums + (count + 3) / 4 * 8);
            for (int32_t j = o; j < out_c && j < o + 2; j++) {
                if (rates[j].mantissa != 0) {
                    update(weight + j * in_c + i, residual + j * in_c + i,
                           product.sums + (j - o) * 4, count, *step, rates[j]);
                }
            }
        }
    }
}
