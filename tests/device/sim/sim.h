/* SPDX-License-Identifier: Apache-2.0
 *
 * How a test drives the board in memory.
 */
#ifndef SIM_H
#define SIM_H

#include <stdint.h>

#ifndef SIM_UNIT_BYTES
#define SIM_UNIT_BYTES 8
#endif
#ifndef SIM_SECTOR_BYTES
#define SIM_SECTOR_BYTES 256
#endif
#ifndef SIM_SECTORS
#define SIM_SECTORS 8
#endif
#ifndef SIM_CHECKPOINT_SECTORS
#define SIM_CHECKPOINT_SECTORS 6
#endif
#ifndef SIM_SPARE_BYTES
#define SIM_SPARE_BYTES 0
#endif

enum { SIM_POWER_CUT = 1, SIM_RESTART = 2, SIM_MISUSE = 3, SIM_RUN_STEPS = 40 };

extern uint8_t sim_flash[];
extern uint32_t sim_erasures[];

/* Power fails in the operation-th write of a unit or erasure of a sector from now; 0: never. */
void sim_cut_power_at(uint32_t operation, uint32_t seed);
uint32_t sim_operations(void);
void sim_blank_flash(void);
void sim_trust_flash(void);

/* Calls `function`; 0, or why it did not return. */
int sim_call(uint32_t (*function)(uint32_t), uint32_t argument, uint32_t *result);

/* Lets the firmware take these bytes, and train about SIM_RUN_STEPS steps on stored samples; 0, or why it ended, and what it answered. */
int sim_serve(const uint8_t *in, uint32_t bytes, uint8_t *answer, uint32_t capacity_bytes,
              uint32_t *answer_bytes);

#endif
