/* SPDX-License-Identifier: Apache-2.0
 *
 * y[oy][ox][o] = activation(bias[o] + sum over taps and inputs of weight * (x - zero point))
 * x, y NHWC, weight [out_c][kernel_h][kernel_w][in_c / groups]; taps in the padding are skipped.
 * Four output channels at a time share their loads of x. Of a layer that trains some input channels
 * only, `trained` [out_c][kernel_h][kernel_w][count] holds the weights of `channels`, which stand in
 * for those in `weight`. One rounding, half up: tte_requantize().
 * Source: docs/numerics.md, section 1.
 */
#include "tte_kernels.h"
#include "tte_requant.h"
#include "tte_window.h"

/* sums[0] += weight . (x - zero point) */
static inline void dot(const int8_t *x, const int8_t *weight, int32_t count, int16_t zero_point,
                       int32_t *sums)
{
    for (int32_t i = 0; i < count; i++) {
        sums[0] += (int16_t)(x[i] - zero_point) * weight[i];
    }
}

/* sums[j] += weight[j] . (x - zero point), j < 4, for weights that are weight_elems apart. */
static inline void dot_4(const int8_t *x, const int8_t *weight, int32_t weight_elems,
                         int32_t count, int16_t zero_point, int32_t *sums)
{
    const int8_t *weight_1 = weight + weight_elems;
    const int8_t *weight_2 = weight_1 + weight_elems;
    const int8_t *weight_3 = weight_2 + weight_elems;
    for (int32_t i = 0; i < count; i++) {
        const int16_t value = (int16_t)(x[i] - zero_point);
        sums[0] += value * weight[i];
        sums[1] += value * weight_1[i];
        sums[2] += value * weight_2[i];
        sums[3] += value * weight_3[i];
    }
}

/* Output channels begin .. end-1; `weight` is that of channel `begin`. The input's zero point comes
 * by its address: a compiler that sees that it has 8 bits may multiply in 16 and widen each product,
 * where it could add products in pairs (PMADDWD). */
static void convolve(const tte_conv2d_params *params, const int16_t *input_zero_point,
                     const int8_t *x, const int8_t *weight, const int32_t *bias,
                     const int32_t *multipliers, uint16_t row_begin, uint16_t row_end,
                     int32_t begin, int32_t end, int8_t *y, uint8_t *mask)
{
    const int16_t zero_point = *input_zero_point;
    const tte_window window = params->window;
    const tte_requant requant = params->requant;
    const int32_t group_in_c = window.in_c / window.groups;
    const int32_t group_out_c = window.out_c / window.groups;
    const int32_t row_weight_elems = window.kernel_w * group_in_c;
    const int32_t weight_elems = window.kernel_h * row_weight_elems;
    const int32_t tap_elems = window.dilation_w * window.in_c;
    /* Neighbouring taps of a row are one run of memory when nothing lies between them. */
    const int joined = window.dilation_w == 1 && window.groups == 1;

    int32_t outputs;
    for (int32_t oy = row_begin; oy < row_end; oy++) {
        const int32_t top = oy * window.stride_h - window.pad_top;
        const tte_range rows = tte_inside(top, window.kernel_h, window.dilation_h, window.in_h);
        const uint32_t place = (uint32_t)tte_ring_row(oy, window.out_ring);
        for (int32_t ox = 0; ox < window.out_w; ox++) {
            const int32_t left = ox * window.stride_w - window.pad_left;
            const tte_range cols =
                tte_inside(left, window.kernel_w, window.dilation_w, window.in_w);
            const int32_t run = joined ? cols.end - cols.begin : 1;
            int8_t *out = y + (place * window.out_w + (uint32_t)ox) * window.out_c;
            const uint32_t index = ((uint32_t)oy * window.out_w + (uint32_t)ox) * window.out_c;
            for (int32_t o = begin; o < end; o += outputs) {
                outputs = window.groups == 1 && end - o >= 4 ? 4 : 1;
                const int32_t channel = window.groups == 1 ? 0 : o / group_out_c * group_in_c;
                int32_t sums[4] = {0, 0, 0, 0};
                for (int32_t ky = rows.begin; ky < rows.end; ky++) {
                    const int32_t iy =
                        tte_ring_row(top + ky * window.dilation_h, window.in_ring);
                    const int32_t row = (iy * window.in_w + left) * window.in_c + channel;
                    const int8_t *tap =
                        weight + (o - begin) * weight_elems + ky * row_weight_elems;
                    for (int32_t kx = cols.begin; kx < cols.end; kx += run) {
                        const int8_t *pixels = x + (row + kx * tap_elems);
                        if (outputs == 4) {
                            dot_4(pixels, tap + kx * group_in_c, weight_elems, run * group_in_c,
                                  zero_point, sums);
                        } else {
                            dot(pixels, tap + kx * group_in_c, run * group_in_c, zero_point,
                                sums);
                        }
                    }
                }
                for (int32_t j = 0; j < outputs; j++) {
                    out[o + j] = tte_activation(bias[o + j] + sums[j], multipliers[o + j],
                                                &requant, mask, index + (uint32_t)(o + j));
                }
            }
        }
    }
}

void tte_conv2d_int8(const tte_conv2d_params *params, const int8_t *x, const int8_t *weight,
                     const int8_t *trained, const uint16_t *channels, const int32_t *bias,
                     const int32_t *multipliers, uint16_t row_begin, uint16_t row_end, int8_t *y,
                     uint8_t *mask, int16_t *scratch)
{
    const int16_t zero_point = params->requant.input_zero_point;
    const tte_window *window = &params->window;
    const int32_t share = window->in_c / window->groups;
    const int32_t taps = window->kernel_h * window->kernel_w;
    const uint32_t row_elems = (uint32_t)window->out_w * window->out_c;
    int8_t *rows = (int8_t *)scratch;
    int32_t end;

    if (mask != NULL) {
        tte_mask_clear(mask, row_begin * row_elems, row_end * row_elems);
    }
    if (trained == NULL) {
        convolve(params, &zero_point, x, weight, bias, multipliers, row_begin, row_end, 0,
                 window->out_c, y, mask);
        return;
    }
    for (int32_t o = 0; o < window->out_c; o = end) {
        end = window->out_c - o < 4 ? window->out_c : o + 4;
        memcpy(rows, weight + o * taps * share, (size_t)((end - o) * taps * share));
        for (int32_t tap = 0; tap < (end - o) * taps; tap++) {
            const int8_t *values = trained + (o * taps + tap) * params->trained_c;
            for (int32_t j = 0; j < params->trained_c; j++) {
                rows[tap * share + channels[j]] = values[j];
            }
        }
        convolve(params, &zero_point, x, rows, bias, multipliers, row_begin, row_end, o, end, y,
                 mask);
    }
}
