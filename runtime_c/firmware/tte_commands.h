/* SPDX-License-Identifier: Apache-2.0
 *
 * What the requests do.
 */
#ifndef TTE_COMMANDS_H
#define TTE_COMMANDS_H

#include "tte_link.h"

/* Loads the last checkpoint and finds the stored samples. */
void tte_command_init(void);

/* Carries out a request and answers it. */
void tte_command_execute(const tte_request *request);

/* Whether training on stored samples goes on, and one step of it if so. */
int tte_command_runs(void);
void tte_command_run_step(void);

#endif
