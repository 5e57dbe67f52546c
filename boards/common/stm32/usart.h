/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TTE_STM32_USART_H
#define TTE_STM32_USART_H

#include <stdint.h>

/* 8 data bits, no parity, one stop bit at TTE_UART_BAUD, from a clock of `clock_hz`; its own clock
 * is on and its pins are set. */
void tte_usart_init(uint32_t clock_hz);

#endif
