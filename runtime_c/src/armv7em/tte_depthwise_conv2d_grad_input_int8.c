/* SPDX-License-Identifier: Apache-2.0
 *
 * grad_input[iy][ix][c] = requantise(sum over taps of weight[c][ky][kx] * grad_output[oy][ox][c] +
 * addend), 0 where the mask bit is 0. With stride 1 this is a convolution of the gradients and the
 * turned-round taps; otherwise inputs whose position has the same remainder by the stride meet the
 * same taps, every stride-th one: each such phase is a convolution with stride 1. Square kernels of
 * 3, 5 or 7 are a call for four channels of a map or, where there is no room for that, of a band of
 * rows (tte_windows.h); others and those with an addend or a shift go row by row (tte_rows.h).
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
    FOUR_BYTES = 32, /* of four gradients of four channels */
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

/* For whatever tte_windows.h has no kernel for, or no room. */
static TTE_APART void run_phases(const tte_conv2d_grad_input_params *params,
                                 const int8_t *grad_output, const int8_t *weight,
                                 const int32_t *multipliers, const int8_t *addend,
                                 const int32_t *addend_multipliers, const uint8_t *mask,
                                 int8_t *grad_input, uint32_t *saturations, int32_t *scratch)
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

/* ---- four channels at once: tte_windows.h ------------------------------------------------- */

/* A step is a row of gradients, with a stride of 2 two of them. The planes of some steps have `span` - 1
 * rows more, which the next band of steps begins with. */
typedef struct {
    tte_window turned; /* the convolution with stride 1 of grad_output that gives grad_input */
    tte_windows_function function;
    tte_windows windows;
    int32_t steps, band;  /* in all, at once */
    int32_t step_rows;    /* of gradients */
    int32_t span, origin; /* rows of grad_output that a step looks at, the first step's first one */
    int32_t cols, used_cols, left; /* of a plane; the map begins at column `left` */
    int32_t row;          /* bytes of a row of four channels' gradients: fours, channel by channel */
    int32_t at, first;    /* of the first windows: plane row and row of gradients */
    int32_t pairs;        /* stride 2: of the weights of a channel */
} tte_plan;

static tte_window turn_window(const tte_window *window)
{
    tte_window turned = *window;
    turned.in_h = window->out_h;
    turned.in_w = window->out_w;
    turned.out_h = window->in_h;
    turned.out_w = window->in_w;
    turned.stride_h = turned.stride_w = 1;
    turned.pad_top = (uint16_t)(window->kernel_h - 1 - window->pad_top);
    turned.pad_left = (uint16_t)(window->kernel_w - 1 - window->pad_left);
    return turned;
}

/* Stride 1. Returns whether there is a kernel. */
static int plan_whole(const tte_window *window, tte_plan *plan)
{
    static const tte_windows_function functions[3] = {
        tte_windows_3x3_1_grad, tte_windows_5x5_1_grad, tte_windows_7x7_1_grad};
    const int32_t whole_w = (window->in_w + 3) & ~3;
    const int32_t origin = tte_windows_origin(window->kernel_w);
    tte_windows *windows = &plan->windows;
    if (window->stride_h * window->stride_w > 1 || !tte_windows_fit(&plan->turned) ||
        window->pad_top >= window->kernel_h || window->pad_left >= window->kernel_w) {
        return 0;
    }
    const tte_plane plane = tte_plan_plane(&plan->turned, 0, window->in_h, origin);
    const int32_t row_bytes = 2 * plane.cols;
    const int32_t back = (window->kernel_h - 1) * row_bytes;
    plan->function = functions[window->kernel_w / 2 - 1];
    plan->steps = window->in_h;
    plan->step_rows = 1;
    plan->span = window->kernel_h;
    plan->origin = -plan->turned.pad_top;
    plan->cols = plane.cols;
    plan->used_cols = plane.used_cols;
    plan->left = origin + plan->turned.pad_left;
    plan->at = plan->first = plan->pairs = 0;
    windows->weight_step = window->kernel_h * window->kernel_w;
    windows->step = FOUR_BYTES;
    windows->y_step = 0;
    if (whole_w == 4) { /* a column is one row */
        windows->x_next = row_bytes - back;
        windows->x_step = 0;
    } else {
        windows->x_next = 8 - back;
        windows->x_step = row_bytes - 2 * whole_w;
    }
    return plan->function != NULL;
}

