/* SPDX-License-Identifier: Apache-2.0
 *
 * Trained state that outlives power. The checkpoint sectors are slots in a ring, and a save goes
 * into the slot after the last good one. A slot counts only once its last unit, with the CRC of
 * everything before it, is written; so whatever instant the power fails at, the last good slot
 * is untouched, and what is found at the next start is the state before the save or after it.
 */
#ifndef TTE_CHECKPOINT_H
#define TTE_CHECKPOINT_H

#include <stdint.h>

/* How many checkpoints fit; fewer than 2 are none. */
uint32_t tte_checkpoint_slots(void);

/* Finds the last good checkpoint and loads it: trained state, schedule and *steps. The
 * number of the checkpoint, or 0 where there is none; then nothing is changed. */
uint32_t tte_checkpoint_load(uint32_t *steps);

/* Saves them. The number of the checkpoint, from 1 on and one more each time, or 0
 * where that failed or there are no slots. */
uint32_t tte_checkpoint_save(uint32_t steps);

/* Erases all of them. Not 0: it failed. */
int tte_checkpoint_forget(void);

#endif
