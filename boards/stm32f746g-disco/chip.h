/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TTE_CHIP_H
#define TTE_CHIP_H

#define CHIP_USART 0x40011000u /* USART1 */
#define CHIP_USART_SCALE 1u

/* Sectors 5 to 7 have 256 KiB each, from 0x08040000 on. */
#define CHIP_SECTOR(address) (5u + ((address) - 0x08040000u) / 0x40000u)

#endif
