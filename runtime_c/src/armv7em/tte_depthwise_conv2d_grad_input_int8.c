/* SPDX-License-Identifier: Apache-2.0
 *
 * grad_input[iy][ix][c] = requantise(sum over taps of weight[c][ky][kx] * grad_output[oy][ox][c] +
 * addend), 0 where the mask bit is 0. With stride 1 this is a convolution of the gradients and the
 * turned-round taps; otherwise inputs whose position has the same remainder by the stride meet the
 * same taps, every stride-th one: each such phase is a convolution with stride 1. Square kernels of
 * 3, 5 or 7 are one call for four channels where there is room (tte_windows.h), others and those
 * with an addend or a shift go row by row (tte_rows.h).
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

typedef struct {
    tte_window turned; /* the convolution with stride 1 of grad_output that gives grad_input */
    tte_plane plane;
    tte_windows_function function;
    tte_windows windows;
    int16_t *grads; /* behind the planes */
    int32_t pairs;  /* stride 2: of the weights of a channel */
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

/* Gradients behind the planes, in rows of a multiple of four. */
static void plan_grads(int16_t *planes, int32_t rows, int32_t whole_w, tte_plan *plan)
{
    const tte_plane *plane = &plan->plane;
    tte_windows *windows = &plan->windows;
    plan->grads = planes + 4 * plane->rows * plane->cols;
    windows->x = planes;
    windows->row_bytes = (uint32_t)(2 * plane->cols);
    windows->plane_bytes = (uint32_t)(2 * plane->rows * plane->cols);
    windows->row = (uint32_t)whole_w / 4 * FOUR_BYTES;
    windows->y = (int8_t *)plan->grads;
    windows->y_bytes = (uint32_t)rows * windows->row;
}

/* Stride 1. Returns whether there is a kernel. */
static int plan_whole(const tte_window *window, int16_t *planes, tte_plan *plan)
{
    static const tte_windows_function functions[3] = {
        tte_windows_3x3_1_grad, tte_windows_5x5_1_grad, tte_windows_7x7_1_grad};
    const int32_t whole_w = (window->in_w + 3) & ~3;
    tte_windows *windows = &plan->windows;
    if (window->stride_h * window->stride_w > 1 || !tte_windows_fit(&plan->turned) ||
        window->pad_top >= window->kernel_h || window->pad_left >= window->kernel_w) {
        return 0;
    }
    plan->plane =
        tte_plan_plane(&plan->turned, 0, window->in_h, tte_windows_origin(window->kernel_w));
    plan->function = functions[window->kernel_w / 2 - 1];
    plan_grads(planes, window->in_h, whole_w, plan);

    const int32_t row_bytes = (int32_t)windows->row_bytes;
    const int32_t back = (window->kernel_h - 1) * row_bytes;
    windows->weight_step = window->kernel_h * window->kernel_w;
    windows->step = FOUR_BYTES;
    windows->y_step = 0;
    if (whole_w == 4) { /* a column is one row */
        windows->x_next = row_bytes - back;
        windows->x_step = 0;
        windows->row = windows->y_bytes;
    } else {
        windows->x_next = 8 - back;
        windows->x_step = row_bytes - 2 * whole_w;
    }
    return plan->function != NULL && plan->plane.planes == 4;
}

/* The first tap is at an odd element of a plane, after a tap of 0 where it has to be. */
static int32_t lead_of(const tte_phase *phase)
{
    return phase->output % 2 == 0;
}

/* Stride 2, rows of a multiple of eight with those behind their end. Returns whether there is a
 * kernel; planes, gradients and weights have to have the room of stride 1. */
