/* SPDX-License-Identifier: Apache-2.0
 *
 * The port of real boards: a serial line whose bytes an interrupt keeps in a ring, and flash. What
 * differs from chip to chip is behind device.h.
 */
#include "tte_port.h"

#include "board.h"
#include "device.h"

#define NVIC_ISER(irq) REGISTER(0xE000E100u + (irq) / 32u * 4u)
#define SCB_AIRCR REGISTER(0xE000ED0Cu)

enum { RING_BYTES = 1024 };

static volatile uint8_t ring[RING_BYTES];
static volatile uint32_t received; /* counted by the interrupt alone */
static volatile uint32_t taken;    /* counted by the program alone */

void tte_port_init(void)
{
    tte_chip_init();
    NVIC_ISER(TTE_UART_IRQ) = 1u << TTE_UART_IRQ % 32u;
}

/* What finds the ring full is lost; the protocol asks for it again. */
void tte_serial_received(uint8_t byte)
{
    const uint32_t count = received;
    if (count - taken < RING_BYTES) {
        ring[count % RING_BYTES] = byte;
        received = count + 1;
    }
}

/* Asleep while nothing comes. With interrupts off, one that comes between the question and the sleep
 * still ends it. */
static void wait_for_bytes(void)
{
    while (received == taken) {
        __asm__ volatile("cpsid i" ::: "memory");
        if (received == taken) {
            __asm__ volatile("wfi" ::: "memory");
        }
        __asm__ volatile("cpsie i\n isb" ::: "memory");
    }
}

size_t tte_port_read(void *data, size_t bytes, int wait)
{
    uint8_t *byte = data;
    size_t count = 0;
    if (wait) {
        wait_for_bytes();
    }
    while (count < bytes && received != taken) {
        byte[count++] = ring[taken % RING_BYTES];
        taken++;
    }
    return count;
}

void tte_port_write(const void *data, size_t bytes)
{
    const uint8_t *byte = data;
    for (size_t i = 0; i < bytes; ++i) {
        tte_chip_send(byte[i]);
    }
}

/* ---- flash -------------------------------------------------------------------------------- */

const tte_port_flash tte_port_storage = TTE_STORAGE;

int tte_port_flash_erase(uint32_t sector)
{
    const uint32_t start = (uint32_t)(uintptr_t)tte_port_storage.data;
    return sector >= tte_port_storage.sectors ||
           tte_chip_erase(start + sector * tte_port_storage.sector_bytes);
}

int tte_port_flash_write(uint32_t offset, const void *data, uint32_t bytes)
{
    const uint32_t start = (uint32_t)(uintptr_t)tte_port_storage.data;
    const uint32_t size = tte_port_storage.sectors * tte_port_storage.sector_bytes;
    return (offset | bytes) % tte_port_storage.unit_bytes || offset > size ||
           bytes > size - offset || tte_chip_write(start + offset, data, bytes);
}

/* ---- the rest ----------------------------------------------------------------------------- */

uint32_t tte_port_instructions(void)
{
    return 0;
}

void tte_port_report(const char *line)
{
    while (*line) {
        tte_chip_send((uint8_t)*line++);
    }
}

void tte_port_exit(int status)
{
    if (status == TTE_PORT_RESTART) {
        tte_chip_drain();
        __asm__ volatile("dsb" ::: "memory");
        SCB_AIRCR = 0x05FA0004u; /* the key, and a system reset */
    }
    __asm__ volatile("cpsid i" ::: "memory");
    for (;;) {
    }
}
