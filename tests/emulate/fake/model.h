/* SPDX-License-Identifier: Apache-2.0
 *
 * A hand-written stand-in for a generated network: 8 inputs, 3 classes, one linear layer.
 */
#ifndef MODEL_H
#define MODEL_H

#include <stdint.h>

#include "tte_types.h"

#ifndef TTE_INPUT_BYTES
#define TTE_INPUT_BYTES 8
#endif
#define TTE_TARGET_BYTES 4
#define TTE_OUTPUT_BYTES 12
#define CLASSES 3
#define TTE_STATE_COUNT 2
#define TTE_STATE_BYTES (CLASSES * (TTE_INPUT_BYTES + 4))
#define TTE_MODEL_ID {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
#define TTE_SATURATION_COUNT 1

extern volatile uint16_t tte_current_op;
typedef struct {
    tte_factor learning_rate;
} tte_training_settings;
extern tte_training_settings tte_settings;
extern int32_t tte_loss;

typedef struct {
    void *data;
    uint32_t bytes;
} tte_state_entry;

extern const tte_state_entry tte_state[TTE_STATE_COUNT];
extern uint32_t tte_saturations[TTE_SATURATION_COUNT];

int8_t *tte_input(void);
int32_t *tte_target(void);
int tte_target_is_valid(void);
const int32_t *tte_output(void);
void tte_infer(void);
void tte_train_step(void);

#endif
