/* SPDX-License-Identifier: Apache-2.0
 *
 * sum[ky][kx] = sum over output pixels of grad_output[oy][ox][c] * (x[iy][ix][c] - zero point), then
 * 256 * weight + residual -= round(sum * step * rates[c]). x NHWC, weight and residual
 * [channel][kernel_h][kernel_w]. A rate of 0 marks a channel that is never trained.
 *
 * A channel's gradients and inputs are copied to planes of int16, inputs apart by their remainder by
 * the stride; then all taps of a kernel row are made at once (tte_taps.h) from those pairs of rows
 * that are inside the map. Maps of at most 4 columns have no border to the sides either. Strides
 * above 2 and kernels above 7 are left to the portable kernel. Source: docs/numerics.md, section 3;
 * docs/performance.md.
 */
#define tte_depthwise_conv2d_grad_weight_int8 tte_depthwise_conv2d_grad_weight_int8_portable
#include "../tte_depthwise_conv2d_grad_weight_int8.c"
#undef tte_depthwise_conv2d_grad_weight_int8

#include "tte_dsp_grad.h"
#include "tte_taps.h"

void tte_depthwise_conv2d_grad_weight_int8(const tte_conv2d_grad_weight_params *params,
                                           const int8_t *x, const int8_t *grad_output,
                                           const tte_factor *step, const tte_factor *rates,
                                           int8_t *weight, int8_t *residual, int16_t *scratch);

enum { MAX_KERNEL = 7, MAX_TAPS = MAX_KERNEL * MAX_KERNEL, MAX_STRIDE = 2, NEAR = 4, FAR = 8 };

