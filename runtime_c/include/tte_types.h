/* SPDX-License-Identifier: Apache-2.0
 *
 * Parameter structs of the kernels. Every struct is the twin, field for field, of a Python
 * dataclass in tte/ops/params.py; a test compares the two. Layouts: activations NHWC with
 * N = 1, convolution weights OHWI, depthwise weights [channel][kernel_h][kernel_w]. Masks are
 * bits in element order, least significant bit first. Nothing here holds a pointer, so all of
 * it stays in flash.
 */
#ifndef TTE_TYPES_H
#define TTE_TYPES_H

#include <stddef.h>
#include <stdint.h>

/* A positive real number: mantissa * 2^-exponent, mantissa in [2^30, 2^31), or 0 for zero. */
typedef struct {
    int32_t mantissa;
    int32_t exponent;
} tte_factor;

/* A window sliding over a map: convolution, depthwise convolution, pooling. */
typedef struct {
    uint16_t in_h, in_w, in_c;
    uint16_t out_h, out_w, out_c;
    uint16_t kernel_h, kernel_w;
    uint16_t stride_h, stride_w;
    uint16_t dilation_h, dilation_w;
    uint16_t pad_top, pad_left;
    uint16_t groups;
    uint16_t in_ring, out_ring; /* rows that are in memory, see tte_ring_row(); 0: all of them */
} tte_window;

/* From int32 accumulators to int8: see tte_requantize(). */
typedef struct {
    int8_t input_zero_point;
    int8_t output_zero_point;
    int8_t act_min, act_max; /* -128 <= act_min <= act_max <= 127 */
    uint8_t pre_shift;       /* 0..31 */
} tte_requant;

typedef struct {
    tte_window window;
    tte_requant requant;
    uint16_t trained_c; /* input channels of a group that have weights of their own; 0: none */
} tte_conv2d_params;

/* Gradients have zero point 0 and live in [-127, 127]: see tte_requantize_grad(). */
typedef struct {
    tte_window window;
    uint8_t pre_shift; /* 0..31 */
    uint16_t trained_c; /* as in tte_conv2d_params */
} tte_conv2d_grad_input_params;

typedef struct {
    tte_window window; /* in_c counts the trained input channels only */
    int8_t input_zero_point;
} tte_conv2d_grad_weight_params;

typedef struct {
    tte_window window;
    tte_requant requant;
    uint8_t count_include_pad; /* 1: multipliers[0]; 0: multipliers[elements under the window - 1] */
} tte_avg_pool2d_params;

typedef struct {
    tte_window window;
    uint8_t pre_shift;         /* 0..31 */
    uint8_t count_include_pad; /* 1: weight 1; 0: count_weights[elements under the window - 1] */
} tte_avg_pool2d_grad_input_params;

typedef struct {
    uint16_t in_c, out_c;
    int8_t input_zero_point;
} tte_linear_params;

typedef struct {
    uint32_t elems;
    int32_t a_multiplier, b_multiplier; /* |multiplier| < 2^21, negative: subtracted */
    uint8_t shift;                      /* 1..31 */
    int8_t a_zero_point, b_zero_point;
    int8_t output_zero_point;
    int8_t act_min, act_max;
} tte_add_params;

/* A tensor of three axes and two operands. The distance between neighbours of an operand along an
 * axis is 0 where it has one element for all; where it has several, it has all of them. */
typedef struct {
    uint32_t outer, middle, inner;
    uint32_t a_outer, a_middle, a_inner;
    uint32_t b_outer, b_middle, b_inner;
} tte_broadcast;

typedef struct {
    tte_broadcast broadcast;
    tte_add_params add;
} tte_add_broadcast_params;

typedef struct {
    tte_broadcast broadcast;
    tte_requant requant; /* its input_zero_point is a's */
    int8_t b_zero_point;
    int32_t multiplier;
} tte_mul_params;

typedef struct {
    tte_broadcast broadcast; /* of grad_output: a is grad_input, b is other */
    uint16_t channels;       /* of grad_input */
    int8_t other_zero_point;
    uint8_t pre_shift; /* 0..31 */
} tte_broadcast_grad_input_params;

typedef struct {
    uint32_t elems;
    int8_t act_min, act_max;
} tte_clip_params;

typedef struct {
    uint32_t elems;
    int8_t input_zero_point;
} tte_widen_params;

typedef struct {
    uint32_t positions;
    uint16_t channels;
    uint8_t pre_shift; /* 0..31 */
} tte_grad_add_params;

typedef struct {
    uint32_t positions;
    uint16_t channels;
} tte_grad_bias_params;

