/* SPDX-License-Identifier: Apache-2.0
 *
 * y[oy][ox][c] = activation(bias[c] + sum over taps of weight[c][ky][kx] * (x - zero point))
 * x, y NHWC with the same channels, weight [channel][kernel_h][kernel_w]. A channel is first
 * copied to scratch as x - zero point with a border of zeros: no tap needs a test, and y may
 * overwrite x. A single tap needs no copy. One rounding, half up: tte_requantize(). Source:
 * docs/numerics.md, section 1;
 * in place depthwise: MCUNetV2/V3 ("On-Device Training Under 256KB Memory", NeurIPS 2022).
 */
#include "tte_kernels.h"
#include "tte_requant.h"
#include "tte_window.h"

/* The rows and columns of a channel that the outputs need: row 0 is input row `top`. */
typedef struct {
    int32_t top, left, rows, cols;
} plane_shape;

static void copy_channel(const tte_window *window, const plane_shape *shape, const int8_t *x,
                         int16_t zero_point, int16_t *plane)
{
    for (int32_t row = 0; row < shape->rows; row++) {
        const int32_t iy = shape->top + row;
        const int inside = 0 <= iy && iy < window->in_h;
        const int32_t from = inside ? tte_ring_row(iy, window->in_ring) * window->in_w : 0;
        for (int32_t col = 0; col < shape->cols; col++) {
            const int32_t ix = shape->left + col;
            *plane++ = inside && 0 <= ix && ix < window->in_w
                           ? (int16_t)(x[(from + ix) * window->in_c] - zero_point)
                           : 0;
        }
    }
}

static inline int32_t window_sum(const tte_window *window, const int16_t *plane, int32_t cols,
                                 const int8_t *weight)
{
    int32_t sum = 0;
    for (int32_t ky = 0; ky < window->kernel_h; ky++) {
        for (int32_t kx = 0; kx < window->kernel_w; kx++) {
            sum += plane[kx * window->dilation_w] * *weight++;
        }
        plane += window->dilation_h * cols;
    }
    return sum;
}

/* The same for four neighbouring outputs: they share the loads of the weights. */
static inline void window_sum_4(const tte_window *window, const int16_t *plane, int32_t cols,
                                const int8_t *weight, int32_t *sums)
{
    const int32_t stride = window->stride_w;
    int32_t sum_0 = 0, sum_1 = 0, sum_2 = 0, sum_3 = 0;
    for (int32_t ky = 0; ky < window->kernel_h; ky++) {
        const int16_t *tap = plane;
        for (int32_t kx = 0; kx < window->kernel_w; kx++) {
            const int32_t value = *weight++;
            sum_0 += tap[0] * value;
            sum_1 += tap[stride] * value;
            sum_2 += tap[2 * stride] * value;
            sum_3 += tap[3 * stride] * value;
            tap += window->dilation_w;
        }
        plane += window->dilation_h * cols;
    }
    sums[0] = sum_0;
    sums[1] = sum_1;
    sums[2] = sum_2;
    sums[3] = sum_3;
}

/* A kernel of one tap: every element by itself. */
static void scale_channels(const tte_conv2d_params *params, const int8_t *x, const int8_t *weight,
                           const int32_t *bias, const int32_t *multipliers, uint16_t row_begin,
                           uint16_t row_end, int8_t *y, uint8_t *mask)
{
    const tte_window *window = &params->window;
    const tte_requant requant = params->requant;
    const int32_t channels = window->out_c, row_elems = window->out_w * channels;
    uint32_t index = (uint32_t)(row_begin * row_elems);
    for (int32_t row = row_begin; row < row_end; row++) {
        const int8_t *from = x + tte_ring_row(row, window->in_ring) * row_elems;
        int8_t *to = y + tte_ring_row(row, window->out_ring) * row_elems;
        for (int32_t i = 0; i < row_elems; i += channels) {
            for (int32_t c = 0; c < channels; c++, from++, to++, index++) {
                const int32_t sum = bias[c] + weight[c] * (*from - requant.input_zero_point);
                *to = tte_activation(sum, multipliers[c], &requant, mask, index);
            }
        }
    }
}

void tte_depthwise_conv2d_int8(const tte_conv2d_params *params, const int8_t *x,
                               const int8_t *weight, const int32_t *bias,
                               const int32_t *multipliers, uint16_t row_begin, uint16_t row_end,
                               int8_t *y, uint8_t *mask, int16_t *scratch)
{
    const tte_window window = params->window;
    const tte_requant requant = params->requant;
    const uint32_t row_elems = (uint32_t)window.out_w * window.out_c;
    const int32_t rows = row_end - row_begin;
    int32_t outputs;
    const plane_shape shape = {
        row_begin * window.stride_h - window.pad_top,
        -window.pad_left,
        (rows - 1) * window.stride_h + (window.kernel_h - 1) * window.dilation_h + 1,
        (window.out_w - 1) * window.stride_w + (window.kernel_w - 1) * window.dilation_w + 1,
    };

    if (mask != NULL) {
        tte_mask_clear(mask, row_begin * row_elems, row_end * row_elems);
    }
    if (tte_is_pointwise(&window)) {
        scale_channels(params, x, weight, bias, multipliers, row_begin, row_end, y, mask);
        return;
    }
    for (int32_t channel = 0; channel < window.out_c; channel++) {
        uint32_t index = row_begin * row_elems + (uint32_t)channel;
        copy_channel(&window, &shape, x + channel, requant.input_zero_point, scratch);
        for (int32_t row = 0; row < rows; row++) {
            const int16_t *plane = scratch + row * window.stride_h * shape.cols;
            const int32_t to = tte_ring_row(row_begin + row, window.out_ring);
            int8_t *out = y + (uint32_t)to * row_elems + channel;
            for (int32_t ox = 0; ox < window.out_w; ox += outputs) {
                outputs = window.out_w - ox >= 4 ? 4 : 1;
                int32_t sums[4];
                if (outputs == 4) {
                    window_sum_4(&window, plane, shape.cols, weight, sums);
                } else {
                    sums[0] = window_sum(&window, plane, shape.cols, weight);
                }
                for (int32_t j = 0; j < outputs; j++, index += window.out_c) {
                    *out = tte_activation(bias[channel] + sums[j], multipliers[channel], &requant,
                                          mask, index);
                    out += window.out_c;
                }
                plane += outputs * window.stride_w;
            }
        }
        weight += window.kernel_h * window.kernel_w;
    }
}
