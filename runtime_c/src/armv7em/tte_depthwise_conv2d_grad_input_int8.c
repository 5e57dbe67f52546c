/* SPDX-License-Identifier: Apache-2.0
 *
 * grad_input[iy][ix][c] = requantise(sum over taps of weight[c][ky][kx] * grad_output[oy][ox][c] +
 * addend), 0 where the mask bit is 0. With stride 1 this is a convolution of the gradients and the
 * turned-round taps, and square kernels of 3, 5 or 7 are one call for four channels
 * (tte_windows.h). Otherwise inputs whose position has the same remainder by the stride meet the
 * same taps, every stride-th one: each such phase is a convolution with stride 1 (tte_rows.h).
 * Gradients are first copied to planes, so grad_input may overwrite grad_output. Dilation, strides
 * above 2 and kernels wider than 7 are left to the portable kernel. One rounding, half up: SMMULR.
 * Source: docs/numerics.md, section 2; docs/performance.md.
 */
#define tte_depthwise_conv2d_grad_input_int8 tte_depthwise_conv2d_grad_input_int8_portable
#include "../tte_depthwise_conv2d_grad_input_int8.c"
#undef tte_depthwise_conv2d_grad_input_int8

#include "tte_dsp_grad.h"
#include "tte_rows.h"
#include "tte_windows.h"

void tte_depthwise_conv2d_grad_input_int8(const tte_conv2d_grad_input_params *params,
                                          const int8_t *grad_output, const int8_t *weight,
                                          const int32_t *multipliers, const int8_t *addend,
                                          const int32_t *addend_multipliers, const uint8_t *mask,
                                          int8_t *grad_input, uint32_t *saturations,
                                          int32_t *scratch);

enum {
    SUMS = 64, /* at least, of some rows at once */
    MAX_STRIDE = 2,
    MAX_JOBS = MAX_STRIDE * MAX_STRIDE,
    MAX_PAIRS = 56 /* 7 rows of 7 taps, or twice 7 rows of 5 */
};

/* Along one axis: `count` inputs, from `first` on, meet `taps` taps, from the last one `tap` down;
 * of the first input's windows the leftmost is `output`. */
typedef struct {
    int32_t first, count, tap, taps, output;
} tte_phase;

/* All phases of an axis. Their leftmost outputs are `origin` or one more. */
typedef struct {
    tte_phase phases[MAX_STRIDE];
    int32_t count, origin;
} tte_axis;

static tte_axis find_phases(int32_t size, int32_t kernel, int32_t stride, int32_t pad)
{
    tte_axis axis;
    axis.count = size < stride ? size : stride;
    for (int32_t i = 0; i < axis.count; i++) {
        tte_phase *phase = &axis.phases[i];
        const int32_t tap = (i + pad) % stride;
        phase->first = i;
        phase->count = (size - i + stride - 1) / stride;
        phase->taps = (kernel - tap + stride - 1) / stride;
        phase->tap = tap + (phase->taps - 1) * stride;
        phase->output = (i + pad) / stride - (phase->taps - 1);
        axis.origin = i == 0 || phase->output < axis.origin ? phase->output : axis.origin;
    }
    return axis;
}

/* The width that tte_rows.h has for a phase, with a tap of 0 before an output to the right. */
static int32_t whole_taps(const tte_axis *axis, const tte_phase *phase)
{
    const int32_t taps = phase->taps + phase->output - axis->origin;
    return taps <= 3 ? 3 : taps | 1;
}

/* The plane of a channel; outputs in it: used_rows x used_cols, from element `output` on. */
typedef struct {
    int32_t rows, cols;
    int32_t output, used_rows, used_cols;
    int16_t *first; /* where they begin */
} tte_phase_plane;

