/* SPDX-License-Identifier: Apache-2.0
 *
 * The USART and LPUART of the STM32F7, H7 and L5 (RM0385 chapter 31, RM0433 48, RM0438 47 and 48):
 * two data registers, errors are cleared by a register of their own. chip.h says which one it is
 * (CHIP_USART) and how many clocks a bit of BRR stands for (CHIP_USART_SCALE, 256 for an LPUART).
 */
#include "board.h"
#include "chip.h"
#include "device.h"
#include "usart.h"

#define CR1 REGISTER(CHIP_USART + 0x00u)
#define BRR REGISTER(CHIP_USART + 0x0Cu)
#define ISR REGISTER(CHIP_USART + 0x1Cu)
#define ICR REGISTER(CHIP_USART + 0x20u)
#define RDR REGISTER(CHIP_USART + 0x24u)
#define TDR REGISTER(CHIP_USART + 0x28u)

enum { CR1_UE = 1 << 0, CR1_RE = 1 << 2, CR1_TE = 1 << 3, CR1_RXNEIE = 1 << 5 };
enum { ISR_ORE = 1 << 3, ISR_RXNE = 1 << 5, ISR_TC = 1 << 6, ISR_TXE = 1 << 7 };

void tte_port_interrupt(void);

void tte_usart_init(uint32_t clock_hz)
{
    const uint64_t clocks = (uint64_t)clock_hz * CHIP_USART_SCALE;
    BRR = (uint32_t)((clocks + TTE_UART_BAUD / 2u) / TTE_UART_BAUD);
    CR1 = CR1_TE | CR1_RE | CR1_RXNEIE;
    CR1 |= CR1_UE;
}

void tte_chip_send(uint8_t byte)
{
    while (!(ISR & ISR_TXE)) {
    }
    TDR = byte;
}

void tte_chip_drain(void)
{
    while (!(ISR & ISR_TC)) {
    }
}

void tte_port_interrupt(void)
{
    const uint32_t status = ISR;
    if (status & ISR_RXNE) {
        tte_serial_received((uint8_t)RDR);
    }
    if (status & ISR_ORE) {
        ICR = ISR_ORE;
    }
}
