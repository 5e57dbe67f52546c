/* SPDX-License-Identifier: Apache-2.0
 *
 * The port of emulated boards: Arm semihosting for the channel, CMSDK timer 0 for counting.
 * The emulator's host offers two files, tte_in and tte_out, usually named pipes.
 * Source: Arm, "Semihosting for AArch32 and AArch64", operations 0x01 to 0x20.
 */
#include "board.h"
#include "tte_port.h"

enum {
    SYS_OPEN = 0x01,
    SYS_WRITE0 = 0x04,
    SYS_WRITE = 0x05,
    SYS_READ = 0x06,
    SYS_FLEN = 0x0C,
    SYS_EXIT_EXTENDED = 0x20,
    MODE_READ_BINARY = 1,
    MODE_WRITE_BINARY = 5,
    APPLICATION_EXIT = 0x20026,
    EXIT_CHANNEL_LOST = 3
};

/* Counts down, a tick every cycle of the clock, of emulated time. */
#define TICK_NS (1000000000u / TTE_CLOCK_HZ)
#define TIMER ((volatile struct { uint32_t control, value, reload, interrupt; } *)TTE_PERIPHERALS)

static int32_t input_handle, output_handle;

static int32_t semihosting(uint32_t operation, const void *argument)
{
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return (int32_t)r0;
}

static int32_t open_file(const char *name, uint32_t name_bytes, uint32_t mode)
{
    const uint32_t arguments[3] = {(uint32_t)(uintptr_t)name, mode, name_bytes};
    const int32_t handle = semihosting(SYS_OPEN, arguments);
    if (handle < 0) {
        tte_port_exit(EXIT_CHANNEL_LOST);
    }
    return handle;
}

void tte_port_init(void)
{
    TIMER->reload = 0xFFFFFFFFu;
    TIMER->value = 0xFFFFFFFFu;
    TIMER->control = 1u;
    input_handle = open_file("tte_in", 6, MODE_READ_BINARY);
    output_handle = open_file("tte_out", 7, MODE_WRITE_BINARY);
}

/* Semihosting tells how many bytes were *not* moved; a pipe may move fewer than asked. */
static uint32_t transfer(uint32_t operation, int32_t handle, uintptr_t data, uint32_t bytes)
{
    const uint32_t arguments[3] = {(uint32_t)handle, data, bytes};
    const uint32_t left = (uint32_t)semihosting(operation, arguments);
    if (left >= bytes) {
        tte_port_exit(EXIT_CHANNEL_LOST);
    }
    return bytes - left;
}

/* Whether a read would block is asked by the length of the input: QEMU says 0 of every pipe, so
 * there the program does not look without waiting; unicorn says what has come. */
static int has_input(void)
{
    const uint32_t arguments[3] = {(uint32_t)input_handle, 0, 0};
    return semihosting(SYS_FLEN, arguments) > 0;
}

size_t tte_port_read(void *data, size_t bytes, int wait)
{
    return wait || has_input() ? transfer(SYS_READ, input_handle, (uintptr_t)data, bytes) : 0;
}

void tte_port_write(const void *data, size_t bytes)
{
    uintptr_t from = (uintptr_t)data;
    while (bytes) {
        const uint32_t moved = transfer(SYS_WRITE, output_handle, from, bytes);
        from += moved;
        bytes -= moved;
    }
}

/* With one instruction every 64 ns (QEMU: -icount shift=6,sleep=off) the ticks of the timer, shorter
 * ones, count instructions: k instructions are floor(k * 64 / tick) ticks, so k = ceil(ticks * tick /
 * 64), exactly. Ticks are summed in 64 bits: two readings may lie 2^32 ticks, or 2.68e9
 * instructions, apart before their difference is wrong. */
uint32_t tte_port_instructions(void)
{
    static uint32_t last = 0xFFFFFFFFu;
    static uint64_t ticks;
    const uint32_t now = TIMER->value;
    ticks += last - now;
    last = now;
    return (uint32_t)((ticks * TICK_NS + 63u) >> 6);
}

void tte_port_report(const char *line)
{
    semihosting(SYS_WRITE0, line);
}

void tte_port_exit(int status)
{
    const uint32_t arguments[2] = {APPLICATION_EXIT, (uint32_t)status};
    for (;;) {
        semihosting(SYS_EXIT_EXTENDED, arguments);
    }
}
