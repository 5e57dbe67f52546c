/* SPDX-License-Identifier: Apache-2.0
 *
 * The port of a program on the developer's own machine: standard input and output, C99 only.
 * Nothing is counted or measured here.
 */
#include "tte_port.h"

#include <stdio.h>
#include <stdlib.h>

enum { EXIT_CHANNEL_LOST = 3 };

void tte_port_init(void)
{
}

/* Replies are flushed where the program is about to wait for more. */
void tte_port_read(void *data, size_t bytes)
{
    fflush(stdout);
    if (fread(data, 1, bytes, stdin) != bytes) {
        tte_port_exit(EXIT_CHANNEL_LOST);
    }
}

void tte_port_write(const void *data, size_t bytes)
{
    if (fwrite(data, 1, bytes, stdout) != bytes) {
        tte_port_exit(EXIT_CHANNEL_LOST);
    }
}

uint32_t tte_port_instructions(void)
{
    return 0;
}

uint32_t tte_port_stack_bytes(void)
{
    return 0;
}

void tte_port_exit(int status)
{
    exit(status);
}
