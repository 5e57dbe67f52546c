/* SPDX-License-Identifier: Apache-2.0
 *
 * The flash of the STM32F4 and F7 (RM0090 chapter 3, RM0385 chapter 3): sectors of several sizes, of
 * which the storage takes equal ones (chip.h: CHIP_SECTOR(address)), written by words. The core waits
 * while the one bank is busy.
 */
#include "chip.h"
#include "device.h"

#define FLASH 0x40023C00u
#define ACR REGISTER(FLASH + 0x00u)
#define KEYR REGISTER(FLASH + 0x04u)
#define SR REGISTER(FLASH + 0x0Cu)
#define CR REGISTER(FLASH + 0x10u)

#define SR_BSY (1u << 16)
#define SR_ERRORS 0xF2u /* operation, write protection, alignment, parallelism, sequence */
#define CR_PG (1u << 0)
#define CR_SER (1u << 1)
#define CR_SNB(sector) ((sector) << 3)
#define CR_PSIZE_WORD (2u << 8)
#define CR_STRT (1u << 16)
#define CR_LOCK (1u << 31)

static void unlock(void)
{
    while (SR & SR_BSY) {
    }
    SR = SR_ERRORS;
    if (CR & CR_LOCK) {
        KEYR = 0x45670123u;
        KEYR = 0xCDEF89ABu;
    }
}

static int wait_while_busy(void)
{
    __asm__ volatile("dsb" ::: "memory");
    while (SR & SR_BSY) {
    }
    return (SR & SR_ERRORS) != 0;
}

/* The F4's flash has a small cache of data, which keeps what was erased. */
static void lock(void)
{
    CR = CR_LOCK;
#ifdef CHIP_FLASH_DATA_CACHE
    ACR &= ~(1u << 10);
    ACR |= 1u << 12;
    ACR &= ~(1u << 12);
    ACR |= 1u << 10;
#endif
}

int tte_chip_erase(uint32_t address)
{
    unlock();
    CR = CR_PSIZE_WORD | CR_SER | CR_SNB(CHIP_SECTOR(address));
    CR |= CR_STRT;
    const int failed = wait_while_busy();
    lock();
    return failed;
}

int tte_chip_write(uint32_t address, const uint32_t *data, uint32_t bytes)
{
    int failed = 0;
    unlock();
    CR = CR_PSIZE_WORD | CR_PG;
    for (uint32_t i = 0; i < bytes / 4u && !failed; ++i) {
        REGISTER(address + 4u * i) = data[i];
        failed = wait_while_busy();
    }
    lock();
    return failed;
}
