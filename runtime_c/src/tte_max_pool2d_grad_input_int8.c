/* SPDX-License-Identifier: Apache-2.0
 *
 * grad_input[iy][ix][c] = requantise(sum of grad_output[oy][ox][c] over the windows whose first
 * maximum lies here, by index[oy][ox][c] = ky * kernel_w + kx, + addend), 0 where the mask bit is
 * 0. NHWC. One rounding, half up. Source: docs/numerics.md, section 2.
 */
#include "tte_kernels.h"
#include "tte_requant.h"
#include "tte_window.h"

/* The outputs whose windows may cover a position of the padded map. */
static tte_range covering(int32_t position, int32_t stride, int32_t span, int32_t count)
{
    const int32_t before = position - span + 1;
    const int32_t last = position / stride + 1;
    const tte_range range = {before > 0 ? (before + stride - 1) / stride : 0,
                             last < count ? last : count};
    return range;
}

/* The tap at a distance from a window's begin, or -1 between two taps. */
static inline int32_t tap_at(int32_t distance, int32_t dilation)
{
    return dilation == 1 ? distance : distance % dilation == 0 ? distance / dilation : -1;
}

/* What one output gives to the element that is this tap of its window, for each channel. */
static void add_tap(const int8_t *grad_output, const uint8_t *index, int32_t tap,
                    int32_t channels, int32_t *sums)
{
    for (int32_t channel = 0; channel < channels; channel++) {
        sums[channel] += index[channel] == tap ? grad_output[channel] : 0;
    }
}

void tte_max_pool2d_grad_input_int8(const tte_max_pool2d_grad_input_params *params,
                                    const int8_t *grad_output, const uint8_t *index,
                                    const int32_t *multipliers, const int8_t *addend,
                                    const int32_t *addend_multipliers, const uint8_t *mask,
                                    int8_t *grad_input, uint32_t *saturations, int32_t *scratch)
{
    const tte_window window = params->window;
    const int32_t span_h = (window.kernel_h - 1) * window.dilation_h + 1;
    const int32_t span_w = (window.kernel_w - 1) * window.dilation_w + 1;
    uint32_t element = 0;

    for (int32_t iy = 0; iy < window.in_h; iy++) {
        const int32_t py = iy + window.pad_top;
        const tte_range rows = covering(py, window.stride_h, span_h, window.out_h);
        for (int32_t ix = 0; ix < window.in_w; ix++) {
            const int32_t px = ix + window.pad_left;
            const tte_range cols = covering(px, window.stride_w, span_w, window.out_w);
            memset(scratch, 0, window.in_c * sizeof *scratch);
            for (int32_t oy = rows.begin; oy < rows.end; oy++) {
                const int32_t ky = tap_at(py - oy * window.stride_h, window.dilation_h);
                for (int32_t ox = cols.begin; ox < cols.end && ky >= 0; ox++) {
                    const int32_t kx = tap_at(px - ox * window.stride_w, window.dilation_w);
                    const int32_t output = (oy * window.out_w + ox) * window.out_c;
                    if (kx >= 0) {
                        add_tap(grad_output + output, index + output, ky * window.kernel_w + kx,
                                window.in_c, scratch);
                    }
                }
            }
            for (uint32_t channel = 0; channel < window.in_c; channel++, element++) {
                grad_input[element] = tte_grad_value(
                    scratch[channel], multipliers[channel], addend, addend_multipliers, channel,
                    mask, element, params->pre_shift, saturations);
            }
        }
    }
}
