/* SPDX-License-Identifier: Apache-2.0
 *
 * The USART of the STM32F4 (reference manual RM0090, chapter 30): one data register, errors are
 * cleared by reading. chip.h says which one it is (CHIP_USART).
 */
#include "board.h"
#include "chip.h"
#include "device.h"
#include "usart.h"

#define SR REGISTER(CHIP_USART + 0x00u)
#define DR REGISTER(CHIP_USART + 0x04u)
#define BRR REGISTER(CHIP_USART + 0x08u)
#define CR1 REGISTER(CHIP_USART + 0x0Cu)

enum { SR_ORE = 1 << 3, SR_RXNE = 1 << 5, SR_TC = 1 << 6, SR_TXE = 1 << 7 };
enum { CR1_RE = 1 << 2, CR1_TE = 1 << 3, CR1_RXNEIE = 1 << 5, CR1_UE = 1 << 13 };

void tte_port_interrupt(void);

void tte_usart_init(uint32_t clock_hz)
{
    BRR = (clock_hz + TTE_UART_BAUD / 2u) / TTE_UART_BAUD;
    CR1 = CR1_UE | CR1_TE | CR1_RE | CR1_RXNEIE;
}

void tte_chip_send(uint8_t byte)
{
    while (!(SR & SR_TXE)) {
    }
    DR = byte;
}

void tte_chip_drain(void)
{
    while (!(SR & SR_TC)) {
    }
}

/* An overrun interrupts too; reading both registers ends it. */
void tte_port_interrupt(void)
{
    const uint32_t status = SR;
    if (status & (SR_RXNE | SR_ORE)) {
        const uint8_t byte = (uint8_t)DR;
        if (status & SR_RXNE) {
            tte_serial_received(byte);
        }
    }
}