/* The first tap is at an odd element of a plane, after a tap of 0 where it has to be. */
static int32_t lead_of(const tte_phase *phase)
{
    return phase->output % 2 == 0;
}

/* Stride 2, rows of a multiple of eight with those behind their end. Returns whether there is a
 * kernel. */
static int plan_phases(const tte_window *window, const tte_axis *y, const tte_axis *x,
                       tte_plan *plan)
{
    static const tte_windows_function functions[3] = {
        tte_windows_3x3_2_grad, tte_windows_5x5_2_grad, tte_windows_7x7_2_grad};
    const int32_t whole_w = (window->in_w + 3) & ~3;
    const int32_t most = window->kernel_w == 7 ? 4 : 3;
    tte_windows *windows = &plan->windows;
    if (window->stride_h != 2 || window->stride_w != 2 || !tte_windows_fit(&plan->turned) ||
        window->in_h < 2 || whole_w % 8 != 0 || x->phases[0].taps > 3) {
        return 0;
    }
    for (int32_t i = 0; i < 2; i++) {
        const tte_phase *phase = &x->phases[i];
        const int32_t lead = lead_of(phase);
        if (phase->output - lead != -1 || lead + phase->taps > most) {
            return 0;
        }
    }

    const tte_phase *more = &y->phases[y->phases[0].taps < y->phases[1].taps];
    const tte_phase *less = &y->phases[more == y->phases];
    const int32_t more_end = more->output + more->taps, less_end = less->output + less->taps;
    const int32_t row = whole_w / 4 * FOUR_BYTES;
    plan->function = functions[window->kernel_w / 2 - 1];
    plan->steps = (window->in_h + 1) / 2;
    plan->step_rows = 2;
    plan->span = (more_end > less_end ? more_end : less_end) - y->origin;
    plan->origin = y->origin;
    plan->cols = whole_w / 2 + 4;
    plan->left = 2;
    plan->used_cols = plan->cols - 2 < window->out_w ? plan->cols - 2 : window->out_w;
    plan->at = more->output - y->origin;
    plan->first = more->first;
    plan->pairs = window->kernel_h * (most + 1);
    windows->between = (less->output - more->output) * 2 * plan->cols;
    windows->x_next = 8 - windows->between;
    windows->x_step = 2 * plan->cols - whole_w;
    windows->y_step = row;
    windows->step = (uint32_t)(more->first == 0 ? row : -row);
    windows->weight_step = 4 * plan->pairs;
    return plan->function != NULL;
}

/* As many steps at once as there is room for, with four planes and the weights' pairs of four
 * channels. A band is read after the one before it was written: in place it has to be in other rows.
 * Returns whether there is a way. */
static int plan_bands(const tte_window *window, int in_place, tte_plan *plan)
{
    const tte_plane whole = tte_plan_plane(&plan->turned, 0, window->in_h,
                                           tte_windows_origin(window->kernel_w));
    const int32_t whole_w = (window->in_w + 3) & ~3;
    const int32_t room = whole.planes == 4
                             ? 8 * (whole.rows * whole.cols + window->in_h * whole_w)
                             : TTE_FOUR_PLANES_BYTES;
    const int32_t border = 8 * (plan->span - 1) * plan->cols + 16 * plan->pairs;
    const int32_t most = (room - border) / (8 * (plan->cols + plan->step_rows * whole_w));
    const int same_rows = window->in_h == window->out_h && window->in_w == window->out_w;
    if (most < 1 || (most < plan->steps && in_place && !same_rows)) {
        return 0;
    }
    const int32_t bands = (plan->steps + most - 1) / most;
    plan->band = (plan->steps + bands - 1) / bands;
    return 1;
}

