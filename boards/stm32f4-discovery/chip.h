/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TTE_CHIP_H
#define TTE_CHIP_H

#define CHIP_USART 0x40004400u /* USART2 */

/* Sectors 5 to 11 have 128 KiB each, from 0x08020000 on. */
#define CHIP_SECTOR(address) (5u + ((address) - 0x08020000u) / 0x20000u)
#define CHIP_FLASH_DATA_CACHE

#endif
