/* SPDX-License-Identifier: Apache-2.0
 *
 * grad_input[iy][ix][c] = requantise(sum over the windows that cover (iy, ix) of
 * grad_output[oy][ox][c] * count weight + addend), 0 where the mask bit is 0. Where one window is
 * all of the map, as at the end of most networks, every position of a channel has the same sum.
 * Other windows are left to the portable kernel. NHWC. One rounding, half up.
 * Source: docs/numerics.md, section 2.
 */
#define tte_avg_pool2d_grad_input_int8 tte_avg_pool2d_grad_input_int8_portable
#include "../tte_avg_pool2d_grad_input_int8.c"
#undef tte_avg_pool2d_grad_input_int8

void tte_avg_pool2d_grad_input_int8(const tte_avg_pool2d_grad_input_params *params,
                                    const int8_t *grad_output, const int32_t *count_weights,
                                    const int32_t *multipliers, const int8_t *addend,
                                    const int32_t *addend_multipliers, const uint8_t *mask,
                                    int8_t *grad_input, uint32_t *saturations);

void tte_avg_pool2d_grad_input_int8(const tte_avg_pool2d_grad_input_params *params,
                                    const int8_t *grad_output, const int32_t *count_weights,
                                    const int32_t *multipliers, const int8_t *addend,
                                    const int32_t *addend_multipliers, const uint8_t *mask,
                                    int8_t *grad_input, uint32_t *saturations)
{
    const tte_window window = params->window;
    const int global = window.out_h == 1 && window.out_w == 1 && window.pad_top == 0 &&
                       window.pad_left == 0 && window.dilation_h == 1 && window.dilation_w == 1 &&
                       window.kernel_h >= window.in_h && window.kernel_w >= window.in_w;
    if (!global || addend != NULL) {
        tte_avg_pool2d_grad_input_int8_portable(params, grad_output, count_weights, multipliers,
                                                addend, addend_multipliers, mask, grad_input,
                                                saturations);
        return;
    }
    const int32_t weight =
        params->count_include_pad ? 1 : count_weight(&window, count_weights, 0, 0);
    const uint32_t elems = (uint32_t)window.in_h * window.in_w * window.in_c;
    for (uint32_t channel = 0; channel < window.in_c; channel++) {
        uint32_t saturated = 0;
        const int8_t value = tte_requantize_grad(grad_output[channel] * weight,
                                                 multipliers[channel], 0, 0, params->pre_shift,
                                                 &saturated);
        for (uint32_t index = channel; index < elems; index += window.in_c) {
            const int kept = mask == NULL || tte_mask_get(mask, index);
            grad_input[index] = kept ? value : 0;
            *saturations += kept ? saturated : 0;
        }
    }
}
