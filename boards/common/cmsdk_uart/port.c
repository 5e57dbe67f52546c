/* SPDX-License-Identifier: Apache-2.0
 *
 * The port of a bare Cortex-M with one serial line, the UART of Arm's Cortex-M System Design Kit at
 * the place that it has on MPS2 boards: what Renode runs where it does not model the board itself.
 * Renode keeps every byte that comes; QEMU takes one at a time. So nothing is lost by polling.
 * Source: Arm, "Cortex-M System Design Kit Technical Reference Manual", 4.3.
 */
#include "board.h"
#include "tte_port.h"

#define UART ((volatile struct { uint32_t data, state, control, interrupt, divider; } *)0x40004000u)
#define SCB_AIRCR (*(volatile uint32_t *)0xE000ED0Cu)

enum { TRANSMITS = 1, RECEIVES = 2 };         /* control */
enum { OUTPUT_IS_FULL = 1, HAS_RECEIVED = 2 }; /* state */
enum { SMALLEST_DIVIDER = 16 };

void tte_port_interrupt(void);

void tte_port_init(void)
{
    UART->divider = SMALLEST_DIVIDER;
    UART->control = TRANSMITS | RECEIVES;
}

/* A board's vector table may name it; nothing ever enables it. */
void tte_port_interrupt(void)
{
}

size_t tte_port_read(void *data, size_t bytes, int wait)
{
    uint8_t *byte = data;
    size_t count = 0;
    while (wait && !(UART->state & HAS_RECEIVED)) {
    }
    while (count < bytes && UART->state & HAS_RECEIVED) {
        byte[count++] = (uint8_t)UART->data;
    }
    return count;
}

static void send(uint8_t byte)
{
    while (UART->state & OUTPUT_IS_FULL) {
    }
    UART->data = byte;
}

void tte_port_write(const void *data, size_t bytes)
{
    const uint8_t *byte = data;
    for (size_t i = 0; i < bytes; ++i) {
        send(byte[i]);
    }
}

/* The emulator counts from outside, from one call of this to the next. */
uint32_t tte_port_instructions(void)
{
    return 0;
}

void tte_port_report(const char *line)
{
    while (*line) {
        send((uint8_t)*line++);
    }
}

void tte_port_exit(int status)
{
    if (status == TTE_PORT_RESTART) {
        __asm__ volatile("dsb" ::: "memory");
        SCB_AIRCR = 0x05FA0004u; /* the key, and a system reset */
    }
    for (;;) {
    }
}