static inline int32_t least(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static inline int32_t greatest(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

/* Taps of a kernel row that are made by one call: sum i is tap taps[i], or none where that is -1. */
typedef struct {
    tte_taps_function function;
    int32_t count;
    int32_t x; /* byte of a row of inputs where tap 0 of output 0 begins */
    int32_t taps[MAX_KERNEL];
} tte_run;

/* Planes of a channel: inputs of each remainder, behind them the gradients. All in elements. */
typedef struct {
    int32_t rows, cols;        /* of the inputs of a remainder */
    int32_t pitch;             /* of a row of inputs */
    int32_t left;              /* input column 0 */
    int32_t x_rows, x_cols;    /* from the inputs of one remainder to the next, down and across */
    int32_t block;             /* columns of gradients, behind a row of zeros */
    int32_t blocks, block_elems;
    int32_t gradients, elems;  /* where they begin; of all planes */
    int32_t channels;          /* at once */
    tte_run runs[MAX_KERNEL], *runs_end;
    tte_tap_row kernel_rows[MAX_KERNEL];
    int is_direct; /* whether sums of the only call are all taps, in their order */
} tte_plan;

/* Along one axis tap k reads the input of output o at o * stride + offset(k), which is number
 * o + (offset >> stride / 2) of those with remainder offset % stride: strides are 1 or 2. */
static inline int32_t offset_of(int32_t k, int32_t dilation, int32_t pad)
{
    return k * dilation - pad;
}

/* How many of `count` inputs have a remainder. */
static inline int32_t inputs_of(int32_t count, int32_t remainder, int32_t stride)
{
    return (count - remainder + stride - 1) >> stride / 2;
}

/* How far taps are off to the sides. */
static inline int32_t reach_of(const tte_window *window)
{
    return greatest(window->pad_left,
                    offset_of(window->kernel_w - 1, window->dilation_w, window->pad_left));
}

static TTE_APART void plan_near(const tte_window *window, tte_plan *plan)
{
    static const tte_taps_function functions[] = {tte_taps_near_3, tte_taps_near_5,
                                                  tte_taps_near_7};
    tte_run *run = plan->runs;
    const int32_t reach = window->stride_w == 1 ? greatest(reach_of(window), 1) : 3;
    run->function = window->stride_w == 1 ? functions[reach - 1] : tte_taps_near_7_2;
    run->count = 2 * reach + 1;
    run->x = 0;
    for (int32_t i = 0; i < MAX_KERNEL; i++) {
        run->taps[i] = -1;
    }
    for (int32_t k = 0; k < window->kernel_w; k++) {
        run->taps[offset_of(k, window->dilation_w, window->pad_left) + reach] = k;
    }
    plan->runs_end = run + 1;
    plan->left = 0;
    plan->pitch = NEAR * window->stride_w;
    plan->x_cols = NEAR;
    plan->x_rows = plan->rows * plan->pitch;
    plan->block = NEAR;
}

/* Runs from tap `first` on, of those of remainder `remainder`: as few sums as will do. */
static TTE_APART void plan_runs(const tte_window *window, int32_t remainder, tte_plan *plan)
{
    const int32_t stride = window->stride_w;
    tte_run *run = plan->runs_end - 1;
    int32_t first = 0, end = 0; /* elements that have sums in the run */
    for (int32_t k = 0; k < window->kernel_w; k++) {
        const int32_t offset = offset_of(k, window->dilation_w, window->pad_left);
        if ((offset & (stride - 1)) != remainder) {
            continue;
        }
        const int32_t place = plan->left + (offset >> stride / 2);
        if (place >= end) {
            run++;
            first = place;
            end = place + (place % 2 == 0 ? 5 : 7);
            run->function = place % 2 == 0 ? tte_taps_5 : tte_taps_3;
            run->count = place % 2 == 0 ? 5 : 3;
            run->x = 2 * (remainder * plan->x_cols + place / 2 * 2);
            for (int32_t i = 0; i < MAX_KERNEL; i++) {
                run->taps[i] = -1;
            }
        }
        if (place - first >= run->count) {
            run->function = tte_taps_7;
            run->count = 7;
        }
        run->taps[place - first] = k;
    }
    plan->runs_end = run + 1;
}

/* The zeros behind a row are those before the next one. */
static void plan_far(const tte_window *window, tte_plan *plan)
{
    const int32_t stride = window->stride_w, last = window->kernel_w - 1;
    const int32_t low = -window->pad_left >> stride / 2;
    const int32_t high = offset_of(last, window->dilation_w, window->pad_left) >> stride / 2;
    const int32_t reach = window->out_w + greatest(high, 0);
    plan->cols = least(plan->cols, reach);
    plan->left = (1 - low) & ~1;
    plan->pitch = (greatest(reach, plan->cols - low) + 1) & ~1;
    plan->x_cols = plan->rows * plan->pitch + plan->left;
    plan->x_rows = stride * plan->x_cols;
    plan->block = FAR;
    plan->runs_end = plan->runs;
    for (int32_t remainder = 0; remainder < stride; remainder++) {
        plan_runs(window, remainder, plan);
    }
}

/* The pairs of rows of a kernel row, without those in the border. */
static TTE_APART tte_tap_row plan_row(const tte_window *window, const tte_plan *plan, int32_t k)
{
    const int32_t stride = window->stride_h;
    const int32_t offset = offset_of(k, window->dilation_h, window->pad_top);
    const int32_t place = offset >> stride / 2, remainder = offset & (stride - 1);
    const int32_t rows = least(plan->rows, inputs_of(window->in_h, remainder, stride));
    const int32_t begin = greatest(0, -place), end = least(window->out_h, rows - place);
    tte_tap_row row = {0, 2 * plan->gradients, 2 * plan->block}; /* none: the row of zeros */
    if (begin < end) {
        row.x = 2 * (remainder * plan->x_rows + (begin + place) * plan->pitch);
        row.gradients += 2 * (1 + begin) * plan->block;
        row.bytes *= end - begin;
    }
    return row;
}

static TTE_APART void plan_planes(const tte_window *window, tte_plan *plan)
{
    const int32_t stride = window->stride_h;
    const int32_t last = offset_of(window->kernel_h - 1, window->dilation_h, window->pad_top);
    plan->rows = least(window->out_h + greatest(last >> stride / 2, 0),
                       inputs_of(window->in_h, 0, stride));
    plan->cols = inputs_of(window->in_w, 0, window->stride_w);
    if (window->out_w <= NEAR && plan->cols <= NEAR && reach_of(window) <= 3) {
        plan_near(window, plan);
    } else {
        plan_far(window, plan);
    }
    plan->blocks = (window->out_w + plan->block - 1) / plan->block;
    plan->block_elems = (1 + window->out_h) * plan->block;
    plan->gradients = stride * plan->x_rows;
    plan->elems = plan->gradients + plan->blocks * plan->block_elems;
    plan->channels = 4 * 2 * plan->elems <= TTE_FOUR_PLANES_BYTES ? 4 : 1;

    const tte_run *const run = plan->runs;
    plan->is_direct = plan->runs_end == run + 1 && plan->blocks == 1 &&
                      run->count == window->kernel_w && run->taps[0] == 0 &&
                      run->taps[run->count - 1] == run->count - 1;
    for (int32_t k = 0; k < window->kernel_h; k++) {
        plan->kernel_rows[k] = plan_row(window, plan, k);
        plan->kernel_rows[k].x += plan->is_direct ? run->x : 0;
    }
}

/* From every `col_step`-th column of `rows` rows to rows `pitch` apart. */
static TTE_APART tte_copy plan_copy(const tte_plan *plan, const int8_t *x, int32_t channels, int32_t cols,
                          int32_t col_step, int32_t rows, int32_t row_step, int32_t zero_point,
                          int16_t *to, int32_t pitch)
{
    tte_copy copy = {x,
                     to,
                     (uint32_t)(col_step * channels),
                     (uint32_t)(2 * plan->elems),
                     zero_point,
                     cols,
                     rows,
                     (row_step - col_step * cols) * channels,
                     2 * (pitch - cols)};
    if (copy.x_step == 0 && copy.to_step == 0) {
        copy.cols *= rows;
        copy.rows = 1;
    }
    return copy;
}

/* Of the first channels: inputs, apart by their remainders, and the first block of gradients.
 * Returns the end. */
static TTE_APART tte_copy *plan_copies(const tte_window *window, const tte_plan *plan, const int8_t *x,
                             int32_t zero_point, const int8_t *grad_output, int16_t *planes,
                             tte_copy *copy)
{
    const int32_t down = window->stride_h, across = window->stride_w;
    for (int32_t i = 0; i < down * across; i++) {
        const int32_t row = i >> across / 2, col = i & (across - 1);
        const int32_t rows = least(plan->rows, inputs_of(window->in_h, row, down));
        const int32_t cols = least(plan->cols, inputs_of(window->in_w, col, across));
        if (rows > 0 && cols > 0) {
            *copy++ = plan_copy(plan, x + (row * window->in_w + col) * window->in_c, window->in_c,
                                cols, across, rows, down * window->in_w, zero_point,
                                planes + row * plan->x_rows + col * plan->x_cols + plan->left,
                                plan->pitch);
        }
    }
    *copy++ = plan_copy(plan, grad_output, window->out_c, least(plan->block, window->out_w), 1,
                        window->out_h, window->out_w, 0, planes + plan->gradients + plan->block,
                        plan->block);
    return copy;
}

static TTE_APART void copy_one_by_one(tte_copy copy, int32_t count)
{
    for (int32_t i = 0; i < count; i++, copy.x++, copy.to += copy.plane_bytes / 2) {
        tte_copy_channel(&copy);
    }
}

/* The next `count` channels. */
static inline void copy_channels(tte_copy *copy, int32_t count)
{
    if (count == 4 && copy->cols >= 4) {
        tte_copy_four_channels(copy);
    } else {
        copy_one_by_one(*copy, count);
    }
    copy->x += count;
}

/* Gradients behind the first block. */
static void copy_blocks(const tte_window *window, const tte_plan *plan, const int8_t *grad_output,
                        int16_t *planes, int32_t count)
{
    planes += plan->gradients + plan->block;
    for (int32_t block = 1; block < plan->blocks; block++) {
        const int32_t col = block * plan->block;
        tte_copy copy = plan_copy(plan, grad_output + col * window->out_c, window->out_c,
                                  least(plan->block, window->out_w - col), 1, window->out_h,
                                  window->out_w, 0, planes + block * plan->block_elems,
                                  plan->block);
        copy_channels(&copy, count);
    }
}

/* The sums of all taps, call by call and block by block. */
static TTE_APART void add_sums(const tte_window *window, const tte_plan *plan, const int16_t *planes,
                     int32_t *sums)
{
    tte_clear_words(sums, (uint32_t)(window->kernel_h * window->kernel_w));
    for (const tte_run *run = plan->runs; run != plan->runs_end; run++) {
        for (int32_t block = 0; block < plan->blocks; block++) {
            tte_tap_row rows[MAX_KERNEL];
            int32_t found[MAX_TAPS];
            for (int32_t k = 0; k < window->kernel_h; k++) {
                rows[k] = plan->kernel_rows[k];
                rows[k].x += run->x + 2 * plan->block * block;
                rows[k].gradients += 2 * plan->block_elems * block;
            }
            run->function(planes, rows, rows + window->kernel_h, found, 2 * plan->pitch);
            for (int32_t i = 0; i < run->count; i++) {
                if (run->taps[i] >= 0) {
                    for (int32_t k = 0; k < window->kernel_h; k++) {
                        sums[k * window->kernel_w + run->taps[i]] += found[k * run->count + i];
                    }
                }
            }
        }
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
    tte_plan plan;
    plan_planes(window, &plan);
    tte_copy copies[MAX_STRIDE * MAX_STRIDE + 1];
    const tte_copy *const copies_end = plan_copies(window, &plan, x, params->input_zero_point,
                                                   grad_output, scratch, copies);
    int32_t sums[MAX_TAPS], count;

    tte_clear_words(scratch, (uint32_t)(plan.channels * plan.elems / 2));
    for (int32_t channel = 0; channel < window->out_c; channel += count) {
        count = least(window->out_c - channel, plan.channels);
        for (tte_copy *copy = copies; copy != copies_end; copy++) {
            copy_channels(copy, count);
        }
        copy_blocks(window, &plan, grad_output + channel, scratch, count);
        for (int32_t i = 0; i < count; i++, weight += taps, residual += taps) {
            const int16_t *planes = scratch + i * plan.elems;
            const tte_factor rate = rates[channel + i];
            if (rate.mantissa == 0) {
                continue;
            }
            if (plan.is_direct) {
                plan.runs->function(planes, plan.kernel_rows, plan.kernel_rows + window->kernel_h,
                                    sums, 2 * plan.pitch);
            } else {
                add_sums(window, &plan, planes, sums);
            }
            tte_update(weight, residual, sums, taps, *step, rate);
        }
    }
}
