/* SPDX-License-Identifier: Apache-2.0
 *
 * The flash of the nRF52 (product specification, NVMC): pages of 4 KiB, written by words. The core
 * waits meanwhile.
 */
#include "device.h"

#define NVMC 0x4001E000u
#define READY REGISTER(NVMC + 0x400u)
#define CONFIG REGISTER(NVMC + 0x504u)
#define ERASEPAGE REGISTER(NVMC + 0x508u)

enum { READ_ONLY = 0, WRITE = 1, ERASE = 2 };

static void wait_until_ready(void)
{
    __asm__ volatile("dsb" ::: "memory");
    while (!READY) {
    }
}

static void configure(uint32_t mode)
{
    CONFIG = mode;
    wait_until_ready();
}

int tte_chip_erase(uint32_t address)
{
    configure(ERASE);
    ERASEPAGE = address;
    wait_until_ready();
    configure(READ_ONLY);
    return 0;
}

int tte_chip_write(uint32_t address, const uint32_t *data, uint32_t bytes)
{
    configure(WRITE);
    for (uint32_t i = 0; i < bytes / 4u; ++i) {
        REGISTER(address + 4u * i) = data[i];
        wait_until_ready();
    }
    configure(READ_ONLY);
    return 0;
}