/* Planes first, gradients behind them, then the weights' pairs, which are returned. */
static uint32_t *place(int32_t in_w, int16_t *planes, tte_plan *plan)
{
    const int32_t plane = (plan->band - 1 + plan->span) * plan->cols;
    tte_windows *windows = &plan->windows;
    plan->row = (in_w + 3) / 4 * FOUR_BYTES;
    windows->x = planes + plan->at * plan->cols;
    windows->row_bytes = (uint32_t)(2 * plan->cols);
    windows->plane_bytes = (uint32_t)(2 * plane);
    windows->row = (uint32_t)plan->row;
    int8_t *const grads = (int8_t *)(planes + 4 * plane);
    windows->y = grads + plan->first * plan->row;
    return (uint32_t *)(void *)(grads + plan->band * plan->step_rows * plan->row);
}

/* Of two taps a and b, as the pair (b, a), with a tap of 0 before or behind them. */
static inline void pack_two(uint32_t pair, int32_t lead, uint32_t *pairs)
{
    pairs[0] = pair >> 16 * lead;
    pairs[1] = pair << 16 * (1 - lead);
}

/* A row's pairs of the columns of inputs with more taps, and of the others; in a row with two taps
 * `lead` says whether a tap of 0 is before them. Returns how many come in the first place. */
static inline int32_t pack_row(int32_t kernel, const int8_t *weight, int32_t lead, uint32_t *more,
                               uint32_t *less)
{
    if (kernel == 3) {
        pack_two(tte_pkhbt((uint32_t)weight[0], (uint32_t)weight[2]), lead, more);
        less[0] = (uint32_t)weight[1] & 0xFFFFu;
        less[1] = (uint32_t)weight[1] << 16;
        return 2;
    }
    const uint32_t word = tte_load_4(weight);
    const uint32_t even = tte_sxtb16(word), odd = tte_sxtb16_ror8(word);
    if (kernel == 5) {
        more[0] = tte_pkhbt(even >> 16, (uint32_t)weight[4]);
        more[1] = even;
        pack_two(odd, lead, less);
        return 2;
    }
    const uint32_t end = tte_load_4(weight + 3), high = tte_sxtb16_ror8(end);
    more[0] = high;
    more[1] = (high & 0xFFFFu) | (even & 0xFFFF0000u);
    more[2] = even;
    less[0] = tte_sxtb16(end);
    less[1] = odd;
    return 3;
}

/* The pairs of `count` channels: of every second row from the last one on, then of the others. */
static inline void pack_kernels(int32_t kernel, const int8_t *weight, int32_t count,
                                const tte_axis *x, uint32_t *pairs)
{
    const int32_t odd_has_more = x->phases[0].taps < x->phases[1].taps;
    const int32_t lead = lead_of(&x->phases[odd_has_more ^ (kernel == 5)]);
    for (; count > 0; count--, weight += kernel * kernel) {
        for (int32_t rows = kernel / 2 + 1; rows >= kernel / 2; rows--) {
            const int8_t *row = weight + (kernel / 2 + rows - 1) * kernel;
            uint32_t *more = odd_has_more ? pairs + 2 * rows : pairs;
            uint32_t *less = odd_has_more ? pairs : pairs + 2 * rows;
            for (int32_t i = 0; i < rows; i++, row -= 2 * kernel, less += 2) {
                more += pack_row(kernel, row, lead, more, less);
            }
            pairs += rows * (kernel == 7 ? 5 : 4);
        }
    }
}

static TTE_APART void pack_channels(int32_t kernel, const int8_t *weight, int32_t count,
                                    const tte_axis *x, uint32_t *pairs)
{
    switch (kernel) {
    case 3:
        pack_kernels(3, weight, count, x, pairs);
        break;
    case 5:
        pack_kernels(5, weight, count, x, pairs);
        break;
    default:
        pack_kernels(7, weight, count, x, pairs);
    }
}

/* The last one to three channels. */
static TTE_APART void store_channels(const tte_grad_map *map, int32_t count)
{
    const int16_t *from = map->from;
    int8_t *to = map->to;
    const int32_t cols = 4 * map->fours + map->tail;
    for (int32_t row = 0; row < map->rows; row++) {
        for (int32_t i = 0; i < cols; i++, to += map->step) {
            const int16_t *value = from + i / 4 * 16 + i % 4;
            for (int32_t channel = 0; channel < count; channel++, value += 4) {
                to[channel] = tte_saturate_grad(*value - TTE_GRAD_OFFSET, map->saturations);
            }
        }
        from += (cols + 3) / 4 * 16;
    }
}

