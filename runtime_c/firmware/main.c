/* SPDX-License-Identifier: Apache-2.0
 *
 * The firmware: answers requests, and trains on stored samples between them. The same on a board,
 * in an emulator and on the host.
 */
#include "tte_commands.h"
#include "tte_link.h"
#include "tte_port.h"

int main(void)
{
    tte_port_init();
    tte_command_init();
    for (;;) {
        tte_request request;
        if (tte_link_receive(&request, !tte_command_runs())) {
            tte_command_execute(&request);
        }
        tte_command_run_step();
    }
}
