/* SPDX-License-Identifier: Apache-2.0
 *
 * nRF52840: 64 MHz from the crystal of 32 MHz; UART0 at P0.06 (TX) and P0.08 (RX), which the debugger
 * shows as a serial port. nRF52840 product specification: CLOCK, GPIO, NVMC (instruction cache) and
 * the UART without DMA, whose FIFO holds six bytes.
 */
#include "board.h"
#include "device.h"

#define CLOCK 0x40000000u
#define CLOCK_HFCLKSTART REGISTER(CLOCK + 0x000u)
#define CLOCK_HFCLKSTARTED 0x100u
#define NVMC_ICACHECNF REGISTER(0x4001E540u)
#define P0_OUTSET REGISTER(0x50000508u)
#define P0_PIN_CNF(pin) REGISTER(0x50000700u + 4u * (pin))

#define UART 0x40002000u
#define TASKS_STARTRX REGISTER(UART + 0x000u)
#define TASKS_STARTTX REGISTER(UART + 0x008u)
#define EVENTS_RXDRDY REGISTER(UART + 0x108u)
#define EVENTS_TXDRDY REGISTER(UART + 0x11Cu)
#define INTENSET REGISTER(UART + 0x304u)
#define ENABLE REGISTER(UART + 0x500u)
#define PSEL_TXD REGISTER(UART + 0x50Cu)
#define PSEL_RXD REGISTER(UART + 0x514u)
#define RXD REGISTER(UART + 0x518u)
#define TXD REGISTER(UART + 0x51Cu)
#define BAUDRATE REGISTER(UART + 0x524u)

enum { TX_PIN = 6, RX_PIN = 8, PIN_OUTPUT = 3, PIN_INPUT_PULLED_UP = 3 << 2 };

/* Multiples of 16 MHz / 2^32 that the specification lists. */
#if TTE_UART_BAUD == 1000000
#define BAUDRATE_VALUE 0x10000000u
#elif TTE_UART_BAUD == 115200
#define BAUDRATE_VALUE 0x01D7E000u
#else
#error "the UART has 115200 and 1000000 baud"
#endif

static int is_sending;

void tte_port_interrupt(void);

void tte_chip_init(void)
{
    CLOCK_HFCLKSTART = 1;
    tte_wait_until(CLOCK + CLOCK_HFCLKSTARTED, 1, 1);
    NVMC_ICACHECNF = 1;
    P0_OUTSET = 1u << TX_PIN;
    P0_PIN_CNF(TX_PIN) = PIN_OUTPUT;
    P0_PIN_CNF(RX_PIN) = PIN_INPUT_PULLED_UP;
    PSEL_TXD = TX_PIN;
    PSEL_RXD = RX_PIN;
    BAUDRATE = BAUDRATE_VALUE;
    ENABLE = 4;
    INTENSET = 1u << 2; /* RXDRDY */
    TASKS_STARTTX = 1;
    TASKS_STARTRX = 1;
}

/* The event says that the byte before has left. */
void tte_chip_drain(void)
{
    while (is_sending && !EVENTS_TXDRDY) {
    }
    is_sending = 0;
}

void tte_chip_send(uint8_t byte)
{
    tte_chip_drain();
    EVENTS_TXDRDY = 0;
    TXD = byte;
    is_sending = 1;
}

/* Reading RXD moves the FIFO on, and the event comes again for what is left in it: so the event is
 * cleared first. */
void tte_port_interrupt(void)
{
    if (EVENTS_RXDRDY) {
        EVENTS_RXDRDY = 0;
        tte_serial_received((uint8_t)RXD);
    }
}
