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
    FOUR_BYTES = 32, /* of four gradients of four channels */
    SUMS = 64, /* at least, of some rows at once */
    MAX_STRIDE = 2,
    MAX_JOBS = MAX_STRIDE * MAX_STRIDE,
    MAX_PAIRS = 56, /* 7 rows of 7 taps, or twice 7 rows of 5 */
    MAX_SPACED = 4 * 5 * (5 + 2) + 2 /* weights of four channels with zeros around their rows */
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

/* The gradients of one call: what the first channels become. */
typedef struct {
    tte_call call;
    int32_t kernel_rows, weight; /* bytes from a group's first weight to this call's */
    tte_grad_map map;
} tte_part;

typedef struct {
    tte_window turned; /* the convolution with stride 1 of grad_output that gives grad_input */
    tte_plane plane;
    int32_t pitch; /* from a row of weights to the next */
    tte_part parts[MAX_JOBS], *end;
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

/* Stride 1, a square kernel of 3, 5 or 7. Returns whether that is so. */
static int plan_whole(const tte_window *window, tte_plan *plan)
{
    if (window->stride_h * window->stride_w > 1 || !tte_windows_fit(&plan->turned) ||
        (window->kernel_w != 3 && window->kernel_w != 5 && window->kernel_w != 7) ||
        window->pad_top >= window->kernel_h || window->pad_left >= window->kernel_w) {
        return 0;
    }
    plan->plane =
        tte_plan_plane(&plan->turned, 0, window->in_h, tte_windows_origin(window->kernel_w));
    plan->pitch = window->kernel_w;
    return plan->plane.planes == 4;
}

/* The first of three or four taps is an odd element of a plane: `lead` taps of 0 come before. */
static int32_t lead_of(const tte_phase *phase)
{
    return phase->output % 2 == 0;
}

/* Stride 2, rows of whole fours of each phase; up to 4 rows of 4 taps. Returns whether that is so;
 * the plane holds what all phases look at, output 0 at an even element. */
static TTE_APART int plan_phases(const tte_window *window, const tte_axis *y, const tte_axis *x,
                                 tte_plan *plan)
{
    tte_plane *plane = &plan->plane;
    int32_t right = 0;
    if (window->stride_w != 2 || window->in_w % 8 != 0) {
        return 0;
    }
    plan->pitch = window->kernel_w;
    plane->rows = 0;
    for (int32_t i = 0; i < y->count; i++) {
        const tte_phase *phase = &y->phases[i];
        const int32_t end = phase->output - y->origin + phase->count + phase->taps - 1;
        plane->rows = end > plane->rows ? end : plane->rows;
        if (phase->taps > 4) {
            return 0;
        }
    }
    for (int32_t i = 0; i < x->count; i++) {
        const tte_phase *phase = &x->phases[i];
        const int32_t taps = lead_of(phase) + phase->taps;
        right = phase->output + phase->count > right ? phase->output + phase->count : right;
        if (taps > 4) {
            return 0;
        }
        if (taps != phase->taps || taps < 3) {
            plan->pitch = window->kernel_w + 2; /* taps of 0 around each row */
            if (window->kernel_h > 5 || window->kernel_w > 5) {
                return 0;
            }
        }
    }
    const int32_t left = (2 - x->origin) & ~1;
    plane->cols = (left + right + 5) & ~1;
    plane->begin = y->origin < 0 ? 0 : y->origin;
    plane->end = y->origin + plane->rows < window->out_h ? y->origin + plane->rows : window->out_h;
    plane->used_cols = plane->cols - left < window->out_w ? plane->cols - left : window->out_w;
    plane->first = (plane->begin - y->origin) * plane->cols + left;
    /* There is room for the planes of stride 1. */
    const tte_plane whole =
        tte_plan_plane(&plan->turned, 0, window->in_h, tte_windows_origin(window->kernel_w));
    plane->planes = 4;
    return whole.planes == 4 && plane->rows * plane->cols <= whole.rows * whole.cols;
}

/* The part of grad_input from (row, col) on, of every stride-th pixel; its values come from `from`
 * on. */
static tte_part *add_part(const tte_window *window, int32_t row, int32_t rows, int32_t col,
                          int32_t cols, int16_t *from, const uint8_t *mask, int8_t *grad_input,
                          uint32_t *saturations, tte_plan *plan)
{
    static const uint8_t all = 0xFF;
    tte_part *part = plan->end++;
    const int32_t fours = (cols + 3) / 4, stride = window->stride_w;
    const int32_t step = stride * window->in_c, bits_step = mask == NULL ? 0 : step / 8;
    const int32_t pixel = row * window->in_w + col;
    const int32_t row_pixels = window->stride_h * window->in_w;
    tte_call *call = &part->call;
    tte_grad_map *map = &part->map;

    call->y = (int8_t *)from;
    call->mask = NULL;
    call->y_step = 0;
    call->step = FOUR_BYTES;
    call->row = (uint32_t)fours * FOUR_BYTES;
    call->y_bytes = (uint32_t)rows * call->row;

    map->from = from;
    map->to = grad_input + pixel * window->in_c;
    map->step = (uint32_t)step;
    map->mask = mask == NULL ? &all : mask + pixel * window->in_c / 8;
    map->mask_step = (uint32_t)bits_step;
    map->saturations = saturations;
    map->fours = cols / 4;
    map->tail = cols % 4;
    map->rows = rows;
    map->to_step = row_pixels * window->in_c - cols * step;
    map->mask_row_step = mask == NULL ? 0 : map->to_step / 8;
    if (map->to_step == 0 && map->tail == 0) { /* one row */
        map->fours *= rows;
        map->rows = 1;
    }
    return part;
}

static void add_phase(const tte_window *window, const tte_axis *y, const tte_phase *down,
                      const tte_phase *across, const int16_t *planes, int16_t *from,
                      const uint8_t *mask, int8_t *grad_input, uint32_t *saturations,
                      tte_plan *plan)
{
    const int32_t lead = lead_of(across), cols = plan->plane.cols;
    const int32_t left = plan->plane.first % cols;
    tte_part *part = add_part(window, down->first, down->count, across->first, across->count, from,
                              mask, grad_input, saturations, plan);
    tte_call *call = &part->call;

    call->function = lead + across->taps > 3 ? tte_windows_4_1_grad : tte_windows_3_1_grad;
    call->x = planes + (down->output - y->origin) * cols + left + across->output - lead - 1;
    call->x_next = 8 - 2 * (down->taps - 1) * cols;
    call->x_step = 2 * (cols - across->count);
    part->kernel_rows = down->taps;
    part->weight = down->tap * plan->pitch + across->tap + 2 * lead;
}

static void add_whole(const tte_window *window, const int16_t *planes, int16_t *from,
                      const uint8_t *mask, int8_t *grad_input, uint32_t *saturations,
                      tte_plan *plan)
{
    static const tte_windows_function functions[3] = {
        tte_windows_3x3_1_grad, tte_windows_5x5_1_grad, tte_windows_7x7_1_grad};
    tte_part *part = add_part(window, 0, window->in_h, 0, window->in_w, from, mask, grad_input,
                              saturations, plan);
    const int32_t row_bytes = 2 * plan->plane.cols, back = (window->kernel_h - 1) * row_bytes;
    tte_call *call = &part->call;

    call->function = functions[window->kernel_w / 2 - 1];
    call->x = planes;
    if (window->in_w <= 4) { /* a column is one row */
        call->x_next = row_bytes - back;
        call->x_step = 0;
        call->row = call->y_bytes;
    } else {
        call->x_next = 8 - back;
        call->x_step = row_bytes - 2 * ((window->in_w + 3) & ~3);
    }
    part->kernel_rows = part->weight = 0;
}

/* The last one to three channels. */
static TTE_APART void store_channels(const tte_grad_map *map, int32_t count)
{
    const int16_t *from = map->from;
    int8_t *to = map->to;
    const int32_t cols = 4 * map->fours + map->tail;
    for (int32_t row = 0; row < map->rows; row++, to += map->to_step) {
        for (int32_t i = 0; i < cols; i++, to += map->step) {
            const int16_t *value = from + i / 4 * 16 + i % 4;
            for (int32_t channel = 0; channel < count; channel++, value += 4) {
                to[channel] = tte_saturate_grad(*value - TTE_GRAD_OFFSET, map->saturations);
            }
        }
        from += (cols + 3) / 4 * 16;
    }
}

/* What the calls left of `count` channels. */
static void store_group(const tte_plan *plan, int32_t channel, int32_t count)
{
    for (const tte_part *part = plan->parts; part != plan->end; part++) {
        tte_grad_map map = part->map;
        map.to += channel;
        map.mask += map.mask_step == 0 ? 0 : channel / 8;
        map.shift = 16u - (uint32_t)(channel % 8);
        if (count == 4) {
            tte_store_grads(&map);
        } else {
            store_channels(&map, count);
        }
    }
}

/* Rows of weights with two taps of 0 after each; there are two before the first. */
static void space_rows(const int8_t *weight, int32_t rows, int32_t taps, int8_t *to)
{
    for (; rows > 0; rows--, to += 2) {
        for (int32_t i = 0; i < taps; i++) {
            *to++ = *weight++;
        }
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
    const tte_window *window = &params->window;
    const int32_t taps = window->kernel_h * window->kernel_w;
    const tte_axis y = find_phases(window->in_h, window->kernel_h, window->stride_h,
                                   window->pad_top);
    const tte_axis x = find_phases(window->in_w, window->kernel_w, window->stride_w,
                                   window->pad_left);
    tte_plan plan;
    plan.end = plan.parts;
    plan.turned = turn_window(window);
    if ((mask != NULL && window->in_c % 8 != 0) ||
        !are_narrow(multipliers, window->in_c, taps) ||
        !(plan_whole(window, &plan) || plan_phases(window, &y, &x, &plan))) {
        return 0;
    }

    const int32_t elems = 4 * plan.plane.rows * plan.plane.cols;
    int16_t *from = planes + elems;
    int8_t spaced[MAX_SPACED];
    tte_windows windows;
    tte_copies copies;
    int32_t count;

    windows.zero_point = TTE_GRAD_OFFSET;
    windows.weight_step = window->kernel_h * plan.pitch;
    windows.tap_step = -2;
    windows.row_step = -window->stride_h * plan.pitch;
    windows.biases = NULL;
    windows.multipliers = multipliers;
    if (window->stride_w == 1) {
        add_whole(window, planes, from, mask, grad_input, saturations, &plan);
    } else {
        for (int32_t i = 0; i < y.count * x.count; i++) {
            const tte_phase *down = &y.phases[i / x.count], *across = &x.phases[i % x.count];
            add_phase(window, &y, down, across, planes, from, mask, grad_input, saturations,
                      &plan);
            from += 4 * down->count * across->count;
        }
    }
    tte_plan_copies(&plan.turned, &plan.plane, 0, grad_output, planes, &copies);
    tte_clear_words(planes, (uint32_t)(elems / 2));
    memset(spaced, 0, sizeof spaced);
    for (int32_t channel = 0; channel < window->in_c; channel += count, weight += count * taps) {
        const int8_t *group = weight;
        count = window->in_c - channel < 4 ? window->in_c - channel : 4;
        tte_copy_group(&copies, count);
        if (plan.pitch != window->kernel_w) {
            space_rows(weight, count * window->kernel_h, window->kernel_w, spaced + 2);
            group = spaced + 2;
        }
        tte_set_planes(&plan.plane, count, &windows);
        for (const tte_part *part = plan.parts; part != plan.end; part++) {
            windows.weight = group + part->weight;
            windows.kernel_rows = part->kernel_rows;
            tte_run_call(&part->call, &windows);
        }
        windows.multipliers += count;
        store_group(&plan, channel, count);
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
