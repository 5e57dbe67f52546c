/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TTE_CHIP_H
#define TTE_CHIP_H

#define CHIP_USART 0x40004800u /* USART3 */
#define CHIP_USART_SCALE 1u

#endif