/* Whether all gradients of so many taps are int16, with TTE_GRAD_OFFSET. */
static int are_narrow(const int32_t *multipliers, int32_t channels, int32_t taps)
{
    const uint64_t most = ((uint64_t)(INT16_MAX - TTE_GRAD_OFFSET) << 18) / (uint64_t)taps;
    for (int32_t channel = 0; channel < channels; channel++) {
        if ((uint32_t)multipliers[channel] > most) {
            return 0;
        }
    }
    return 1;
}

/* What is copied, multiplied and stored. */
typedef struct {
    tte_plan plan;
    int16_t *planes;
    tte_copy copy;
    tte_grad_map map;
    const int8_t *grad_output;
    const uint8_t *mask;
    int8_t *grad_input;
} tte_run;

/* The next band: planes are clear but for the pixels of a band of other channels. */
static TTE_APART void begin_band(const tte_window *window, int32_t channel, int32_t step, tte_run *run)
{
    const tte_plan *plan = &run->plan;
    const int32_t left = plan->steps - step, steps = left < plan->band ? left : plan->band;
    const int32_t top = plan->origin + step, rows = steps - 1 + plan->span;
    const int32_t carried = step == 0 ? 0 : plan->span - 1;
    const int32_t begin = tte_clamp(-top, carried, rows);
    const int32_t end = tte_clamp(window->out_h - top, begin, rows);
    const int32_t row = step * plan->step_rows;
    const int32_t first = row * window->in_w * window->in_c + channel;
    tte_copy *copy = &run->copy;
    tte_grad_map *map = &run->map;
    int16_t *plane = run->planes;

    copy->x = run->grad_output + (top + begin) * window->out_w * window->out_c + channel;
    copy->to = plane + begin * plan->cols + plan->left;
    copy->rows = copy->cols > 0 ? end - begin : 0;
    for (int32_t i = 0; i < 4; i++, plane += plan->windows.plane_bytes / 2) {
        tte_move_words(plane, plane + plan->band * plan->cols,
                       (uint32_t)(carried * plan->cols / 2));
        tte_clear_words(plane + carried * plan->cols,
                        (uint32_t)((begin - carried) * plan->cols / 2));
        tte_clear_words(plane + end * plan->cols, (uint32_t)((rows - end) * plan->cols / 2));
    }

    run->plan.windows.y_bytes = (uint32_t)(steps * plan->step_rows * plan->row);
    if (window->in_w <= 4) { /* a column is one row */
        run->plan.windows.row = run->plan.windows.y_bytes;
    }
    map->to = run->grad_input + first;
    map->mask = run->mask == NULL ? map->mask : run->mask + first / 8;
    map->fours = window->in_w / 4;
    map->tail = window->in_w % 4;
    map->rows = steps * plan->step_rows;
    map->rows = window->in_h - row < map->rows ? window->in_h - row : map->rows;
    if (map->tail == 0) { /* one row */
        map->fours *= map->rows;
        map->rows = 1;
    }
}

/* The next `count` channels; `fours`: whether four can be copied at once. */
static inline void copy_band(tte_copy *copy, int fours, int32_t count)
{
    if (copy->rows > 0 && fours && count == 4) {
        tte_copy_four_channels(copy);
    } else if (copy->rows > 0) {
        tte_copy one = *copy;
        for (int32_t i = 0; i < count; i++, one.x++, one.to += one.plane_bytes / 2) {
            tte_copy_channel(&one);
        }
    }
    copy->x += count;
}

