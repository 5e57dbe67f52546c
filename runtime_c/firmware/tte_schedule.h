/* SPDX-License-Identifier: Apache-2.0
 *
 * The learning rate of each step, in integers: constant, or falling to 0 over a number of steps
 * along a line or half a wave of a cosine. Source: docs/numerics.md, section 5.
 */
#ifndef TTE_SCHEDULE_H
#define TTE_SCHEDULE_H

#include "tte_types.h"

enum { TTE_CONSTANT = 0, TTE_LINEAR = 1, TTE_COSINE = 2 };

/* Sent as TTE_REGION_SETTINGS, and saved with a checkpoint: a run that power interrupts goes on
 * where it was. */
typedef struct {
    tte_factor learning_rate; /* of the first step */
    uint32_t shape;
    uint32_t first_step; /* steps are counted from the network's first state */
    uint32_t steps;      /* 0: as one; after them the rate stays what it was in the last */
} tte_schedule;
extern tte_schedule tte_running_schedule;

tte_factor tte_schedule_rate(const tte_schedule *schedule, uint32_t step);

#endif
