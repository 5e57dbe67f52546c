/* SPDX-License-Identifier: Apache-2.0
 *
 * y[iy][ix][o] = activation(bias[o] + sum over taps and inputs of weight[o][ky][kx][i] *
 * (x[oy][ox][i] - zero point)), oy * stride = iy + pad - ky * dilation. Outputs a stride apart have
 * the same taps: they are the columns of one product in tiles of 2 output channels and 4 pixels
 * (tte_tile.h), as in a convolution, with the zero point where x ends. weight
 * [in_c][kernel_h][kernel_w][out_c / groups], in_c being the channels of y. One rounding, half up.
 * Source: docs/numerics.md, section 1; docs/performance.md.
 */
#include "tte_kernels.h"
#include "tte_tile.h"

/* Along one axis: the outputs begin, begin + stride, ... and their taps first, first + step, ... Tap
 * t of output n reads input n + origin - t * move. */
typedef struct {
    int32_t begin, outputs;
    int32_t first, step, taps;
    int32_t origin, move, size; /* size: of the input */
} axis_phase;

static axis_phase plan_axis(int32_t begin, int32_t out_size, int32_t in_size, int32_t kernel,
                            int32_t stride, int32_t dilation, int32_t pad)
{
    axis_phase phase = {begin, 0, 0, 1, 0, 0, 0, in_size};
    phase.outputs = begin < out_size ? (out_size - begin + stride - 1) / stride : 0;
    while (phase.first < kernel && (begin + pad - phase.first * dilation) % stride != 0) {
        phase.first++;
    }
    if (phase.first < kernel) {
        while (phase.step * dilation % stride != 0) {
            phase.step++;
        }
        phase.taps = (kernel - phase.first + phase.step - 1) / phase.step;
        phase.origin = (begin + pad - phase.first * dilation) / stride;
        phase.move = phase.step * dilation / stride;
    }
    return phase;
}

/* What the product of one phase works on. */
typedef struct {
    const tte_conv2d_params *params;
    axis_phase rows, cols;
    tte_product product;
    int8_t *weight_rows; /* two rows of weights, their taps side by side */
    int32_t k;
} phase_plan;

/* The inputs of one output pixel, tap after tap; with one tap on the map they are not copied. */
static const int8_t *collect(const phase_plan *plan, const int8_t *x, int32_t row, int32_t col,
                             int8_t *column)
{
    const tte_window *window = &plan->params->window;
    const int32_t group_x = window->out_c / window->groups;
    int8_t *to = column;

    for (int32_t i = 0; i < plan->rows.taps; i++) {
        const int32_t oy = row + plan->rows.origin - i * plan->rows.move;
        for (int32_t j = 0; j < plan->cols.taps; j++, to += group_x) {
            const int32_t ox = col + plan->cols.origin - j * plan->cols.move;
            const int inside =
                0 <= oy && oy < plan->rows.size && 0 <= ox && ox < plan->cols.size;
            const int8_t *from = inside ? x + (oy * window->out_w + ox) * window->out_c : x;
            if (inside && plan->k == group_x) {
                return from;
            }
            if (inside) {
                memcpy(to, from, (size_t)group_x);
            } else {
                memset(to, plan->params->requant.input_zero_point, (size_t)group_x);
            }
        }
    }
    return column;
}

/* Tiles of x: the columns of `count` pixels of the phase from number `pixel` on. */
static void widen_pixels(const phase_plan *plan, const int8_t *x, int32_t pixel, int32_t count)
{
    const uint32_t offset = tte_both(-plan->params->requant.input_zero_point);
    int8_t *columns = (int8_t *)plan->product.weight;
    uint32_t *tile = plan->product.x;
    int32_t row = pixel / plan->cols.outputs, col = pixel % plan->cols.outputs;

    for (int32_t first = 0; first < count; first += 4, tile += plan->product.k * 2) {
        const int8_t *pixels[4];
        for (int32_t i = 0; i < 4; i++) {
            if (first + i >= count) {
                pixels[i] = pixels[i - 1];
                continue;
            }
            pixels[i] = collect(plan, x, row, col, columns + i * plan->product.k);
            if (++col == plan->cols.outputs) {
                col = 0;
                row++;
            }
        }
        tte_widen_4(pixels, plan->k, offset, tile);
    }
}

/* The weights of one output channel in the order of the columns. */
static const int8_t *weight_row(const phase_plan *plan, const int8_t *weight, int32_t o,
                                int8_t *row)
{
    const tte_window *window = &plan->params->window;
    const int32_t group_x = window->out_c / window->groups;
    int8_t *to = row;

    for (int32_t i = 0; i < plan->rows.taps; i++) {
        const int32_t ky = plan->rows.first + i * plan->rows.step;
        for (int32_t j = 0; j < plan->cols.taps; j++, to += group_x) {
            const int32_t kx = plan->cols.first + j * plan->cols.step;
            const int8_t *from =
                weight + ((o * window->kernel_h + ky) * window->kernel_w + kx) * group_x;
            if (plan->k == group_x) {
                return from;
            }
            memcpy(to, from, (size_t)group_x);
        }
    }
    return row;
}

/* y and mask of one channel, of the sums from number `first` to `end` - 1, whose outputs begin at
 * `index` and are `step` elements apart. */
