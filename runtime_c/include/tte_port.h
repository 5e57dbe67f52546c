/* SPDX-License-Identifier: Apache-2.0
 *
 * What the firmware needs from a board. boards/<name>/port.c implements it.
 */
#ifndef TTE_PORT_H
#define TTE_PORT_H

#include <stddef.h>
#include <stdint.h>

/* Clocks, caches, serial line, flash controller: once, before anything else here. */
void tte_port_init(void);

/* Reads what has come, at most `bytes` bytes (at least 1), and returns how many. Where nothing has
 * come it waits, or returns 0 if `wait` is 0; a port that cannot look without waiting returns 0.
 * Bytes that come between two calls are kept (by an interrupt or by DMA), up to a buffer of 512
 * bytes or more; the protocol repairs the loss of any others. */
size_t tte_port_read(void *data, size_t bytes, int wait);

/* Returns when all bytes are on their way; bytes that come meanwhile are kept too. */
void tte_port_write(const void *data, size_t bytes);

/* Flash that the program rewrites: checkpoints in the first `checkpoint_sectors`, stored samples
 * in the others. It is memory mapped; where power failed in a write or an erasure, reading gives any
 * bits but never faults (a driver of flash with ECC sees to that). Sectors may be 0. A board defines it as
 * TTE_STORAGE of board.h, which comes from [storage] of board.toml. */
typedef struct {
    const uint8_t *data;         /* where its first sector begins */
    uint32_t sector_bytes;       /* what is erased at once */
    uint32_t sectors;            /* all of the same size */
    uint32_t unit_bytes;         /* what is written at once: 4 to 256, a power of two */
    uint32_t checkpoint_sectors; /* <= sectors */
} tte_port_flash;

extern const tte_port_flash tte_port_storage;

/* Sets all bits of a sector, 0 .. sectors - 1. Not 0: it failed. Bytes may be lost meanwhile. */
int tte_port_flash_erase(uint32_t sector);

/* Writes `bytes` bytes at `offset` from tte_port_storage.data. Both are multiples of unit_bytes,
 * data is aligned to 4 and not in this flash, and no unit is written twice between two erasures.
 * Not 0: it failed. Bytes from the serial line may be lost meanwhile. */
int tte_port_flash_write(uint32_t offset, const void *data, uint32_t bytes);

/* SRAM that nothing uses, aligned to 8: its place, and its size in *bytes (0: there is none). */
void *tte_port_spare(uint32_t *bytes);

/* A free-running count of executed instructions, modulo 2^32; always 0 where nothing counts. */
uint32_t tte_port_instructions(void);

/* The stack's high-water mark since reset, in bytes; 0 where it is not measured. */
uint32_t tte_port_stack_bytes(void);

/* Ends the firmware; on a board it stops for ever. TTE_PORT_RESTART: it starts again, as after
 * power-on. */
enum { TTE_PORT_RESTART = 64 };
void tte_port_exit(int status);

#endif
