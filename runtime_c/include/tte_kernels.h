/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernels. One symbol, one file, one IR kind: tte_<kind>. A faster version of a kernel is
 * the same symbol in another folder (src/armv7em/) with the same bits. Kernels check nothing:
 * whatever they could reject was rejected at compile time.
 *
 * Forward:  acc = bias + sum w (x - input_zero_point);   padding contributes 0
 *           v   = requantize(acc, multipliers[channel]) + output_zero_point
 *           y   = clamp(v, act_min, act_max);            mask bit = (act_min <= v <= act_max)
 * Gradient: grad_output = dL/d(acc) of the layer above, int8, zero point 0.
 *           grad_input  = requantize_grad(sum, multipliers[c], addend, addend_multipliers[c]),
 *           then 0 where the mask bit is 0. The multipliers fold in what leads to dL/d(acc) of
 *           the producer.
 * `mask`, `addend` and `addend_multipliers` may be NULL: no mask is written or applied, nothing
 * is added. `grad_input` may be `addend` (same element, in place). `saturations` is counted up;
 * an element that the mask clears is none. No other buffers may overlap unless it says so.
 */
#ifndef TTE_KERNELS_H
#define TTE_KERNELS_H

#include "tte_types.h"

/* ---- forward -------------------------------------------------------------------------- */

/* Output rows row_begin .. row_end-1 of y[out_h][out_w][out_c] from x[in_h][in_w][in_c];
 * weight[out_c][kernel_h][kernel_w][in_c / groups], bias[out_c], multipliers[out_c].
 * trained[out_c][kernel_h][kernel_w][trained_c] stands in for the weights of the input channels
 * `channels` (ascending, the same in every group); both are NULL where trained_c is 0. y and mask
 * are the whole map. With a mask, row_begin * out_w * out_c is a multiple of 8; its bytes of the
 * rows are written whole, with zero bits after the last element. row_begin < row_end.
 * scratch: a product of k = kernel_h * kernel_w * in_c / groups and n = out_h * out_w, in int16_t
 * (docs/kernels.md); the portable kernel keeps four rows of merged weights there. */
void tte_conv2d_int8(const tte_conv2d_params *params, const int8_t *x, const int8_t *weight,
                     const int8_t *trained, const uint16_t *channels, const int32_t *bias,
                     const int32_t *multipliers, uint16_t row_begin, uint16_t row_end, int8_t *y,
                     uint8_t *mask, int16_t *scratch);

/* Each channel by itself (in_c = out_c = groups): weight[channel][kernel_h][kernel_w].
 * y may be x when the range is all rows: a channel is copied out before it is written.
 * scratch: int16_t planes of one channel or four (docs/kernels.md). */
void tte_depthwise_conv2d_int8(const tte_conv2d_params *params, const int8_t *x,
                               const int8_t *weight, const int32_t *bias,
                               const int32_t *multipliers, uint16_t row_begin, uint16_t row_end,
                               int8_t *y, uint8_t *mask, int16_t *scratch);

/* The head: raw accumulators, y[out_c] = bias + sum weight[out_c][in_c] (x - zero point). */
void tte_linear_int32(const tte_linear_params *params, const int8_t *x, const int8_t *weight,
                      const int32_t *bias, int32_t *y);

/* y = ((a - za) * a_multiplier + (b - zb) * b_multiplier + 2^(shift-1)) >> shift, + zero point,
 * clamped; the mask as above. y may be a or b. */
void tte_add_int8(const tte_add_params *params, const int8_t *a, const int8_t *b, int8_t *y,
                  uint8_t *mask);

/* The same for operands that are repeated along axes. y may be an operand that is not. */
void tte_add_broadcast_int8(const tte_add_broadcast_params *params, const int8_t *a,
                            const int8_t *b, int8_t *y, uint8_t *mask);

/* acc = (a - input_zero_point) * (b - b_zero_point). y may be an operand that is not repeated. */
void tte_mul_int8(const tte_mul_params *params, const int8_t *a, const int8_t *b, int8_t *y,
                  uint8_t *mask);

/* y = clamp(x, act_min, act_max), same quantisation. y may be x. */
void tte_clip_int8(const tte_clip_params *params, const int8_t *x, int8_t *y, uint8_t *mask);

/* acc = sum over the window, clipped to the map, of (x - input_zero_point); the multiplier holds
 * 1 / count. Every window covers at least one element. */
void tte_avg_pool2d_int8(const tte_avg_pool2d_params *params, const int8_t *x,
                         const int32_t *multipliers, int8_t *y);

/* y = exp(x_i) / sum of exp(x_j) over the channels of each of x[positions][channels].
 * exponentials[256]: exp(-d s_x) in Q`exponential_bits` for a distance of d codes. y may be x. */
