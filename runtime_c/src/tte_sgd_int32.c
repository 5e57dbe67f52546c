/* SPDX-License-Identifier: Apache-2.0
 *
 * full = 256 * bias + residual += velocity * learning_rate * 2^(velocity_shift + 8), saturated at
 * +-2^38; (256 * velocity + velocity_residual) *= momentum: tte_sgd_int8() for biases, which do not
 * decay. Source: docs/numerics.md, section 5.
 */
#include "tte_sgd.h"

static inline int64_t clamp(int64_t value, int64_t limit)
{
    return value < -limit ? -limit : value > limit ? limit : value;
}

static inline void split(int64_t full, int32_t *value, int8_t *residual)
{
    const int64_t nearest = (full + 128) >> 8;
    *value = (int32_t)nearest;
    *residual = (int8_t)(full - nearest * 256);
}

void tte_sgd_int32(const tte_sgd_params *params, const tte_sgd_step *step, int32_t *velocity,
                   int8_t *velocity_residual, int32_t *bias, int8_t *residual,
                   uint32_t *saturations)
{
    const int64_t limit = (int64_t)1 << 38, largest_move = (int64_t)1 << 40;
    const tte_scaling by_rate =
        tte_scaling_by(step->learning_rate, params->velocity_shift + 8, step->rounding);
    const int64_t momentum = params->momentum, rounding = step->rounding >> 15;

    for (uint32_t i = 0; step->ready && i < params->elems; i++) {
        const int64_t speed = (int64_t)velocity[i] * 256 + velocity_residual[i];
        const int64_t full = (int64_t)bias[i] * 256 + residual[i] +
                             clamp(tte_scale_by(velocity[i], by_rate), largest_move);
        *saturations += speed <= -limit || speed >= limit;
        split((speed * momentum + rounding) >> 16, velocity + i, velocity_residual + i);
        split(clamp(full, limit), bias + i, residual + i);
    }
}
