/* SPDX-License-Identifier: Apache-2.0
 *
 * What the firmware needs from a board. boards/<name>/port.c implements it.
 */
#ifndef TTE_PORT_H
#define TTE_PORT_H

#include <stddef.h>
#include <stdint.h>

void tte_port_init(void);

/* Blocks until `bytes` bytes have been read or written. */
void tte_port_read(void *data, size_t bytes);
void tte_port_write(const void *data, size_t bytes);

/* A free-running count of executed instructions, modulo 2^32; always 0 where nothing counts. */
uint32_t tte_port_instructions(void);

/* The stack's high-water mark since reset, in bytes; 0 where it is not measured. */
uint32_t tte_port_stack_bytes(void);

/* Ends the firmware; on a board it stops for ever. */
void tte_port_exit(int status);

#endif