void tte_softmax_int8(const tte_softmax_params *params, const int8_t *x,
                      const int32_t *exponentials, int8_t *y);

/* y = table[x + 128]: table[256]. y may be x. */
void tte_table_int8(const tte_table_params *params, const int8_t *x, const int8_t *table,
                    int8_t *y);

/* y = x - input_zero_point, for a network that does not end in a linear layer. */
void tte_widen_int32(const tte_widen_params *params, const int8_t *x, int32_t *y);

/* y[outer][j][inner] = x[outer][index[j]][inner], j < count: what a narrowed update saves. */
void tte_gather_channels_int8(const tte_channels_params *params, const int8_t *x,
                              const uint16_t *index, int8_t *y);

/* y = base, then y[outer][index[j]][inner] = values[outer][j][inner]: a weight tensor of which
 * only some channels are trained. */
void tte_scatter_channels_int8(const tte_channels_params *params, const int8_t *base,
                               const int8_t *values, const uint16_t *index, int8_t *y);

/* y[size_0][size_1]...[size_4] = x[offset + sum of i_k * stride_k]: a transpose, a slice, the
 * gradient of a transpose. */
void tte_strided_copy_int8(const tte_strided_copy_params *params, const int8_t *x, int8_t *y);

/* y[outer][a_elems + b_elems + ...] = the inputs, each rescaled to y. c and d may be NULL;
 * multipliers[4]. */
void tte_concat_int8(const tte_concat_params *params, const int8_t *a, const int8_t *b,
                     const int8_t *c, const int8_t *d, const int32_t *multipliers, int8_t *y);

/* y[out_h][out_w][out_c] = fill around x[in_h][in_w][in_c], rescaled to y. */
void tte_pad_int8(const tte_pad_params *params, const int8_t *x, int8_t *y);

/* y = max over the window, clipped to the map; index (or NULL) = ky * kernel_w + kx of the first
 * maximum. Every window covers at least one element. */
void tte_max_pool2d_int8(const tte_max_pool2d_params *params, const int8_t *x, int8_t *y,
                         uint8_t *index);

/* x[iy][ix] becomes a block of rows[iy] by cols[ix] pixels; a table is NULL where a factor says
 * it for all. */
void tte_resize_nearest2d_int8(const tte_resize_nearest2d_params *params, const int8_t *x,
                               const uint16_t *rows, const uint16_t *cols, int8_t *y);

/* The transpose of a convolution: window is that convolution's, whose input (in_h, in_w, in_c) is
 * the map y and whose output (out_h, out_w, out_c) is the map x. weight
 * [in_c][kernel_h][kernel_w][out_c / groups], bias[in_c], multipliers[in_c]; scratch:
 * int32_t[in_c], or the product of docs/kernels.md if that is more. */
void tte_conv_transpose2d_int8(const tte_conv2d_params *params, const int8_t *x,
                               const int8_t *weight, const int32_t *bias,
                               const int32_t *multipliers, int8_t *y, uint8_t *mask,
                               int32_t *scratch);

/* ---- loss ----------------------------------------------------------------------------- */

/* In integers (docs/numerics.md, section 4). logit_multipliers, multipliers: from the output to Q16
 * logits, or 1/256 of a target's code. grad_ratios: Q15, the output scale of a class or channel
 * over the largest one (32768 where all are equal). With w = max |dL/d(real output)|: grad =
 * dL/d(output), int8, its scale is w / 127 * (largest output scale); *step = *learning_rate * w.
 * The 1 / 127 and the output scale are folded into the rates of the updates at compile time. */

/* logits[classes] accumulators, *label in 0..classes-1, grad[classes]. class_weights[classes] or
 * NULL: what the loss of a label is multiplied by; exponents 1..62. *loss: Q16. */
void tte_softmax_cross_entropy_int8(const tte_softmax_cross_entropy_params *params,
                                    const int32_t *logits, const int32_t *label,
                                    const tte_factor *learning_rate,
                                    const int32_t *logit_multipliers, const int32_t *grad_ratios,
                                    const tte_factor *class_weights, int8_t *grad, int32_t *loss,
                                    tte_factor *step);

/* target[elems]: not 0 stands for 1. weights[channels] or NULL: of outputs whose target is 1, Q16,
 * at most 2^26. *unit: 2^-24 / elems. *loss: Q16, the mean over all outputs. grad may be output. */
void tte_sigmoid_cross_entropy_int8(const tte_sigmoid_cross_entropy_params *params,
                                    const void *output, const int8_t *target,
                                    const tte_factor *learning_rate,
                                    const int32_t *logit_multipliers, const int32_t *grad_ratios,
                                    const int32_t *weights, const tte_factor *unit, int8_t *grad,
                                    int32_t *loss, tte_factor *step);

