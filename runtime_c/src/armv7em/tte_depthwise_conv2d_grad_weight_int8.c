/* SPDX-License-Identifier: Apache-2.0
 *
 * sum[ky][kx] = sum over output pixels of grad_output[oy][ox][c] * (x[iy][ix][c] - zero point), then
 * 256 * weight + residual -= round(sum * step * rates[c]). x NHWC, weight and residual
 * [channel][kernel_h][kernel_w]. A rate of 0 marks a channel that is never trained.
 *
 * A channel's gradients and inputs are copied to planes with rows of one length, so that each tap is
 * one product of two vectors of int16: the gradients, with zeros between their rows, and the inputs
 * from some element on. SMLAD takes pairs at words; taps at odd elements take the gradients one
 * element on. Inputs are apart by their remainder by the stride. Strides above 2 and kernels above
 * 7 are left to the portable kernel. Source: docs/numerics.md, section 3; docs/performance.md.
 */
#define tte_depthwise_conv2d_grad_weight_int8 tte_depthwise_conv2d_grad_weight_int8_portable
#include "../tte_depthwise_conv2d_grad_weight_int8.c"
#undef tte_depthwise_conv2d_grad_weight_int8

#include "tte_dsp_grad.h"
#include "tte_planes.h"

void tte_depthwise_conv2d_grad_weight_int8(const tte_conv2d_grad_weight_params *params,
                                           const int8_t *x, const int8_t *grad_output,
                                           const tte_factor *step, const tte_factor *rates,
                                           int8_t *weight, int8_t *residual, int16_t *scratch);

/* MAX_THREES: of all taps, even and odd ones apart. */
enum { MAX_KERNEL = 7, MAX_STRIDE = 2, MAX_THREES = 18, MAX_FOURS = 13 };

/* Along one axis tap k reads the input of output o at (o + places[k]) * stride + remainders[k]. */
typedef struct {
    int32_t places[MAX_KERNEL], remainders[MAX_KERNEL];
    int32_t low, high; /* the lowest and the highest place */
} tte_places;

static tte_places find_places(int32_t kernel, int32_t dilation, int32_t stride, int32_t pad)
{
    tte_places places;
    for (int32_t k = 0; k < kernel; k++) {
        /* From a multiple of the stride on, so that C divides down. */
        const int32_t at = k * dilation - pad + stride * pad;
        places.places[k] = at / stride - pad;
        places.remainders[k] = at % stride;
    }
    places.low = places.places[0];
    places.high = places.places[kernel - 1];
    return places;
}

/* Planes of a channel, one behind the other: inputs of each remainder, gradients, the gradients one
 * element on. All in elements. */
typedef struct {
    int32_t pitch;             /* of a row */
    int32_t left;              /* input column 0 */
    int32_t x_elems, d_elems;  /* of a plane */
    int32_t elems;             /* of all planes of a channel */
    int32_t channels;          /* at once */
} tte_vectors;

