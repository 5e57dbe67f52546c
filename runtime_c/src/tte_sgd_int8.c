/* SPDX-License-Identifier: Apache-2.0
 *
 * full = 256 * weight + residual; speed = 256 * velocity + velocity_residual
 * full += speed * learning_rate * 2^velocity_shift - full * decay, saturated; speed *= momentum
 * for every element once a batch is complete, see tte_sgd.h for the rounding. A velocity is the
 * sum that the grad_weight kernels have gathered in it: where the loss falls. Source:
 * docs/numerics.md, section 5.
 */
#include "tte_requant.h"
#include "tte_sgd.h"

enum { LOW = -127 * 256, HIGH = 127 * 256 + 127, LARGEST_MOVE = 1 << 20 };

/* |value| < 2^15, so with a shift of 32 or more, which is the rule, 32 bits are enough. */
static inline int32_t move(int32_t value, tte_scaling scaling)
{
    if (scaling.shift >= 32) {
        const int64_t product = (int64_t)value * scaling.mantissa + scaling.offset;
        return (int32_t)(product >> 32) >> (scaling.shift - 32);
    }
    const int64_t moved = tte_scale_by(value, scaling);
    return (int32_t)(moved < -LARGEST_MOVE  ? -LARGEST_MOVE
                     : moved > LARGEST_MOVE ? LARGEST_MOVE
                                            : moved);
}

static inline void split(int32_t full, int8_t *value, int8_t *residual)
{
    const int32_t nearest = (full + 128) >> 8;
    *value = (int8_t)nearest;
    *residual = (int8_t)(full - nearest * 256);
}

void tte_sgd_int8(const tte_sgd_params *params, const tte_sgd_step *step, int8_t *velocity,
                  int8_t *velocity_residual, int8_t *weight, int8_t *residual,
                  uint32_t *saturations)
{
    const tte_scaling by_rate =
        tte_scaling_by(step->learning_rate, params->velocity_shift, step->rounding);
    const tte_scaling by_decay = tte_scaling_by(step->decay, 0, step->rounding);
    const int32_t momentum = params->momentum, rounding = (int32_t)(step->rounding >> 15);
    const uint32_t elems = step->ready ? params->elems : 0;
    uint32_t saturated = 0;

    for (uint32_t i = 0; i < elems; i++) {
        int32_t full = weight[i] * 256 + residual[i];
        if (by_decay.mantissa != 0) {
            full -= move(full, by_decay);
        }
        if (velocity != NULL) {
            const int32_t speed = velocity[i] * 256 + velocity_residual[i];
            full += move(speed, by_rate);
            saturated += speed <= LOW || speed >= HIGH;
            split((speed * momentum + rounding) >> 16, velocity + i, velocity_residual + i);
        }
        split(tte_clamp(full, LOW, HIGH), weight + i, residual + i);
    }
    *saturations += saturated;
}