/* target[elems]: codes. *unit: 2 / (256 * elems) of a code's real size. *loss: the mean square, in
 * 1/256 of a code's real size squared. grad may be output. */
void tte_mean_squared_error_int8(const tte_mean_squared_error_params *params, const void *output,
                                 const int8_t *target, const tte_factor *learning_rate,
                                 const int32_t *multipliers, const int32_t *grad_ratios,
                                 const tte_factor *unit, int8_t *grad, int32_t *loss,
                                 tte_factor *step);

/* ---- gradients ------------------------------------------------------------------------ */

/* multipliers[in_c]; trained and channels as in tte_conv2d_int8(). scratch: int32_t[in_c + groups *
 * trained_c], for 1x1 kernels a product of k = out_c and n = in_h * in_w if that is more. */
void tte_conv2d_grad_input_int8(const tte_conv2d_grad_input_params *params,
                                const int8_t *grad_output, const int8_t *weight,
                                const int8_t *trained, const uint16_t *channels,
                                const int32_t *multipliers, const int8_t *addend,
                                const int32_t *addend_multipliers, const uint8_t *mask,
                                int8_t *grad_input, uint32_t *saturations, int32_t *scratch);

/* grad_input may be grad_output (both start at the same byte): gradients of a channel are read before
 * they are overwritten. scratch: int32_t[in_h * in_w], or the transposed convolution's planes if
 * that is more (docs/kernels.md). */
void tte_depthwise_conv2d_grad_input_int8(const tte_conv2d_grad_input_params *params,
                                          const int8_t *grad_output, const int8_t *weight,
                                          const int32_t *multipliers, const int8_t *addend,
                                          const int32_t *addend_multipliers, const uint8_t *mask,
                                          int8_t *grad_input, uint32_t *saturations,
                                          int32_t *scratch);

/* acc = sum over the windows that cover the element of grad_output * count weight. */
void tte_avg_pool2d_grad_input_int8(const tte_avg_pool2d_grad_input_params *params,
                                    const int8_t *grad_output, const int32_t *count_weights,
                                    const int32_t *multipliers, const int8_t *addend,
                                    const int32_t *addend_multipliers, const uint8_t *mask,
                                    int8_t *grad_input, uint32_t *saturations);

/* acc = sum of grad_output over the windows whose first maximum is the element; scratch:
 * int32_t[in_c]. */
void tte_max_pool2d_grad_input_int8(const tte_max_pool2d_grad_input_params *params,
                                    const int8_t *grad_output, const uint8_t *index,
                                    const int32_t *multipliers, const int8_t *addend,
                                    const int32_t *addend_multipliers, const uint8_t *mask,
                                    int8_t *grad_input, uint32_t *saturations,
                                    int32_t *scratch);

/* acc = sum of grad_output over the pixel's block. */
void tte_resize_nearest2d_grad_input_int8(const tte_resize_nearest2d_grad_input_params *params,
                                          const int8_t *grad_output, const uint16_t *rows,
                                          const uint16_t *cols, const int32_t *multipliers,
                                          const int8_t *addend, const int32_t *addend_multipliers,
                                          const uint8_t *mask, int8_t *grad_input,
                                          uint32_t *saturations);

/* acc = p_i (grad_output_i - sum of grad_output_j p_j) in Q22, p from x as in tte_softmax_int8().
 * grad_input may be grad_output. */
void tte_softmax_grad_input_int8(const tte_softmax_grad_input_params *params,
                                 const int8_t *grad_output, const int8_t *x,
                                 const int32_t *exponentials, const int32_t *multipliers,
                                 const int8_t *addend, const int32_t *addend_multipliers,
                                 const uint8_t *mask, int8_t *grad_input, uint32_t *saturations);

/* acc = the sum of grad_output * (other - other_zero_point) over what belongs to one element of
 * grad_input; without `other` (NULL) of grad_output. At most 66311 elements are summed.
 * multipliers[channels]. Where nothing is summed, grad_input may be grad_output, and `other` if
 * that is not repeated either. */
void tte_broadcast_grad_input_int8(const tte_broadcast_grad_input_params *params,
                                   const int8_t *grad_output, const int8_t *other,
                                   const int32_t *multipliers, const int8_t *addend,
                                   const int32_t *addend_multipliers, const uint8_t *mask,
                                   int8_t *grad_input, uint32_t *saturations);

/* acc = grad_output * slopes[x + 128], slopes[256]; x is the input of the table. grad_input may be
 * grad_output or x. */
void tte_table_grad_input_int8(const tte_table_grad_input_params *params,
                               const int8_t *grad_output, const int8_t *x, const int16_t *slopes,
                               const int32_t *multipliers, const int8_t *addend,
                               const int32_t *addend_multipliers, const uint8_t *mask,
                               int8_t *grad_input, uint32_t *saturations);

