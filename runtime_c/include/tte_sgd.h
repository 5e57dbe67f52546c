/* SPDX-License-Identifier: Apache-2.0
 *
 * Moves of weights and velocities. They round by a number in [0, 1) that changes from batch to
 * batch and is even on the whole: floor(x + rounding) is x on average, so that nothing too small
 * for one step is lost, and a velocity that nothing feeds comes to rest. Source: docs/numerics.md,
 * section 5.
 */
#ifndef TTE_SGD_H
#define TTE_SGD_H

#include "tte_kernels.h"

/* x * mantissa / 2^shift; the offset is the rounding. */
typedef struct {
    int64_t offset;
    int32_t mantissa;
    int32_t shift; /* 1..62 */
} tte_scaling;

/* A product with factor * 2^up. */
static inline tte_scaling tte_scaling_by(tte_factor factor, int32_t up, uint32_t rounding)
{
    const int32_t shift = factor.exponent - up < 1 ? 1 : factor.exponent - up;
    const tte_scaling none = {0, 0, 32};
    if (factor.mantissa == 0 || shift > 62) {
        return none;
    }
    const int64_t offset =
        shift > 31 ? (int64_t)rounding << (shift - 31) : (int64_t)(rounding >> (31 - shift));
    const tte_scaling scaling = {offset, factor.mantissa, shift};
    return scaling;
}

static inline int64_t tte_scale_by(int32_t value, tte_scaling scaling)
{
    return ((int64_t)value * scaling.mantissa + scaling.offset) >> scaling.shift;
}

#endif
