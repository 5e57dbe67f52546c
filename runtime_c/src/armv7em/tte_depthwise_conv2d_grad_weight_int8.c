/* SPDX-License-Identifier: Apache-2.0
 *
 * sum[ky][kx] = sum over output pixels of grad_output[oy][ox][c] * (x[iy][ix][c] - zero point),
 * then 256 * weight + residual -= round(sum * step * rates[c]). x NHWC, weight and residual
 * [channel][kernel_h][kernel_w]. A rate of 0 marks a channel that is never trained.
 *
 * A channel's gradients and inputs are copied to planes of int16; then all taps of a kernel row are
 * made at once (tte_taps.h) from those pairs of rows that are inside the map. Maps of at most 4
 * columns have no border to the sides either. Strides above 2 and kernels above 7 are left to the
 * portable kernel. Source: docs/numerics.md, section 3; docs/performance.md.
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

enum { MAX_KERNEL = 7, MAX_TAPS = MAX_KERNEL * MAX_KERNEL, MAX_STRIDE = 2 };

/* Taps of a call are at most so many columns off. */
enum { MAX_REACH = 3 };

/* Columns of a block of gradients, and in front of all inputs that have a border. */
enum { NEAR = 4, FAR = 8, MARGIN = 4 };

static inline int32_t least(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static inline int32_t greatest(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

/* Taps of a kernel row that are made by one call: sum i is tap taps[i], or none where it is -1. */
typedef struct {
    tte_taps_function function;
    int32_t count;
    int32_t x; /* byte of a row of inputs where the call begins */
    int32_t taps[MAX_KERNEL];
} tte_run;

/* Planes of a channel: inputs, behind them the gradients. In elements, but for tap_blocks. */
typedef struct {
    int32_t rows, cols;        /* of the inputs in use */
    int32_t pitch;             /* of a row of inputs */
    int32_t first;             /* input 0 of row 0 */
    int32_t block;             /* columns of gradients, behind a row of zeros */
    int32_t blocks, block_elems;
    int32_t gradients, elems;  /* where they begin; of all planes */
    int32_t channels;          /* at once */
    tte_tap_blocks tap_blocks;
    tte_run runs[MAX_KERNEL], *runs_end;
    tte_tap_row kernel_rows[MAX_KERNEL];
    int is_direct; /* whether sums of the only call are all taps, in their order */
} tte_plan;

/* Along one axis tap k reads the input of output o at o * stride + offset. */
static inline int32_t offset_of(int32_t k, int32_t dilation, int32_t pad)
{
    return k * dilation - pad;
}

static inline int32_t last_offset(const tte_window *window)
{
    return offset_of(window->kernel_w - 1, window->dilation_w, window->pad_left);
}

/* Taps from tap k on that are at most `reach` columns off `center`; returns the next one. */
static TTE_APART int32_t plan_run(const tte_window *window, int32_t k, int32_t center,
                                  int32_t reach, tte_run *run)
{
    run->count = 2 * reach + 1;
    for (int32_t i = 0; i < MAX_KERNEL; i++) {
        run->taps[i] = -1;
    }
    for (; k < window->kernel_w; k++) {
        const int32_t offset = offset_of(k, window->dilation_w, window->pad_left) - center;
        if (offset > reach) {
            break;
        }
        run->taps[offset + reach] = k;
    }
    return k;
}

/* Whether no tap looks at more than 4 columns, none of them in the border. */
static int is_near(const tte_window *window)
{
    return window->out_w <= NEAR && window->in_w <= NEAR * window->stride_w &&
           window->pad_left <= MAX_REACH && last_offset(window) <= MAX_REACH &&
           window->stride_h == window->stride_w;
}

static TTE_APART void plan_near(const tte_window *window, tte_plan *plan)
{
    static const tte_taps_function functions[MAX_STRIDE][MAX_REACH] = {
        {tte_taps_near_3, tte_taps_near_5, tte_taps_near_7},
        {tte_taps_near_3_2, tte_taps_near_5_2, tte_taps_near_7_2}};
    const int32_t reach = greatest(1, greatest(window->pad_left, last_offset(window)));
    plan_run(window, 0, 0, reach, plan->runs);
    plan->runs->function = functions[window->stride_w - 1][reach - 1];
    plan->runs->x = 0;
    plan->runs_end = plan->runs + 1;
    plan->pitch = NEAR * window->stride_w;
    plan->first = 0;
    plan->block = NEAR;
    plan->gradients = plan->rows * plan->pitch;
}

/* The zeros behind a row are those before the next one. The middle of a run is at a word, so that
 * it may look for taps that there are none of, in front of row 0 and behind the last one. */
static TTE_APART void plan_far(const tte_window *window, tte_plan *plan)
{
    static const tte_taps_function functions[MAX_STRIDE][MAX_REACH] = {
        {tte_taps_3, tte_taps_5, tte_taps_7}, {tte_taps_3_2, tte_taps_5_2, tte_taps_7_2}};
    const int32_t stride = window->stride_w, last = last_offset(window);
    const int32_t low = -window->pad_left >> stride / 2, high = last >> stride / 2;
    const int32_t left = (1 - low) & ~1, end = window->out_w + greatest(high, 0);
    const int32_t cols = least(end, (window->in_w + stride - 1) >> stride / 2);
    plan->cols = least(window->in_w, cols * stride);
    plan->pitch = ((greatest(end, cols - low) + 1) & ~1) * stride;
    plan->first = (MARGIN + left) * stride;
    plan->block = FAR;
    plan->gradients = plan->first + plan->rows * plan->pitch + left * stride;
    plan->gradients += stride == 1 ? 0 : 2 * FAR; /* else they are enough of a margin themselves */
    plan->runs_end = plan->runs;
    for (int32_t k = 0; k < window->kernel_w;) {
        tte_run *run = plan->runs_end++;
        const int32_t offset = offset_of(k, window->dilation_w, window->pad_left);
        int32_t reach = 0, center;
        do {
            reach++;
            center = (offset + reach) & ~(2 * stride - 1);
        } while (reach < MAX_REACH && center + reach < last);
        k = plan_run(window, k, center, reach, run);
        run->function = functions[stride - 1][reach - 1];
        run->x = 2 * (plan->first + center - (stride == 1 && reach == 3 ? 4 : 2 * stride));
    }
}

/* The pairs of rows of a kernel row, without those in the border, of the call that begins at x. */
static TTE_APART void plan_row(const tte_window *window, const tte_plan *plan, int32_t x,
                               int32_t k, tte_tap_row *row)
{
    const int32_t stride = window->stride_h;
    const int32_t offset = offset_of(k, window->dilation_h, window->pad_top);
    const int32_t begin = greatest(0, -offset + stride - 1) >> stride / 2;
    const int32_t end = least(window->out_h, (window->in_h - 1 - offset + stride) >> stride / 2);
    row->x = x;
    row->gradients = 2 * plan->gradients; /* the row of zeros */
    row->bytes = 2 * plan->block;
    if (begin < end) {
        row->x += 2 * (begin * stride + offset) * plan->pitch;
        row->gradients += 2 * (1 + begin) * plan->block;
        row->bytes *= end - begin;
    }
}

static TTE_APART void plan_planes(const tte_window *window, tte_plan *plan)
{
    const int32_t last = offset_of(window->kernel_h - 1, window->dilation_h, window->pad_top);
    plan->rows = (window->out_h - 1) * window->stride_h + last + 1; /* if the map has them */
    plan->rows = least(window->in_h, greatest(plan->rows, 1));
    plan->cols = window->in_w;
    if (is_near(window)) {
        plan_near(window, plan);
    } else {
        plan_far(window, plan);
    }
    plan->blocks = (window->out_w + plan->block - 1) / plan->block;
    plan->block_elems = (1 + window->out_h) * plan->block;
    plan->elems = plan->gradients + plan->blocks * plan->block_elems;
    plan->channels = 4 * 2 * plan->elems <= TTE_FOUR_PLANES_BYTES ? 4 : 1;
    plan->tap_blocks.step = 2 * window->stride_h * plan->pitch;
    plan->tap_blocks.count = plan->blocks;
    plan->tap_blocks.bytes = 2 * plan->block_elems;

    const tte_run *const run = plan->runs;
    plan->is_direct = plan->runs_end == run + 1 && run->count == window->kernel_w &&
                      run->taps[0] == 0 && run->taps[run->count - 1] == run->count - 1;
    const int32_t x = plan->is_direct ? run->x : 0;
    for (int32_t k = 0; k < window->kernel_h; k++) {
        plan_row(window, plan, x, k, &plan->kernel_rows[k]);
    }
}

/* Of `cols` columns to rows `pitch` apart, which have `whole` for them. */
static TTE_APART tte_copy plan_copy(const tte_plan *plan, const int8_t *x, int32_t channels,
                                    int32_t width, int32_t cols, int32_t rows, int32_t zero_point,
                                    int16_t *to, int32_t pitch, int32_t whole)
{
    tte_copy copy = {x,
                     to,
                     (uint32_t)channels,
                     (uint32_t)(2 * plan->elems),
                     zero_point,
                     cols,
                     rows,
                     (width - cols) * channels,
                     2 * (pitch - whole)};
    if (width == cols && pitch == cols) {
        copy.cols *= rows;
        copy.rows = 1;
    }
    return copy;
}

static tte_copy plan_inputs(const tte_conv2d_grad_weight_params *params, const tte_plan *plan,
                            const int8_t *x, int16_t *planes)
{
    const tte_window *window = &params->window;
    const int32_t whole = window->stride_w == 1 ? plan->cols : (plan->cols + 3) & ~3;
    return plan_copy(plan, x, window->in_c, window->in_w, plan->cols, plan->rows,
                     params->input_zero_point, planes + plan->first, plan->pitch, whole);
}

static tte_copy plan_gradients(const tte_window *window, const tte_plan *plan,
                               const int8_t *grad_output, int16_t *planes, int32_t block)
{
    const int32_t col = block * plan->block, cols = least(plan->block, window->out_w - col);
    return plan_copy(plan, grad_output + col * window->out_c, window->out_c, window->out_w, cols,
                     window->out_h, 0,
                     planes + plan->gradients + block * plan->block_elems + plan->block,
                     plan->block, cols);
}

typedef void (*tte_copy_function)(const tte_copy *copy);

static TTE_APART void copy_one_by_one(tte_copy copy, int32_t count, tte_copy_function function)
{
    for (int32_t i = 0; i < count; i++, copy.x++, copy.to += copy.plane_bytes / 2) {
        function(&copy);
    }
}

/* The next `count` channels, apart for a stride of 2. */
static inline void copy_channels(tte_copy *copy, int32_t count, int32_t stride)
{
    static const tte_copy_function one[MAX_STRIDE] = {tte_copy_channel, tte_taps_split_channel};
    static const tte_copy_function four[MAX_STRIDE] = {tte_copy_four_channels,
                                                       tte_taps_split_four_channels};
    if (count < 4 || copy->cols < 4) {
        copy_one_by_one(*copy, count, one[stride - 1]);
    } else {
        four[stride - 1](copy);
    }
    copy->x += count;
}

/* Gradients of the blocks behind the first. */
static void copy_blocks(const tte_window *window, const tte_plan *plan, const int8_t *grad_output,
                        int16_t *planes, int32_t count)
{
    for (int32_t block = 1; block < plan->blocks; block++) {
        tte_copy copy = plan_gradients(window, plan, grad_output, planes, block);
        copy_channels(&copy, count, 1);
    }
}

/* The sums of all taps, call by call. */
static TTE_APART void gather_sums(const tte_window *window, const tte_plan *plan,
                                  const int16_t *planes, int32_t *sums)
{
    for (const tte_run *run = plan->runs; run != plan->runs_end; run++) {
        tte_tap_row rows[MAX_KERNEL];
        int32_t found[MAX_TAPS];
        for (int32_t k = 0; k < window->kernel_h; k++) {
            rows[k] = plan->kernel_rows[k];
            rows[k].x += run->x;
        }
        run->function(planes, rows, rows + window->kernel_h, found, &plan->tap_blocks);
        for (int32_t i = 0; i < run->count; i++) {
            if (run->taps[i] >= 0) {
                for (int32_t k = 0; k < window->kernel_h; k++) {
                    sums[k * window->kernel_w + run->taps[i]] = found[k * run->count + i];
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
    tte_copy inputs = plan_inputs(params, &plan, x, scratch);
    tte_copy gradients = plan_gradients(window, &plan, grad_output, scratch, 0);
    int32_t sums[MAX_TAPS], count;

    tte_clear_words(scratch, (uint32_t)(plan.channels * plan.elems / 2));
    for (int32_t channel = 0; channel < window->out_c; channel += count) {
        count = least(window->out_c - channel, plan.channels);
        copy_channels(&inputs, count, window->stride_w);
        copy_channels(&gradients, count, 1);
        copy_blocks(window, &plan, grad_output + channel, scratch, count);
        for (int32_t i = 0; i < count; i++, weight += taps, residual += taps) {
            const int16_t *planes = scratch + i * plan.elems;
            const tte_factor rate = rates[channel + i];
            if (rate.mantissa == 0) {
                continue;
            }
            if (plan.is_direct) {
                plan.runs->function(planes, plan.kernel_rows, plan.kernel_rows + window->kernel_h,
                                    sums, &plan.tap_blocks);
            } else {
                gather_sums(window, &plan, planes, sums);
            }
            tte_update(weight, residual, sums, taps, *step, rate);
        }
    }
}
