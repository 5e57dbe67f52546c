/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TTE_CHIP_H
#define TTE_CHIP_H

#define CHIP_USART 0x40008000u /* LPUART1 */
#define CHIP_USART_SCALE 256u

#endif