/* Without an addend. Returns 0 where tte_windows.h has no kernels for it. */
static TTE_APART int run_windows(const tte_conv2d_grad_input_params *params,
                                 const int8_t *grad_output, const int8_t *weight,
                                 const int32_t *multipliers, const uint8_t *mask,
                                 int8_t *grad_input, uint32_t *saturations, int16_t *planes)
{
    static const uint8_t all = 0xFF;
    const tte_window *window = &params->window;
    const int32_t taps = window->kernel_h * window->kernel_w;
    const tte_axis y = find_phases(window->in_h, window->kernel_h, window->stride_h,
                                   window->pad_top);
    const tte_axis x = find_phases(window->in_w, window->kernel_w, window->stride_w,
                                   window->pad_left);
    tte_run run;
    tte_plan *const plan = &run.plan;
    tte_windows *const windows = &plan->windows;
    tte_grad_map *const map = &run.map;
    tte_copy *const copy = &run.copy;
    plan->turned = turn_window(window);
    if ((mask != NULL && window->in_c % 8 != 0) || window->kernel_w < 3 ||
        window->kernel_w % 2 == 0 || !are_narrow(multipliers, window->in_c, taps) ||
        !(plan_whole(window, plan) || plan_phases(window, &y, &x, plan)) ||
        !plan_bands(window, grad_input == grad_output, plan)) {
        return 0;
    }

    uint32_t *const pairs = place(window->in_w, planes, plan);
    const int32_t steps = plan->steps, band = plan->band;
    const int fours = plan->used_cols >= 4 && plan->left % 2 == 0;
    int32_t count;

    run.planes = planes;
    run.grad_output = grad_output;
    run.grad_input = grad_input;
    run.mask = mask;
    copy->channels = window->in_c;
    copy->plane_bytes = windows->plane_bytes;
    copy->zero_point = 0;
    copy->cols = plan->used_cols;
    copy->x_step = (window->out_w - plan->used_cols) * window->out_c;
    copy->to_step = 2 * (plan->cols - plan->used_cols);
    map->step = window->in_c;
    map->mask = &all;
    map->mask_step = mask == NULL ? 0 : window->in_c / 8;
    map->saturations = saturations;
    map->to_step = map->mask_row_step = 0;
    map->from = (const int16_t *)(const void *)(windows->y - plan->first * plan->row);
    windows->zero_point = TTE_GRAD_OFFSET;
    windows->biases = NULL;
    windows->multipliers = multipliers;
    tte_clear_words(planes, windows->plane_bytes);
    begin_band(window, 0, 0, &run);
    for (int32_t channel = 0; channel < window->in_c; channel += count) {
        count = window->in_c - channel < 4 ? window->in_c - channel : 4;
        windows->channels = (uint32_t)count;
        windows->weight = weight;
        if (window->stride_w == 2) {
            pack_channels(window->kernel_w, weight, count, &x, pairs);
            windows->weight = (const int8_t *)pairs;
        }
        map->shift = 16u - (uint32_t)(channel % 8);
        int32_t step = 0;
        do {
            if (band < steps) {
                begin_band(window, channel, step, &run);
            }
            copy_band(copy, fours, count);
            plan->function(windows);
            if (count == 4) {
                tte_store_grads(map);
            } else {
                store_channels(map, count);
            }
            step += band;
        } while (step < steps);
        map->to += count;
        map->mask += mask == NULL ? 0 : channel % 8 / 4;
        weight += count * taps;
        windows->multipliers += count;
    }
    return 1;
}

void tte_depthwise_conv2d_grad_input_int8(const tte_conv2d_grad_input_params *params,
                                          const int8_t *grad_output, const int8_t *weight,
                                          const int32_t *multipliers, const int8_t *addend,
                                          const int32_t *addend_multipliers, const uint8_t *mask,
                                          int8_t *grad_input, uint32_t *saturations,
                                          int32_t *scratch)
{
    if (!is_supported(params)) {
        tte_depthwise_conv2d_grad_input_int8_portable(params, grad_output, weight, multipliers,
                                                      addend, addend_multipliers, mask,
                                                      grad_input, saturations, scratch);
    } else if (addend != NULL || params->pre_shift != 0 ||
               !run_windows(params, grad_output, weight, multipliers, mask, grad_input,
                            saturations, (int16_t *)(void *)scratch)) {
        run_phases(params, grad_output, weight, multipliers, addend, addend_multipliers, mask,
                   grad_input, saturations, scratch);
    }
}