/* acc[begin + o * step] = grad_output[o], 0 elsewhere: slices, concat, pad. */
void tte_grad_place_int8(const tte_grad_place_params *params, const int8_t *grad_output,
                         const int32_t *multipliers, const int8_t *addend,
                         const int32_t *addend_multipliers, const uint8_t *mask,
                         int8_t *grad_input, uint32_t *saturations);

/* The window as in tte_conv_transpose2d_int8(): grad_output[in_h][in_w][in_c],
 * grad_input[out_h][out_w][out_c]; multipliers[out_c]; scratch: int32_t[out_c]. */
void tte_conv_transpose2d_grad_input_int8(const tte_conv2d_grad_input_params *params,
                                          const int8_t *grad_output, const int8_t *weight,
                                          const int32_t *multipliers, const int8_t *addend,
                                          const int32_t *addend_multipliers, const uint8_t *mask,
                                          int8_t *grad_input, uint32_t *saturations,
                                          int32_t *scratch);

/* grad_input[positions][channels] = requantize_grad(a, multipliers, addend, ...): scales, adds
 * and masks gradients. grad_input may be a. */
void tte_grad_add_int8(const tte_grad_add_params *params, const int8_t *a,
                       const int32_t *multipliers, const int8_t *addend,
                       const int32_t *addend_multipliers, const uint8_t *mask, int8_t *grad_input,
                       uint32_t *saturations);

/* The updates: *step from the loss, rates[] from the compiler. A step of 0 changes nothing; a rate
 * of 0 marks a channel that is never trained.
 *
 * The fused gradient and update: for each output channel, sum = grad of its weight row in int32,
 * then 256 * weight + residual -= round(sum * step * rates[o]), saturated to
 * [-127 * 256, 127 * 256 + 127], split again into weight (nearest) and residual (-128..127).
 * weight, residual [out_c][kernel_h][kernel_w][in_c / groups]; rates[out_c];
 * scratch: int32_t[kernel_h * kernel_w * in_c / groups]; for 1x1 kernels and at most 1536 output
 * pixels a product of k = out_h * out_w and n = in_c / groups if that is more. */
void tte_conv2d_grad_weight_int8(const tte_conv2d_grad_weight_params *params, const int8_t *x,
                                 const int8_t *grad_output, const tte_factor *step,
                                 const tte_factor *rates, int8_t *weight, int8_t *residual,
                                 int32_t *scratch);

/* weight, residual [channel][kernel_h][kernel_w]; rates[channel]. scratch: int16_t vectors of one
 * channel or four (docs/kernels.md); the portable kernel needs none. */
void tte_depthwise_conv2d_grad_weight_int8(const tte_conv2d_grad_weight_params *params,
                                           const int8_t *x, const int8_t *grad_output,
                                           const tte_factor *step, const tte_factor *rates,
                                           int8_t *weight, int8_t *residual, int16_t *scratch);

/* The window as in tte_conv_transpose2d_int8(), out_c counting the trained input channels only:
 * weight, residual [in_c][kernel_h][kernel_w][out_c / groups]; rates[in_c]; scratch:
 * int32_t[kernel_h * kernel_w * out_c / groups]. */
void tte_conv_transpose2d_grad_weight_int8(const tte_conv2d_grad_weight_params *params,
                                           const int8_t *x, const int8_t *grad_output,
                                           const tte_factor *step, const tte_factor *rates,
                                           int8_t *weight, int8_t *residual, int32_t *scratch);

/* sum = sum over positions of grad_output; 256 * bias + residual -= round(sum * step * rate),
 * bias saturated to +-2^30. */
void tte_grad_bias_int32(const tte_grad_bias_params *params, const int8_t *grad_output,
                         const tte_factor *step, const tte_factor *rates, int32_t *bias,
                         int8_t *residual);

/* The optimiser, where training is more than plain gradient descent: the kernels above then gather
 * in velocities (weight: int8 and residual, bias: int32 and residual) what these apply, once a
 * batch. count: samples in the batch, batches done. */
void tte_sgd_step_int32(const tte_sgd_step_params *params, const tte_factor *learning_rate,
                        int32_t *count, tte_sgd_step *step);

/* Nothing unless step->ready. velocity, velocity_residual: NULL for decay alone. *saturations
 * counts velocities that had come to their end. */
void tte_sgd_int8(const tte_sgd_params *params, const tte_sgd_step *step, int8_t *velocity,
                  int8_t *velocity_residual, int8_t *weight, int8_t *residual,
                  uint32_t *saturations);

void tte_sgd_int32(const tte_sgd_params *params, const tte_sgd_step *step, int32_t *velocity,
                   int8_t *velocity_residual, int32_t *bias, int8_t *residual,
                   uint32_t *saturations);

#endif