static tte_phase_plane plan_plane(const tte_window *window, const tte_axis *y, const tte_axis *x,
                            int16_t *scratch)
{
    tte_phase_plane plane;
    plane.rows = plane.cols = 0;
    for (int32_t i = 0; i < y->count; i++) {
        const tte_phase *phase = &y->phases[i];
        const int32_t end = phase->output - y->origin + phase->count + phase->taps - 1;
        plane.rows = end > plane.rows ? end : plane.rows;
    }
    for (int32_t i = 0; i < x->count; i++) {
        const tte_phase *phase = &x->phases[i];
        const int32_t end = ((phase->count + 3) & ~3) + whole_taps(x, phase) - 1;
        plane.cols = end > plane.cols ? end : plane.cols;
    }
    const int32_t top = y->origin < 0 ? 0 : y->origin, bottom = y->origin + plane.rows;
    const int32_t left = x->origin < 0 ? 0 : x->origin, right = x->origin + plane.cols;
    plane.output = (top * window->out_w + left) * window->out_c;
    plane.used_rows = (bottom < window->out_h ? bottom : window->out_h) - top;
    plane.used_cols = (right < window->out_w ? right : window->out_w) - left;
    plane.first = scratch + (top - y->origin) * plane.cols + left - x->origin;
    return plane;
}

/* The inputs of two phases, and what is the same for all their channels. */
typedef struct {
    tte_rows_function multiply;
    tte_rows rows;
    tte_grads grads;
    const int16_t *x; /* under the first row */
    uint32_t index, row_step; /* elements: the first input, from a row to the next */
    int32_t count_h, count_w; /* inputs */
    int32_t most;             /* rows at once */
    int joined;               /* all rows are one run */
    int32_t tap, rows_step, step; /* elements of the weights: the first in use, to the next ones */
    int32_t taps_h, taps_w, lead, whole;
} tte_job;

/* `rows` rows of inputs from row `first` on. */
static void set_rows(tte_job *job, int32_t first, int32_t rows)
{
    const int32_t whole_w = (int32_t)(job->rows.sums_step / 4);
    job->rows.x = job->x + first * (int32_t)(job->rows.row_bytes / 2);
    job->rows.sums_end = job->rows.sums + rows * whole_w;
    job->grads.rows = job->joined ? 1 : rows;
    job->grads.count = job->joined ? rows * whole_w : job->count_w;
}

/* Before it rows.row_bytes and rows.sums are set, x to the plane and rows.weight. */
static void plan_job(const tte_window *window, const tte_axis *y_axis, const tte_phase *y,
                     const tte_axis *x_axis, const tte_phase *x, tte_job *job)
{
    const int32_t whole_w = (x->count + 3) & ~3;
    const int32_t gap =
        (window->stride_h * window->in_w - window->stride_w * x->count) * window->in_c;

    job->index = ((uint32_t)y->first * window->in_w + (uint32_t)x->first) * window->in_c;
    job->row_step = (uint32_t)window->stride_h * window->in_w * window->in_c;
    job->count_h = y->count;
    job->count_w = x->count;
    job->most = whole_w > SUMS ? 1 : y->count * whole_w > SUMS ? SUMS / whole_w : y->count;
    job->joined = gap == 0 && whole_w == x->count;
    job->tap = y->tap * window->kernel_w + x->tap;
    job->rows_step = window->stride_h * window->kernel_w;
    job->step = window->stride_w;
    job->taps_h = y->taps;
    job->taps_w = x->taps;
    job->lead = x->output - x_axis->origin;
    job->whole = whole_taps(x_axis, x);
    job->multiply = tte_find_rows(y->taps, job->whole, 1);

    job->x += (y->output - y_axis->origin) * (int32_t)(job->rows.row_bytes / 2);
    job->rows.weight_end = job->rows.weight + y->taps * (job->whole - 1);
    job->rows.start = 0;
    job->rows.row_end = job->rows.sums + whole_w;
    job->rows.x_step = (int32_t)job->rows.row_bytes - 2 * whole_w;
    job->rows.sums_step = (uint32_t)whole_w * 4;

    job->grads.sums = job->rows.sums;
    job->grads.step = (uint32_t)window->stride_w * window->in_c;
    job->grads.mask_step = job->grads.step / 8;
    job->grads.to_step = gap;
    job->grads.mask_row_step = gap / 8;
    set_rows(job, 0, job->most);
}

/* A job's taps of a channel, turned round and times 2^pre_shift: `lead` times 0, `taps` taps, 0 up
 * to `whole`. The pairs of tte_rows.h begin at the even ones, then at the odd ones. */