static int plan_phases(const tte_window *window, const tte_axis *y, const tte_axis *x,
                       int16_t *planes, tte_plan *plan)
{
    static const tte_windows_function functions[3] = {
        tte_windows_3x3_2_grad, tte_windows_5x5_2_grad, tte_windows_7x7_2_grad};
    const int32_t whole_w = (window->in_w + 3) & ~3, pairs = (window->in_h + 1) / 2;
    const int32_t most = window->kernel_w == 7 ? 4 : 3;
    tte_plane *plane = &plan->plane;
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
    plan->pairs = window->kernel_h * (most + 1);

    const tte_phase *more = &y->phases[y->phases[0].taps < y->phases[1].taps];
    const tte_phase *less = &y->phases[more == y->phases];
    const int32_t more_end = more->output + more->taps, less_end = less->output + less->taps;
    plane->planes = 4;
    plane->rows = (more_end > less_end ? more_end : less_end) - y->origin + pairs - 1;
    plane->cols = whole_w / 2 + 4;
    plane->begin = y->origin < 0 ? 0 : y->origin;
    plane->end = y->origin + plane->rows < window->out_h ? y->origin + plane->rows : window->out_h;
    plane->used_cols = plane->cols - 2 < window->out_w ? plane->cols - 2 : window->out_w;
    plane->first = (plane->begin - y->origin) * plane->cols + 2;
    plan->function = functions[window->kernel_w / 2 - 1];
    plan_grads(planes, 2 * pairs, whole_w, plan);

    const int32_t row = (int32_t)windows->row;
    windows->x += (more->output - y->origin) * plane->cols;
    windows->between = (less->output - more->output) * 2 * plane->cols;
    windows->x_next = 8 - windows->between;
    windows->x_step = 2 * plane->cols - whole_w;
    windows->y += more->first * row;
    windows->y_step = row;
    windows->step = (uint32_t)(more->first == 0 ? row : -row);
    windows->weight_step = 4 * plan->pairs;

    const tte_plane whole =
        tte_plan_plane(&plan->turned, 0, window->in_h, tte_windows_origin(window->kernel_w));
    return plan->function != NULL && whole.planes == 4 &&
           plane->rows * plane->cols + 2 * pairs * whole_w + 2 * plan->pairs <=
               whole.rows * whole.cols + window->in_h * whole_w;
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
    tte_plan plan;
    plan.turned = turn_window(window);
    if ((mask != NULL && window->in_c % 8 != 0) || window->kernel_w < 3 ||
        window->kernel_w % 2 == 0 || !are_narrow(multipliers, window->in_c, taps) ||
        !(plan_whole(window, planes, &plan) || plan_phases(window, &y, &x, planes, &plan))) {
        return 0;
    }

    uint32_t *const pairs = (uint32_t *)(void *)(plan.windows.y_bytes / 2 + plan.grads);
    tte_grad_map map = {grad_input,
                        window->in_c,
                        mask == NULL ? &all : mask,
                        mask == NULL ? 0 : window->in_c / 8,
                        saturations,
                        window->in_w / 4,
                        window->in_w % 4,
                        window->in_h,
                        0,
                        0,
                        plan.grads,
                        16};
    tte_copies copies;
    int32_t count;

    if (map.tail == 0) { /* one row */
        map.fours *= map.rows;
        map.rows = 1;
    }
    plan.windows.zero_point = TTE_GRAD_OFFSET;
    plan.windows.biases = NULL;
    plan.windows.multipliers = multipliers;
    tte_plan_copies(&plan.turned, &plan.plane, 0, grad_output, planes, &copies);
    tte_clear_words(planes, (uint32_t)(2 * plan.plane.rows * plan.plane.cols));
    for (int32_t channel = 0; channel < window->in_c; channel += count) {
        count = window->in_c - channel < 4 ? window->in_c - channel : 4;
        tte_copy_group(&copies, count);
        plan.windows.channels = (uint32_t)count;
        plan.windows.weight = weight;
        if (window->stride_w == 2) {
            pack_channels(window->kernel_w, weight, count, &x, pairs);
            plan.windows.weight = (const int8_t *)pairs;
        }
        plan.function(&plan.windows);
        map.shift = 16u - (uint32_t)(channel % 8);
        if (count == 4) {
            tte_store_grads(&map);
        } else {
            store_channels(&map, count);
        }
        map.to += count;
        map.mask += mask == NULL ? 0 : channel % 8 / 4;
        weight += count * taps;
        plan.windows.multipliers += count;
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
