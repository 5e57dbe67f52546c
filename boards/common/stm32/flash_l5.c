/* SPDX-License-Identifier: Apache-2.0
 *
 * Bank 2 of the STM32L5's flash (RM0438 chapter 6) in dual-bank mode, as it comes from the factory:
 * pages of 2 KiB, written by 8 bytes with 8 bits of ECC, each once. The program runs from bank 1
 * meanwhile.
 */
#include "board.h"
#include "device.h"
#include "tte_port.h"

#define FLASH 0x40022000u
#define KEYR REGISTER(FLASH + 0x08u)
#define SR REGISTER(FLASH + 0x20u)
#define CR REGISTER(FLASH + 0x28u)
#define ECCR REGISTER(FLASH + 0x30u)
#define OPTR REGISTER(FLASH + 0x40u)

#define BANK2_START 0x08040000u

#define SR_ERRORS 0xFAu /* operation, programming, protection, alignment, size, sequence */
#define SR_BSY (1u << 16)
#define CR_PG (1u << 0)
#define CR_PER (1u << 1)
#define CR_PNB(page) ((page) << 3)
#define CR_BKER (1u << 11)
#define CR_STRT (1u << 16)
#define CR_LOCK (1u << 31)
#define ECCR_BANK2 (1u << 21)
#define ECCR_ECCD (1u << 31)
#define OPTR_DBANK (1u << 22)

enum { PAGE_BYTES = 2048, EXIT_BAD_FLASH = 102 };

void tte_port_nmi(void);

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

static int finish(void)
{
    __asm__ volatile("dsb" ::: "memory");
    while (SR & SR_BSY) {
    }
    return (SR & SR_ERRORS) != 0;
}

int tte_chip_erase(uint32_t address)
{
    if (!(OPTR & OPTR_DBANK)) {
        return 1;
    }
    unlock();
    CR = CR_PER | CR_BKER | CR_PNB((address - BANK2_START) / PAGE_BYTES);
    CR |= CR_STRT;
    const int failed = finish();
    CR = CR_LOCK;
    return failed;
}

int tte_chip_write(uint32_t address, const uint32_t *data, uint32_t bytes)
{
    int failed = 0;
    unlock();
    CR = CR_PG;
    for (uint32_t i = 0; i < bytes / 8u && !failed; ++i) {
        REGISTER(address + 8u * i) = data[2u * i];
        __asm__ volatile("dsb" ::: "memory");
        REGISTER(address + 8u * i + 4u) = data[2u * i + 1u];
        failed = finish();
    }
    CR = CR_LOCK;
    return failed;
}

/* Two wrong bits: in bank 2 power failed while that was written, and any value will do. Elsewhere
 * the program itself is spoilt. */
void tte_port_nmi(void)
{
    const uint32_t status = ECCR;
    if (!(status & ECCR_ECCD) || !(status & ECCR_BANK2)) {
        tte_port_report("!FAULT nmi\n");
        tte_port_exit(EXIT_BAD_FLASH);
    }
    ECCR = status;
}