static inline void pack_rows(const tte_job *job, const int8_t *weight, int32_t unit, int32_t lead,
                             int32_t taps, int32_t whole, uint32_t *pairs)
{
    const int32_t step = job->step, rows_step = job->rows_step;
    int32_t row[TTE_ROWS_MAX_TAPS] = {0};
    for (int32_t i = job->taps_h; i > 0; i--, weight -= rows_step) {
        const int8_t *tap = weight;
        for (int32_t t = lead; t < lead + taps; t++, tap -= step) {
            row[t] = *tap * unit;
        }
        for (int32_t t = 0; t + 1 < whole; t += 2) {
            *pairs++ = tte_pkhbt((uint32_t)row[t], (uint32_t)row[t + 1]);
        }
        for (int32_t t = 1; t + 1 < whole; t += 2) {
            *pairs++ = tte_pkhbt((uint32_t)row[t], (uint32_t)row[t + 1]);
        }
    }
}

static void pack_taps(const tte_job *job, const int8_t *weight, int32_t unit, uint32_t *pairs)
{
    weight += job->tap;
    switch (job->whole * 8 + job->taps_w) {
    case 3 * 8 + 3:
        pack_rows(job, weight, unit, 0, 3, 3, pairs);
        break;
    case 5 * 8 + 5:
        pack_rows(job, weight, unit, 0, 5, 5, pairs);
        break;
    case 7 * 8 + 7:
        pack_rows(job, weight, unit, 0, 7, 7, pairs);
        break;
    default:
        if (job->whole == 5 && job->taps_w == 4 && job->lead == 0) {
            pack_rows(job, weight, unit, 0, 4, 5, pairs);
        } else {
            pack_rows(job, weight, unit, job->lead, job->taps_w, job->whole, pairs);
        }
    }
}

/* Where the gradients of a channel go, and what is done to them before. */
typedef struct {
    int32_t multiplier, addend_multiplier, unit;
    const int8_t *addend;
    const uint8_t *mask;
    int8_t *grad_input;
    uint32_t *saturations;
    int plain; /* tte_finish_grads() can do it */
} tte_target;

/* Gradients from shifted sums, with an addend or mask bits in any place. */
static void finish_rows(const tte_target *target, const tte_job *job, int32_t rows, uint32_t index)
{
    const int32_t *sums = job->grads.sums;
    for (; rows > 0; rows--, sums += job->rows.sums_step / 4, index += job->row_step) {
        uint32_t at = index;
        for (int32_t i = 0; i < job->count_w; i++, at += job->grads.step) {
            const int32_t addend = target->addend == NULL ? 0 : target->addend[at] * target->unit;
            int32_t value = 0;
            if (target->mask == NULL || tte_mask_get(target->mask, at)) {
                value = tte_round_high(sums[i], target->multiplier, addend,
                                       target->addend_multiplier);
            }
            target->grad_input[at] = tte_saturate_grad(value, target->saturations);
        }
    }
}

static inline void run_rows(tte_job *job, const tte_target *target, uint32_t index, int32_t rows)
{
    job->multiply(&job->rows);
    if (target->plain) {
        job->grads.to = target->grad_input + index;
        job->grads.mask = target->mask == NULL ? NULL : target->mask + index / 8;
        job->grads.multiplier = target->multiplier;
        job->grads.shift = 31 - (index & 7);
        tte_finish_grads(&job->grads);
    } else {
        finish_rows(target, job, rows, index);
    }
}

/* The inputs of a job, of one channel; its taps are packed. Most maps are done at once. */
static inline void run_job(tte_job *job, const tte_target *target, uint32_t channel)
{
    const uint32_t index = job->index + channel;
    run_rows(job, target, index, job->most);
    if (job->most < job->count_h) {
        int32_t rows = job->most;
        for (int32_t first = rows; first < job->count_h; first += rows) {
            rows = job->count_h - first < rows ? job->count_h - first : rows;
            set_rows(job, first, rows);
            run_rows(job, target, index + (uint32_t)first * job->row_step, rows);
        }
        set_rows(job, 0, job->most);
    }
}

static int is_supported(const tte_conv2d_grad_input_params *params)
{
    const tte_window *window = &params->window;
    return window->dilation_h * window->dilation_w == 1 && 2 <= window->kernel_w &&
           window->kernel_h <= TTE_ROWS_MAX_TAPS && window->kernel_w <= TTE_ROWS_MAX_TAPS &&
           window->stride_h <= window->kernel_h && window->stride_h <= MAX_STRIDE &&
           window->stride_w <= MAX_STRIDE && params->pre_shift <= TTE_GRAD_MAX_SHIFT;
}

