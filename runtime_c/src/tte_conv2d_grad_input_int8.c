/* SPDX-License-Identifier: Apache-2.0
 *
 * grad_input[iy][ix][i] = requantise(sum over taps and o of weight[o][ky][kx][i] *
 * grad_output[oy][ox][o] + addend), 0 where the mask bit is 0; oy * stride = iy + pad - ky *
 * dilation. The transposed convolution, gathered by input pixel: one row of int32 sums is all it
 * needs. weight [out_c][kernel_h][kernel_w][in_c / groups]; `trained` [..][count] stands in for the
 * weights of `channels`, see tte_conv2d_int8.c. One rounding, half up.
 * Source: docs/numerics.md, section 2.
 */
#include "tte_kernels.h"
#include "tte_requant.h"
#include "tte_window.h"

/* Gradients that are not 0, and the weights of their channels. */
enum { QUEUE = 16 };
typedef struct {
    const int8_t *weights[QUEUE];
    int8_t gradients[QUEUE];
} gradient_queue;

static inline void multiply_add(int32_t *restrict sums, const int8_t *restrict weight,
                                int32_t factor, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        sums[i] += weight[i] * factor;
    }
}

/* The same for four: they share the loads and stores of the sums. */
static inline void multiply_add_4(int32_t *restrict sums, const int8_t *const *weights,
                                  const int8_t *factors, int32_t count)
{
    const int8_t *weight_0 = weights[0], *weight_1 = weights[1];
    const int8_t *weight_2 = weights[2], *weight_3 = weights[3];
    const int32_t factor_0 = factors[0], factor_1 = factors[1];
    const int32_t factor_2 = factors[2], factor_3 = factors[3];
    for (int32_t i = 0; i < count; i++) {
        sums[i] += weight_0[i] * factor_0 + weight_1[i] * factor_1 + weight_2[i] * factor_2 +
                   weight_3[i] * factor_3;
    }
}

static void add_queue(const gradient_queue *queue, int32_t length, int32_t count, int32_t *sums)
{
    int32_t j = 0;
    for (; j + 4 <= length; j += 4) {
        multiply_add_4(sums, queue->weights + j, queue->gradients + j, count);
    }
    for (; j < length; j++) {
        multiply_add(sums, queue->weights[j], queue->gradients[j], count);
    }
}

/* What one tap carries back from the output pixel it served, to `count` channels of a group. */
static void add_tap(const tte_window *window, const int8_t *grad_output, const int8_t *weight,
                    int32_t count, int32_t *sums)
{
    const int32_t group_out_c = window->out_c / window->groups;
    const int32_t weight_elems = window->kernel_h * window->kernel_w * count;
    gradient_queue queue;

    for (int32_t group = 0; group < window->groups; group++) {
        int32_t length = 0;
        for (int32_t o = 0; o < group_out_c; o++) {
            queue.weights[length] = weight;
            queue.gradients[length] = *grad_output;
            length += *grad_output++ != 0; /* a branch could not be foretold */
            if (length == QUEUE) {
                add_queue(&queue, length, count, sums);
                length = 0;
            }
            weight += weight_elems;
        }
        add_queue(&queue, length, count, sums);
        sums += count;
    }
}

/* sums[group][count] of input pixel (iy, ix); weight [out_c][kernel_h][kernel_w][count]. */
static void sum_taps(const tte_window *window, const int8_t *grad_output, const int8_t *weight,
                     int32_t count, int32_t iy, int32_t ix, int32_t *sums)
{
    memset(sums, 0, (size_t)(window->groups * count) * sizeof *sums);
    for (int32_t ky = 0; ky < window->kernel_h; ky++) {
        const int32_t oy = tte_output_at(iy + window->pad_top - ky * window->dilation_h,
                                         window->stride_h, window->out_h);
        for (int32_t kx = 0; kx < window->kernel_w && oy >= 0; kx++) {
            const int32_t ox = tte_output_at(ix + window->pad_left - kx * window->dilation_w,
                                             window->stride_w, window->out_w);
            if (ox >= 0) {
                add_tap(window, grad_output + (oy * window->out_w + ox) * window->out_c,
                        weight + (ky * window->kernel_w + kx) * count, count, sums);
            }
        }
    }
}

void tte_conv2d_grad_input_int8(const tte_conv2d_grad_input_params *params,
                                const int8_t *grad_output, const int8_t *weight,
                                const int8_t *trained, const uint16_t *channels,
                                const int32_t *multipliers, const int8_t *addend,
                                const int32_t *addend_multipliers, const uint8_t *mask,
                                int8_t *grad_input, uint32_t *saturations, int32_t *scratch)
{
    const tte_window window = params->window;
    const int32_t share = window.in_c / window.groups;
    const int32_t trained_c = trained == NULL ? 0 : params->trained_c;
    int32_t *trained_sums = scratch + window.in_c;
    uint32_t index = 0;

    for (int32_t iy = 0; iy < window.in_h; iy++) {
        for (int32_t ix = 0; ix < window.in_w; ix++) {
            sum_taps(&window, grad_output, weight, share, iy, ix, scratch);
            if (trained_c > 0) {
                sum_taps(&window, grad_output, trained, trained_c, iy, ix, trained_sums);
            }
            for (int32_t j = 0; j < window.groups * trained_c; j++) {
                scratch[j / trained_c * share + channels[j % trained_c]] = trained_sums[j];
            }
            for (uint32_t channel = 0; channel < window.in_c; channel++, index++) {
                grad_input[index] = tte_grad_value(
                    scratch[channel], multipliers[channel], addend, addend_multipliers, channel,
                    mask, index, params->pre_shift, saturations);
            }
        }
    }
}
