/* SPDX-License-Identifier: Apache-2.0
 *
 * left = (steps - done) / steps in Q30. Linear: left. Cosine: (1 + cos(pi done / steps)) / 2 =
 * sin(pi / 2 left)^2, by the Taylor series up to left^9; its error is below 4e-6 at 1, where the
 * sine is cut to 1, and far less near 0.
 */
#include "tte_schedule.h"

#include "tte_loss.h"

enum { ONE_Q30 = 1 << 30 };

tte_schedule tte_running_schedule;

static uint32_t sine_q30(uint32_t left)
{
    /* round((-1)^k (pi / 2)^(2 k + 1) / (2 k + 1)! * 2^30) */
    static const int32_t taylor[5] = {1686629713, -693598668, 85569306, -5026995, 172272};
    const int64_t x = left, square = (x * x) >> 30;
    int64_t sum = taylor[4];
    for (int k = 3; k >= 0; k--) {
        sum = taylor[k] + ((sum * square) >> 30);
    }
    sum = (sum * x) >> 30;
    return sum > ONE_Q30 ? ONE_Q30 : (uint32_t)sum;
}

tte_factor tte_schedule_rate(const tte_schedule *schedule, uint32_t step)
{
    const uint32_t steps = schedule->steps ? schedule->steps : 1;
    const uint32_t passed = step - schedule->first_step;
    const uint32_t done = passed < steps ? passed : steps - 1;
    uint64_t part = ((uint64_t)(steps - done) << 30) / steps;
    if (schedule->shape == TTE_COSINE) {
        part = sine_q30((uint32_t)part);
        part = (part * part) >> 30;
    }
    tte_factor factor = tte_factor_of(schedule->shape == TTE_CONSTANT ? ONE_Q30 : part);
    factor.exponent += 30;
    return tte_factor_product(schedule->learning_rate, factor);
}
