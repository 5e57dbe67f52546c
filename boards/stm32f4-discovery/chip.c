/* SPDX-License-Identifier: Apache-2.0
 *
 * STM32F407: 168 MHz from the crystal of 8 MHz; USART2 at PA2 (TX) and PA3 (RX).
 * RM0090: chapters 5 (PWR), 7 (RCC), 8 (GPIO); wait states from table 10.
 */
#include "chip.h"

#include "device.h"
#include "pins.h"
#include "usart.h"

#define RCC 0x40023800u
#define RCC_CR REGISTER(RCC + 0x00u)
#define RCC_PLLCFGR REGISTER(RCC + 0x04u)
#define RCC_CFGR REGISTER(RCC + 0x08u)
#define RCC_AHB1ENR REGISTER(RCC + 0x30u)
#define RCC_APB1ENR REGISTER(RCC + 0x40u)
#define PWR_CR REGISTER(0x40007000u)
#define FLASH_ACR REGISTER(0x40023C00u)
#define GPIOA 0x40020000u

#define CR_HSEON (1u << 16)
#define CR_HSERDY (1u << 17)
#define CR_PLLON (1u << 24)
#define CR_PLLRDY (1u << 25)

enum { HSI_HZ = 16000000, APB1_HZ = 42000000 };

/* The frequency of APB1. Where crystal or PLL do not start, the internal 16 MHz stay. */
static uint32_t start_clocks(void)
{
    RCC_APB1ENR |= 1u << 28; /* PWR */
    PWR_CR |= 1u << 14;      /* voltage scale 1 */
    RCC_CR |= CR_HSEON;
    if (!tte_wait_until(RCC, CR_HSERDY, CR_HSERDY)) {
        return HSI_HZ;
    }
    RCC_PLLCFGR = 7u << 24 | 1u << 22 | 336u << 6 | 8u; /* 8 MHz / 8 * 336 / 2, USB / 7 */
    RCC_CR |= CR_PLLON;
    if (!tte_wait_until(RCC, CR_PLLRDY, CR_PLLRDY)) {
        return HSI_HZ;
    }
    FLASH_ACR = 7u << 8 | 5u;          /* prefetch and both caches, 5 wait states */
    RCC_CFGR = 4u << 13 | 5u << 10;    /* APB2 / 2, APB1 / 4 */
    RCC_CFGR |= 2u;                    /* the PLL */
    tte_wait_until(RCC + 0x08u, 3u << 2, 2u << 2);
    return APB1_HZ;
}

void tte_chip_init(void)
{
    const uint32_t clock_hz = start_clocks();
    RCC_AHB1ENR |= 1u << 0;  /* GPIOA */
    RCC_APB1ENR |= 1u << 17; /* USART2 */
    tte_pin_function(GPIOA, 2, 7);
    tte_pin_function(GPIOA, 3, 7);
    tte_usart_init(clock_hz);
}