/* For strides above 1 and whatever else tte_windows.h has no kernel for. */
static void run_phases(const tte_conv2d_grad_input_params *params, const int8_t *grad_output,
                       const int8_t *weight, const int32_t *multipliers, const int8_t *addend,
                       const int32_t *addend_multipliers, const uint8_t *mask, int8_t *grad_input,
                       uint32_t *saturations, int32_t *scratch)
{
    const tte_window *window = &params->window;
    const tte_axis y = find_phases(window->in_h, window->kernel_h, window->stride_h,
                                   window->pad_top);
    const tte_axis x = find_phases(window->in_w, window->kernel_w, window->stride_w,
                                   window->pad_left);
    int16_t *const first = (int16_t *)(void *)scratch;
    const tte_phase_plane plane = plan_plane(window, &y, &x, first);
    const int plain = addend == NULL && (mask == NULL || window->in_c % 8 == 0);
    tte_target target = {0,    0,          1 << params->pre_shift, addend,
                         mask, grad_input, saturations,            plain};
    uint32_t pairs[MAX_PAIRS];
    uint32_t *next = pairs;
    tte_job jobs[MAX_JOBS];
    tte_job *end = jobs;
    const tte_copy whole = {grad_output + plane.output,
                            plane.first,
                            window->out_c,
                            0,
                            0,
                            plane.used_cols,
                            plane.used_rows,
                            (window->out_w - plane.used_cols) * window->out_c,
                            2 * (plane.cols - plane.used_cols)};

    for (int32_t i = 0; i < y.count * x.count; i++, end++) {
        end->x = first;
        end->rows.row_bytes = (uint32_t)plane.cols * 2;
        end->rows.sums = (int32_t *)(void *)(first + plane.rows * plane.cols);
        end->rows.weight = next;
        end->grads.saturations = saturations;
        plan_job(window, &y, &y.phases[i / x.count], &x, &x.phases[i % x.count], end);
        next += end->taps_h * (end->whole - 1);
    }
    tte_clear_words(first, (uint32_t)(plane.rows * plane.cols / 2));
    for (uint32_t channel = 0; channel < window->in_c; channel++) {
        if (plane.used_rows > 0 && plane.used_cols > 0) {
            tte_copy copy = whole;
            copy.x += channel;
            tte_copy_channel(&copy);
        }
        target.multiplier = multipliers[channel];
        target.addend_multiplier = addend == NULL ? 0 : addend_multipliers[channel];
        next = pairs;
        for (tte_job *job = jobs; job != end; job++) {
            pack_taps(job, weight, target.unit, next);
            next += job->taps_h * (job->whole - 1);
            run_job(job, &target, channel);
        }
        weight += window->kernel_h * window->kernel_w;
    }
}

/* Without an addend, with stride 1: NULL otherwise. */
static tte_windows_function find_windows(const tte_window *turned, uint8_t pre_shift, int masked)
{
    if (!tte_windows_fit(turned) || pre_shift != 0 || turned->stride_h * turned->stride_w > 1 ||
        turned->pad_top >= turned->kernel_h || turned->pad_left >= turned->kernel_w ||
        (masked && turned->out_c % 8 != 0)) {
        return NULL;
    }
    switch (turned->kernel_w) {
    case 3:
        return tte_windows_3x3_1_grad;
    case 5:
        return tte_windows_5x5_1_grad;
    case 7:
        return tte_windows_7x7_1_grad;
    default:
        return NULL;
    }
}

/* The convolution with stride 1 of grad_output that gives grad_input. */
static tte_window turn_window(const tte_window *window)
{
    tte_window turned = *window;
    turned.in_h = window->out_h;
    turned.in_w = window->out_w;
    turned.out_h = window->in_h;
    turned.out_w = window->in_w;
    turned.pad_top = (uint16_t)(window->kernel_h - 1 - window->pad_top);
    turned.pad_left = (uint16_t)(window->kernel_w - 1 - window->pad_left);
    return turned;
}

/* `count` weights from the last to the first. */
static inline void turn_round(const int8_t *weight, int32_t count, int8_t *to)
{
    to += count;
    for (; count >= 4; count -= 4, weight += 4) {
        const uint32_t word = tte_load_4(weight);
        const uint32_t turned =
            word >> 24 | (word >> 8 & 0xFF00) | (word << 8 & 0xFF0000) | word << 24;
        to -= 4;
        memcpy(to, &turned, sizeof turned);
    }
    for (; count > 0; count--) {
        *--to = *weight++;
    }
}

