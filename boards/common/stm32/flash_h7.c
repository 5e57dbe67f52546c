/* SPDX-License-Identifier: Apache-2.0
 *
 * Bank 2 of the STM32H7's flash (RM0433 chapter 4): sectors of 128 KiB, written by flash words of 32
 * bytes with 10 bits of ECC, each once. The program runs from bank 1 meanwhile.
 */
#include "flash_h7.h"

#include "device.h"
#include "tte_port.h"

#define FLASH_BANK2 0x52002100u
#define KEYR REGISTER(FLASH_BANK2 + 0x04u)
#define CR REGISTER(FLASH_BANK2 + 0x0Cu)
#define SR REGISTER(FLASH_BANK2 + 0x10u)
#define CCR REGISTER(FLASH_BANK2 + 0x14u)
#define SCB_CCR REGISTER(0xE000ED14u)

#define BANK2_START 0x08100000u

#define CR_LOCK (1u << 0)
#define CR_PG (1u << 1)
#define CR_SER (1u << 2)
#define CR_PSIZE_64 (3u << 4)
#define CR_START (1u << 7)
#define CR_SNB(sector) ((sector) << 8)
#define SR_BUSY 7u            /* BSY, WBNE, QW */
#define SR_ERRORS 0x046E0000u /* protection, sequence, strobe, inconsistency, operation, two bits */
#define SR_DBECCERR (1u << 26)
#define CCR_BFHFNMIGN (1u << 8)

enum { SECTOR_BYTES = 0x20000, WORD_BYTES = 32 };

static void unlock(void)
{
    while (SR & SR_BUSY) {
    }
    CCR = SR_ERRORS;
    if (CR & CR_LOCK) {
        KEYR = 0x45670123u;
        KEYR = 0xCDEF89ABu;
    }
}

static int finish(void)
{
    __asm__ volatile("dsb" ::: "memory");
    while (SR & SR_BUSY) {
    }
    return (SR & SR_ERRORS) != 0;
}

int tte_chip_erase(uint32_t address)
{
    unlock();
    CR = CR_PSIZE_64 | CR_SER | CR_SNB((address - BANK2_START) / SECTOR_BYTES);
    CR |= CR_START;
    const int failed = finish();
    CR = CR_LOCK;
    return failed;
}

int tte_chip_write(uint32_t address, const uint32_t *data, uint32_t bytes)
{
    int failed = 0;
    unlock();
    CR = CR_PSIZE_64 | CR_PG;
    for (uint32_t at = 0; at < bytes && !failed; at += WORD_BYTES) {
        for (uint32_t i = at; i < at + WORD_BYTES; i += 4u) {
            REGISTER(address + i) = data[i / 4u];
        }
        failed = finish();
    }
    CR = CR_LOCK;
    return failed;
}

/* With FAULTMASK set and BFHFNMIGN, a load whose two errors become a bus fault goes on. */
static int is_sound(uint32_t sector)
{
    CCR = SR_DBECCERR;
    for (uint32_t i = 0; i < SECTOR_BYTES; i += WORD_BYTES) {
        (void)REGISTER(sector + i);
    }
    __asm__ volatile("dsb" ::: "memory");
    return !(SR & SR_DBECCERR);
}

void tte_flash_heal(void)
{
    const uint32_t start = (uint32_t)(uintptr_t)tte_port_storage.data;
    for (uint32_t i = 0; i < tte_port_storage.sectors; ++i) {
        const uint32_t sector = start + i * SECTOR_BYTES;
        SCB_CCR |= CCR_BFHFNMIGN;
        __asm__ volatile("cpsid f\n dsb\n isb" ::: "memory");
        const int sound = is_sound(sector);
        __asm__ volatile("cpsie f\n dsb\n isb" ::: "memory");
        SCB_CCR &= ~CCR_BFHFNMIGN;
        if (!sound) {
            tte_chip_erase(sector);
        }
    }
}
