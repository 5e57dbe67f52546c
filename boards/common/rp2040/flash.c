/* SPDX-License-Identifier: Apache-2.0
 *
 * The flash chip beside the RP2040, by the functions of its boot ROM (datasheet 2.8.3): sectors of
 * 4 KiB, written by pages of 256 bytes. Meanwhile nothing can be read from it, so what runs then lies
 * in SRAM and no interrupt comes. ROM and SRAM are executed, so the MPU is off.
 */
#include "device.h"

#define MPU_CTRL REGISTER(0xE000ED94u)
#define SSI_SSIENR REGISTER(0x18000008u)
#define SSI_BAUDR REGISTER(0x18000014u)
#define FLASH_START 0x10000000u

enum { SECTOR_BYTES = 4096, BLOCK_BYTES = 65536, BLOCK_ERASE = 0xD8, CLOCK_DIVIDER = 4 };

#define CODE(a, b) ((uint16_t)((b) << 8 | (a)))

typedef struct {
    void (*connect_internal_flash)(void);
    void (*flash_exit_xip)(void);
    void (*flash_range_erase)(uint32_t offset, uint32_t bytes, uint32_t block_bytes, uint8_t command);
    void (*flash_range_program)(uint32_t offset, const uint8_t *data, uint32_t bytes);
    void (*flash_flush_cache)(void);
    void (*flash_enter_cmd_xip)(void);
} rom;

typedef void (*rom_function)(void);

/* At 0x14 is the address of a table, which holds pairs of a code of two letters and an address, up
 * to the code 0; all have 16 bits. (A compiler takes a low address that it sees for a null pointer.) */
static rom_function find(uint16_t code)
{
    uintptr_t place = 0x14;
    __asm__("" : "+r"(place));
    const volatile uint16_t *entry =
        (const volatile uint16_t *)(uintptr_t) * (const volatile uint16_t *)place;
    while (entry[0] != code && entry[0] != 0) {
        entry += 2;
    }
    return (rom_function)(uintptr_t)entry[1];
}

/* Erases a sector where there are no data, else writes a page. Last, reading is as boot2 set it up. */
__attribute__((section(".ram_code"), noinline)) static void
operate(const rom *functions, uint32_t offset, const uint8_t *data, uint32_t bytes)
{
    functions->connect_internal_flash();
    functions->flash_exit_xip();
    if (data) {
        functions->flash_range_program(offset, data, bytes);
    } else {
        functions->flash_range_erase(offset, bytes, BLOCK_BYTES, BLOCK_ERASE);
    }
    functions->flash_flush_cache();
    functions->flash_enter_cmd_xip();
    SSI_SSIENR = 0;
    SSI_BAUDR = CLOCK_DIVIDER;
    SSI_SSIENR = 1;
}

static int run(uint32_t address, const uint32_t *data, uint32_t bytes)
{
    rom functions;
    __asm__ volatile("cpsid i" ::: "memory");
    MPU_CTRL = 0;
    __asm__ volatile("dsb\n isb" ::: "memory");
    functions.connect_internal_flash = find(CODE('I', 'F'));
    functions.flash_exit_xip = find(CODE('E', 'X'));
    functions.flash_range_erase =
        (void (*)(uint32_t, uint32_t, uint32_t, uint8_t))find(CODE('R', 'E'));
    functions.flash_range_program =
        (void (*)(uint32_t, const uint8_t *, uint32_t))find(CODE('R', 'P'));
    functions.flash_flush_cache = find(CODE('F', 'C'));
    functions.flash_enter_cmd_xip = find(CODE('C', 'X'));
    operate(&functions, address - FLASH_START, (const uint8_t *)data, bytes);
    MPU_CTRL = 1;
    __asm__ volatile("dsb\n isb" ::: "memory");
    __asm__ volatile("cpsie i\n isb" ::: "memory");
    return 0;
}

int tte_chip_erase(uint32_t address)
{
    return run(address, 0, SECTOR_BYTES);
}

int tte_chip_write(uint32_t address, const uint32_t *data, uint32_t bytes)
{
    return run(address, data, bytes);
}
