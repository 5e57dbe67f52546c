/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TTE_STM32_FLASH_H7_H
#define TTE_STM32_FLASH_H7_H

/* Erases the sectors of the storage that power failed in: reading them would fault. */
void tte_flash_heal(void);

#endif