/* Bytes of mask bits for eight channels, in rows of a multiple of four; 0 behind a row. */
static void load_bits(const tte_window *turned, const uint8_t *mask, uint8_t *bits)
{
    for (int32_t row = turned->out_h; row > 0; row--) {
        for (int32_t i = turned->out_w; i > 0; i--, mask += turned->out_c / 8) {
            *bits++ = *mask;
        }
        for (int32_t i = -turned->out_w & 3; i > 0; i--) {
            *bits++ = 0;
        }
    }
}

/* The same without a mask. */
static void set_bits(const tte_window *turned, uint8_t *bits)
{
    for (int32_t row = turned->out_h; row > 0; row--) {
        memset(bits, 0xFF, turned->out_w);
        memset(bits + turned->out_w, 0, (size_t)(-turned->out_w & 3));
        bits += (turned->out_w + 3) & ~3;
    }
}

/* All channels, four at a time where four planes fit. */
static void run_windows(const tte_window *turned, tte_windows_function function,
                        const int8_t *grad_output, const int8_t *weight,
                        const int32_t *multipliers, const uint8_t *mask, int8_t *grad_input,
                        uint32_t *saturations, int16_t *planes)
{
    const tte_plane plane =
        tte_plan_plane(turned, 0, turned->out_h, tte_windows_origin(turned->kernel_w));
    const int32_t plane_elems = plane.rows * plane.cols;
    const int32_t taps = turned->kernel_h * turned->kernel_w;
    int8_t *const buffer = (int8_t *)(planes + plane.planes * plane_elems);
    uint8_t *const bits = (uint8_t *)buffer + 4 * ((turned->out_w + 3) & ~3);
    int8_t turned_weight[4 * TTE_ROWS_MAX_TAPS * TTE_ROWS_MAX_TAPS];
    tte_windows windows;
    int32_t count;

    windows.zero_point = 0;
    windows.biases = NULL;
    windows.saturations = saturations;
    tte_plan_windows(turned, &plane, &windows);
    windows.weight_step = -taps;
    tte_clear_words(planes, (uint32_t)(plane.planes * plane_elems / 2));
    if (mask == NULL) {
        set_bits(turned, bits);
    }
    for (int32_t channel = 0; channel < turned->out_c; channel += count) {
        count = turned->out_c - channel < plane.planes ? turned->out_c - channel : plane.planes;
        tte_copy_planes(turned, &plane, 0, grad_output + channel, count, planes);
        if (mask != NULL && channel % 8 == 0) {
            load_bits(turned, mask + channel / 8, bits);
        }
        turn_round(weight + channel * taps, count * taps, turned_weight);
        windows.weight = turned_weight + (count - 1) * taps;
        windows.multipliers = multipliers + channel;
        windows.channels = (uint32_t)count;
        windows.bit = 7u - channel % 8;
        tte_run_windows(turned, function, &windows, turned->out_h, planes, grad_input + channel,
                        bits, buffer);
    }
}

void tte_depthwise_conv2d_grad_input_int8(const tte_conv2d_grad_input_params *params,
                                          const int8_t *grad_output, const int8_t *weight,
                                          const int32_t *multipliers, const int8_t *addend,
                                          const int32_t *addend_multipliers, const uint8_t *mask,
                                          int8_t *grad_input, uint32_t *saturations,
                                          int32_t *scratch)
{
    const tte_window turned = turn_window(&params->window);
    const tte_windows_function function =
        addend == NULL ? find_windows(&turned, params->pre_shift, mask != NULL) : NULL;
    if (function != NULL) {
        run_windows(&turned, function, grad_output, weight, multipliers, mask, grad_input,
                    saturations, (int16_t *)(void *)scratch);
    } else if (is_supported(params)) {
        run_phases(params, grad_output, weight, multipliers, addend, addend_multipliers, mask,
                   grad_input, saturations, scratch);
    } else {
        tte_depthwise_conv2d_grad_input_int8_portable(params, grad_output, weight, multipliers,
                                                      addend, addend_multipliers, mask,
                                                      grad_input, saturations, scratch);
    }
}
