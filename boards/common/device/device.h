/* SPDX-License-Identifier: Apache-2.0
 *
 * Between port.c, which is the same on all boards, and what is particular to a chip.
 */
#ifndef TTE_DEVICE_H
#define TTE_DEVICE_H

#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

/* Waits until a register's masked bits have a value; 0 where that takes far too long, as when a
 * crystal is missing. */
static inline int tte_wait_until(uint32_t address, uint32_t mask, uint32_t value)
{
    for (uint32_t i = 0; i < 1000000u; ++i) {
        if ((REGISTER(address) & mask) == value) {
            return 1;
        }
    }
    return 0;
}

/* Clocks, pins and the serial line, which interrupts for each received byte. */
void tte_chip_init(void);

/* Returns when the byte is on its way. */
void tte_chip_send(uint8_t byte);

/* Returns when all bytes are on the line: a reset would lose them. */
void tte_chip_drain(void);

/* The handler of the line's interrupt calls this with each byte. */
void tte_serial_received(uint8_t byte);

/* Erases the sector at an address of the storage, or writes whole units. Not 0: it failed. */
int tte_chip_erase(uint32_t address);
int tte_chip_write(uint32_t address, const uint32_t *data, uint32_t bytes);

#endif