/* One batch of the optimiser. */
typedef struct {
    int32_t ready;     /* whether the batch is complete */
    uint32_t rounding; /* Q31 */
    tte_factor learning_rate;
    tte_factor decay; /* share of a weight that goes */
} tte_sgd_step;

typedef struct {
    uint32_t batch;          /* samples, at least 1 */
    tte_factor weight_decay; /* at learning rate 1 */
} tte_sgd_step_params;

typedef struct {
    uint32_t elems;
    uint16_t momentum; /* Q16 */
    int8_t velocity_shift;
} tte_sgd_params;

/* A tensor seen as [outer][channels][inner], of which `count` channels are listed by an index. */
typedef struct {
    uint32_t outer;
    uint16_t channels;
    uint16_t inner;
    uint16_t count;
} tte_channels_params;

/* A selection of x's elements: sizes of the output, and how far apart its elements are in x. */
typedef struct {
    int32_t offset;
    uint32_t size_0, size_1, size_2, size_3, size_4;
    int32_t stride_0, stride_1, stride_2, stride_3, stride_4;
} tte_strided_copy_params;

/* Elements of each input per outer step; inputs that are not there have 0. */
typedef struct {
    uint32_t outer;
    uint32_t a_elems, b_elems, c_elems, d_elems;
    uint8_t pre_shift; /* 0..31 */
    int8_t a_zero_point, b_zero_point, c_zero_point, d_zero_point;
    int8_t output_zero_point;
} tte_concat_params;

/* x lies at (top, left, front) of y. */
typedef struct {
    uint16_t in_h, in_w, in_c;
    uint16_t out_h, out_w, out_c;
    uint16_t top, left, front;
    int8_t fill;
    int8_t input_zero_point, output_zero_point;
    uint8_t pre_shift; /* 0..31 */
    int32_t multiplier;
} tte_pad_params;

/* Output o was taken from the input at begin + o * step; steps are not 0. */
typedef struct {
    uint16_t in_h, in_w, in_c;
    uint16_t out_h, out_w, out_c;
    int32_t begin_h, begin_w, begin_c;
    int32_t step_h, step_w, step_c;
    uint8_t pre_shift; /* 0..31 */
} tte_grad_place_params;

typedef struct {
    uint32_t elems;
} tte_table_params;

typedef struct {
    uint32_t positions;
    uint16_t channels;
    uint8_t pre_shift; /* 0..31 */
} tte_table_grad_input_params;

typedef struct {
    uint32_t positions;
    uint16_t channels;
    uint8_t exponential_bits; /* 8..24: the sum of `channels` exponentials has 32 bits */
    uint8_t pre_shift;        /* 0..31 */
    int8_t output_zero_point;
    int32_t multiplier;
} tte_softmax_params;

typedef struct {
    uint32_t positions;
    uint16_t channels;
    uint8_t exponential_bits;
    uint8_t pre_shift;
} tte_softmax_grad_input_params;

typedef struct {
    tte_window window; /* at most 256 taps */
} tte_max_pool2d_params;

typedef struct {
    tte_window window;
    uint8_t pre_shift; /* 0..31 */
} tte_max_pool2d_grad_input_params;

/* in_h, in_w: of the map before; a factor is 0 where a table says it. */
typedef struct {
    uint16_t in_h, in_w, channels;
    uint16_t factor_h, factor_w;
} tte_resize_nearest2d_params;

typedef struct {
    uint16_t in_h, in_w, channels;
    uint16_t factor_h, factor_w;
    uint8_t pre_shift; /* 0..31 */
} tte_resize_nearest2d_grad_input_params;

typedef struct {
    uint16_t classes;
    uint8_t logit_shift; /* 1..62: logit in Q16 = round(accumulator * logit_multiplier / 2^shift) */
    uint8_t target_shift; /* 0: no smoothing; else 20, and the targets are of 2^20 */
    int32_t target_label, target_other;
} tte_softmax_cross_entropy_params;

/* What a network's output consists of. */
typedef struct {
    uint8_t is_int8; /* codes; else int32 accumulators */
    int8_t zero_point;
} tte_output_type;

/* `elems` outputs, element i of channel i % channels. */
typedef struct {
    tte_output_type output;
    uint32_t elems;
    uint16_t channels;
    uint8_t logit_shift;         /* as above */
    int32_t target_0, target_1;  /* Q24 */
} tte_sigmoid_cross_entropy_params;

typedef struct {
    tte_output_type output;
    uint32_t elems; /* at most 2^17 */
    uint16_t channels;
    uint8_t shift;  /* 1..62 */
    int32_t offset; /* of the targets, in 1/256 of a code */
} tte_mean_squared_error_params;

#endif
