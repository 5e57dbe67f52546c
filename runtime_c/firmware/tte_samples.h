/* SPDX-License-Identifier: Apache-2.0
 *
 * Samples that stay on the device: in the storage sectors behind the checkpoints, where they
 * outlive power, or else in SRAM that nothing uses. They are trained on in the order in which they
 * were stored, again and again.
 */
#ifndef TTE_SAMPLES_H
#define TTE_SAMPLES_H

#include <stdint.h>

/* Finds the samples that flash still holds; once, at the start. */
void tte_samples_init(void);

/* How many samples there is room for, and how many are stored. */
uint32_t tte_samples_capacity(void);
uint32_t tte_samples_count(void);

/* Stores the network's input and target as they are. A status of tte_protocol.h. */
uint8_t tte_samples_store(void);

/* Forgets all samples. A status of tte_protocol.h. */
uint8_t tte_samples_clear(void);

/* Copies the next sample into the network's input and target; 0 where there is none. */
int tte_samples_next(void);

#endif
