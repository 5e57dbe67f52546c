/* SPDX-License-Identifier: Apache-2.0
 *
 * RP2040: 125 MHz from the crystal of 12 MHz; UART0 at GP0 (TX) and GP1 (RX). RP2040 datasheet: 2.14
 * (resets), 2.15 (clocks), 2.16 (crystal), 2.18 (PLL), 2.19 (pins), 4.2 (UART, with FIFOs of 32).
 */
#include "board.h"
#include "device.h"

#define SET 0x2000u   /* a register's alias that sets the bits that are written */
#define CLEAR 0x3000u /* the alias that clears them */

#define RESETS 0x4000C000u
#define CLOCKS 0x40008000u
#define CLK_REF_CTRL REGISTER(CLOCKS + 0x30u)
#define CLK_REF_SELECTED (CLOCKS + 0x38u)
#define CLK_SYS_CTRL REGISTER(CLOCKS + 0x3Cu)
#define CLK_SYS_SELECTED (CLOCKS + 0x44u)
#define CLK_PERI_CTRL REGISTER(CLOCKS + 0x48u)
#define XOSC 0x40024000u
#define XOSC_CTRL REGISTER(XOSC + 0x00u)
#define XOSC_STARTUP REGISTER(XOSC + 0x0Cu)
#define PLL 0x40028000u
#define PLL_CS REGISTER(PLL + 0x00u)
#define PLL_PWR_CLEAR REGISTER(PLL + 0x04u + CLEAR)
#define PLL_FBDIV REGISTER(PLL + 0x08u)
#define PLL_PRIM REGISTER(PLL + 0x0Cu)
#define GPIO_CTRL(pin) REGISTER(0x40014004u + 8u * (pin))
#define PAD(pin) REGISTER(0x4001C004u + 4u * (pin))

#define UART 0x40034000u
#define UART_DR REGISTER(UART + 0x00u)
#define UART_FR REGISTER(UART + 0x18u)
#define UART_IBRD REGISTER(UART + 0x24u)
#define UART_FBRD REGISTER(UART + 0x28u)
#define UART_LCR_H REGISTER(UART + 0x2Cu)
#define UART_CR REGISTER(UART + 0x30u)
#define UART_IFLS REGISTER(UART + 0x34u)
#define UART_IMSC REGISTER(UART + 0x38u)
#define UART_ICR REGISTER(UART + 0x44u)

enum {
    CLOCK_HZ = 125000000,
    RESET_IO = 1 << 5,
    RESET_PADS = 1 << 8,
    RESET_PLL = 1 << 12,
    RESET_UART = 1 << 22,
    FR_BUSY = 1 << 3,
    FR_RXFE = 1 << 4,
    FR_TXFF = 1 << 5,
    INTERRUPTS = 1 << 4 | 1 << 6, /* the FIFO is 1/8 full; something waits in it */
    GPIO_UART = 2,
    PAD_PULLED_UP = 0x5A
};

void tte_port_interrupt(void);

/* After a reset of the core alone, everything still runs from the PLL: first off it, then on. */
static void start_clocks(void)
{
    const uint32_t wanted = RESET_IO | RESET_PADS | RESET_PLL | RESET_UART;
    XOSC_STARTUP = 47; /* * 256 cycles: 1 ms */
    XOSC_CTRL = 0xFABAA0;
    tte_wait_until(XOSC + 0x04u, 1u << 31, 1u << 31);
    CLK_REF_CTRL = 2; /* the crystal */
    tte_wait_until(CLK_REF_SELECTED, 1u << 2, 1u << 2);
    CLK_SYS_CTRL = 0; /* the same */
    tte_wait_until(CLK_SYS_SELECTED, 1u << 0, 1u << 0);
    REGISTER(RESETS + SET) = RESET_PLL | RESET_UART;
    REGISTER(RESETS + CLEAR) = wanted;
    tte_wait_until(RESETS + 0x08u, wanted, wanted);
    PLL_CS = 1; /* 12 MHz / 1 */
    PLL_FBDIV = 125;
    PLL_PWR_CLEAR = 1u << 5 | 1u << 0; /* VCO and PLL get power */
    tte_wait_until(PLL, 1u << 31, 1u << 31);
    PLL_PRIM = 6u << 16 | 2u << 12; /* 1500 MHz / 6 / 2 */
    PLL_PWR_CLEAR = 1u << 3;
    CLK_SYS_CTRL = 1; /* the PLL */
    tte_wait_until(CLK_SYS_SELECTED, 1u << 1, 1u << 1);
    CLK_PERI_CTRL = 1u << 11; /* from the system clock */
}

void tte_chip_init(void)
{
    const uint32_t divider = (4u * CLOCK_HZ + TTE_UART_BAUD / 2u) / TTE_UART_BAUD; /* * 64 */
    start_clocks();
    UART_IBRD = divider >> 6;
    UART_FBRD = divider & 63u;
    UART_LCR_H = 3u << 5 | 1u << 4; /* 8 bits, FIFOs */
    UART_IFLS = 0;
    UART_IMSC = INTERRUPTS;
    UART_CR = 1u << 9 | 1u << 8 | 1u << 0; /* receiver, transmitter, UART */
    PAD(1) = PAD_PULLED_UP;
    GPIO_CTRL(0) = GPIO_UART;
    GPIO_CTRL(1) = GPIO_UART;
}

void tte_chip_send(uint8_t byte)
{
    while (UART_FR & FR_TXFF) {
    }
    UART_DR = byte;
}

void tte_chip_drain(void)
{
    while (UART_FR & FR_BUSY) {
    }
}

void tte_port_interrupt(void)
{
    UART_ICR = INTERRUPTS;
    while (!(UART_FR & FR_RXFE)) {
        tte_serial_received((uint8_t)UART_DR);
    }
}