static void activate(const tte_requant *requant, const int32_t *sums, int32_t multiplier,
                     int32_t first, int32_t end, int8_t *y, uint8_t *mask, uint32_t index,
                     uint32_t step)
{
    const int32_t zero_point = requant->output_zero_point;
    const int plain = tte_is_plain(requant);

    for (int32_t i = first; i < end; i++, index += step) {
        const int32_t sum = sums[i + (i & ~3)];
        if (!plain) {
            y[index] = tte_activation(sum, multiplier, requant, mask, index);
            continue;
        }
        const int32_t value = tte_smmlar(sum, multiplier, zero_point);
        const int32_t clamped = tte_ssat8(value);
        y[index] = (int8_t)clamped;
        if (mask != NULL && value == clamped) {
            tte_mask_set(mask, index);
        }
    }
}

/* y and mask of `outputs` channels, 1 or 2, from channel o on, row by row of the phase. */
static void store(const phase_plan *plan, const int32_t *multipliers, int32_t o, int32_t outputs,
                  int32_t pixel, int32_t count, int8_t *y, uint8_t *mask)
{
    const tte_window *window = &plan->params->window;
    const uint32_t step = (uint32_t)window->stride_w * window->in_c;
    int32_t row = pixel / plan->cols.outputs, col = pixel % plan->cols.outputs, end;

    for (int32_t first = 0; first < count; first = end, row++, col = 0) {
        const int32_t left = plan->cols.outputs - col;
        const int32_t iy = plan->rows.begin + row * window->stride_h;
        const int32_t ix = plan->cols.begin + col * window->stride_w;
        const uint32_t index = (uint32_t)((iy * window->in_w + ix) * window->in_c + o);
        end = count - first < left ? count : first + left;
        for (int32_t j = 0; j < outputs; j++) {
            activate(&plan->params->requant, plan->product.sums + 4 * j, multipliers[o + j],
                     first, end, y, mask, index + (uint32_t)j, step);
        }
    }
}

/* Outputs that no tap reaches. */
static void fill(const phase_plan *plan, const int32_t *bias, const int32_t *multipliers,
                 int8_t *y, uint8_t *mask)
{
    const tte_window *window = &plan->params->window;
    for (int32_t row = 0; row < plan->rows.outputs; row++) {
        const int32_t iy = plan->rows.begin + row * window->stride_h;
        for (int32_t col = 0; col < plan->cols.outputs; col++) {
            const int32_t ix = plan->cols.begin + col * window->stride_w;
            uint32_t index = (uint32_t)((iy * window->in_w + ix) * window->in_c);
            for (int32_t o = 0; o < window->in_c; o++, index++) {
                y[index] = tte_activation(bias[o], multipliers[o], &plan->params->requant, mask,
                                          index);
            }
        }
    }
}

static void multiply(const phase_plan *plan, const int8_t *x, const int8_t *weight,
                     const int32_t *bias, const int32_t *multipliers, int8_t *y, uint8_t *mask)
{
    const tte_window *window = &plan->params->window;
    const tte_product *product = &plan->product;
    const int32_t group_x = window->out_c / window->groups;
    const int32_t group_y = window->in_c / window->groups;
    const int32_t pixels = plan->rows.outputs * plan->cols.outputs;
    int32_t count;

    for (int32_t pixel = 0; pixel < pixels; pixel += count) {
        count = pixels - pixel < product->tiles * 4 ? pixels - pixel : product->tiles * 4;
        for (int32_t group = 0; group < window->groups; group++) {
            const int32_t end = (group + 1) * group_y;
            widen_pixels(plan, x + group * group_x, pixel, count);
            for (int32_t o = group * group_y; o < end; o += 2) {
                const int32_t outputs = end - o == 1 ? 1 : 2, last = o + outputs - 1;
                const int8_t *row_0 = weight_row(plan, weight, o, plan->weight_rows);
                const int8_t *row_1 =
                    weight_row(plan, weight, last, plan->weight_rows + product->k);
                tte_start(product, bias[o], bias[last]);
                tte_widen_2(row_0, row_1, plan->k, product->weight + 8);
                tte_tile_2x4(product->x, product->weight, product->weight_end, product->sums,
                             product->sums + (count + 3) / 4 * 8);
                store(plan, multipliers, o, outputs, pixel, count, y, mask);
            }
        }
    }
}

void tte_conv_transpose2d_int8(const tte_conv2d_params *params, const int8_t *x,
                               const int8_t *weight, const int32_t *bias,
                               const int32_t *multipliers, int8_t *y, uint8_t *mask,
                               int32_t *scratch)
{
    const tte_window *window = &params->window;
    const int32_t group_x = window->out_c / window->groups;
    phase_plan plan;

    plan.params = params;
    if (mask != NULL) {
        tte_mask_clear(mask, 0, (uint32_t)window->in_h * window->in_w * window->in_c);
    }
    for (int32_t top = 0; top < window->stride_h; top++) {
        plan.rows = plan_axis(top, window->in_h, window->out_h, window->kernel_h,
                              window->stride_h, window->dilation_h, window->pad_top);
        for (int32_t left = 0; left < window->stride_w; left++) {
            plan.cols = plan_axis(left, window->in_w, window->out_w, window->kernel_w,
                                  window->stride_w, window->dilation_w, window->pad_left);
            plan.k = plan.rows.taps * plan.cols.taps * group_x;
            const int32_t pixels = plan.rows.outputs * plan.cols.outputs;
            if (plan.k == 0) {
                fill(&plan, bias, multipliers, y, mask);
            } else if (pixels > 0) {
                plan.product = tte_plan_product(plan.k, (pixels + 3) / 4, scratch);
                plan.weight_rows = (int8_t *)(plan.product.sums + plan.product.tiles * 8);
                multiply(&plan, x, weight, bias, multipliers, y, mask);
            }
        }
    }
}