static inline int32_t least(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static inline int32_t greatest(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

/* The zeros behind a row are those before the next one. */
static tte_vectors plan_vectors(const tte_window *window, const tte_places *y,
                                const tte_places *x)
{
    const int32_t remainders = window->stride_h * window->stride_w;
    const int32_t reach = window->out_w + greatest(x->high, 0);
    const int32_t cols = least(reach, (window->in_w + window->stride_w - 1) / window->stride_w);
    tte_vectors vectors;
    vectors.left = (1 - x->low) & ~1;
    vectors.pitch = (greatest(reach, cols - x->low) + 1) & ~1;
    vectors.d_elems = ((window->out_h - 1) * vectors.pitch + window->out_w + 1 + 7) & ~7;
    vectors.x_elems = (y->high - y->low) * vectors.pitch + ((vectors.left + x->high) & ~1) +
                      vectors.d_elems;
    vectors.elems = remainders * vectors.x_elems + 2 * vectors.d_elems;
    vectors.channels = 4 * 2 * vectors.elems <= TTE_FOUR_PLANES_BYTES ? 4 : 1;
    return vectors;
}

/* A map in the planes of all channels: every `step`-th row and column, as far as they are used. */
static void copy_map(const int8_t *x, const tte_window *window, int32_t width, int32_t row_step,
                     int32_t col_step, int32_t rows, int32_t cols, int32_t zero_point,
                     const tte_vectors *vectors, int16_t *planes, int32_t place, int32_t count)
{
    const int32_t channels = window->out_c;
    tte_copy copy = {x,
                     planes + place,
                     (uint32_t)(col_step * channels),
                     (uint32_t)(2 * vectors->elems),
                     zero_point,
                     cols,
                     rows,
                     (row_step * width - col_step * cols) * channels,
                     2 * (vectors->pitch - cols)};
    if (rows <= 0 || cols <= 0) {
        return;
    }
    if (count == 4 && cols >= 4 && place % 2 == 0) {
        tte_copy_four_channels(&copy);
        return;
    }
    for (int32_t i = 0; i < count; i++, copy.x++, copy.to += vectors->elems) {
        tte_copy_channel(&copy);
    }
}

/* All planes of `count` channels. */
static void copy_group(const tte_conv2d_grad_weight_params *params, const tte_places *y_places,
                       const tte_places *x_places, const tte_vectors *vectors, const int8_t *x,
                       const int8_t *grad_output, int16_t *planes, int32_t count)
{
    const tte_window *window = &params->window;
    const int32_t down = window->stride_h, across = window->stride_w;
    const int32_t rows = window->out_h + y_places->high;
    const int32_t cols = window->out_w + x_places->high;
    const int32_t first = -y_places->low * vectors->pitch + vectors->left;
    const int32_t d = down * across * vectors->x_elems;
    for (int32_t i = 0; i < down * across; i++) {
        const int32_t row = i / across, col = i % across;
        copy_map(x + (row * window->in_w + col) * window->in_c, window, window->in_w, down, across,
                 least(rows, (window->in_h - row + down - 1) / down),
                 least(cols, (window->in_w - col + across - 1) / across),
                 params->input_zero_point, vectors, planes, i * vectors->x_elems + first, count);
    }
    copy_map(grad_output, window, window->out_w, 1, 1, window->out_h, window->out_w, 0, vectors,
             planes, d, count);
    for (int32_t i = 0; i < count; i++) {
        int16_t *gradients = planes + i * vectors->elems + d;
        tte_shift_elements(gradients, gradients + vectors->d_elems,
                           (uint32_t)vectors->d_elems / 2);
    }
}

/* All taps, in threes; sums come in fours, with four others in between. Returns the end. */
static tte_three *list_taps(const tte_window *window, const tte_places *y, const tte_places *x,
                            const tte_vectors *vectors, tte_three *three)
{
    const int32_t d = window->stride_h * window->stride_w * vectors->x_elems;
    for (int32_t odd = 0; odd < 2; odd++) {
        int32_t count = 0;
        for (int32_t tap = 0; tap < window->kernel_h * window->kernel_w; tap++) {
            const int32_t ky = tap / window->kernel_w, kx = tap % window->kernel_w;
            const int32_t plane = y->remainders[ky] * window->stride_w + x->remainders[kx];
            const int32_t col = vectors->left + x->places[kx];
            if (col % 2 == odd) {
                three->gradients = 2 * (d + odd * vectors->d_elems);
                for (int32_t i = count; i < 3; i++) { /* where no other follows, once more */
                    three->inputs[i] = 2 * (plane * vectors->x_elems +
                                            (y->places[ky] - y->low) * vectors->pitch + col - odd);
                    three->sums[i] = 4 * (tap + tap / 4 * 4);
                }
                three += count == 2;
                count = (count + 1) % 3;
            }
        }
        three += count > 0;
    }
    return three;
}

/* Steps down the gradients of a channel; sums come in fours, with four others in between. */
static void update(int8_t *weight, int8_t *residual, const int32_t *sums, int32_t count,
                   tte_factor step, tte_factor rate)
{
    tte_move move;
    int32_t i = 0;
    if (count >= 4 && tte_plan_move(step, rate, &move)) {
        const int32_t *const end = sums + count / 4 * 8;
        i = (int32_t)(tte_update_fours(weight, residual, sums, end, &move) - sums) / 2;
    }
    for (; i < count; i++) {
        tte_update_weight(weight + i, residual + i, sums[i + i / 4 * 4], step, rate);
    }
}

void tte_depthwise_conv2d_grad_weight_int8(const tte_conv2d_grad_weight_params *params,
                                           const int8_t *x, const int8_t *grad_output,
                                           const tte_factor *step, const tte_factor *rates,
                                           int8_t *weight, int8_t *residual, int16_t *scratch)
{
    const tte_window *window = &params->window;
    const int32_t taps = window->kernel_h * window->kernel_w;
    if (window->kernel_h > MAX_KERNEL || window->kernel_w > MAX_KERNEL ||
        window->stride_h > MAX_STRIDE || window->stride_w > MAX_STRIDE) {
        tte_depthwise_conv2d_grad_weight_int8_portable(params, x, grad_output, step, rates, weight,
                                                       residual, scratch);
        return;
    }
    if (step->mantissa == 0) {
        return;
    }
    const tte_places y_places = find_places(window->kernel_h, window->dilation_h,
                                            window->stride_h, window->pad_top);
    const tte_places x_places = find_places(window->kernel_w, window->dilation_w,
                                            window->stride_w, window->pad_left);
    const tte_vectors vectors = plan_vectors(window, &y_places, &x_places);
    tte_three threes[MAX_THREES];
    const tte_three *const end = list_taps(window, &y_places, &x_places, &vectors, threes);
    int32_t sums[MAX_FOURS * 8], count;

    tte_clear_words(scratch, (uint32_t)(vectors.channels * vectors.elems / 2));
    for (int32_t channel = 0; channel < window->out_c; channel += count) {
        count = least(window->out_c - channel, vectors.channels);
        copy_group(params, &y_places, &x_places, &vectors, x + channel, grad_output + channel,
                   scratch, count);
        for (int32_t i = 0; i < count; i++, weight += taps, residual += taps) {
            const int16_t *planes = scratch + i * vectors.elems;
            const tte_factor rate = rates[channel + i];
            if (rate.mantissa == 0) {
                continue;
            }
            tte_dot_threes(planes, threes, end, 2u * (uint32_t)vectors.d_elems, sums);
            update(weight, residual, sums, taps, *step, rate);
        }
    }
}
