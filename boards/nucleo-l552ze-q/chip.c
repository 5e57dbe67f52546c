/* SPDX-License-Identifier: Apache-2.0
 *
 * STM32L552 without TrustZone: 110 MHz from the internal 4 MHz; LPUART1 at PG7 (TX) and PG8 (RX),
 * which the ST-LINK shows as a serial port. RM0438: chapters 8 (PWR), 9 (RCC), 11 (GPIO), 7 (ICACHE);
 * wait states from table 32.
 */
#include "chip.h"

#include "device.h"
#include "pins.h"
#include "usart.h"

#define RCC 0x40021000u
#define RCC_CR REGISTER(RCC + 0x00u)
#define RCC_CFGR REGISTER(RCC + 0x08u)
#define RCC_PLLCFGR REGISTER(RCC + 0x0Cu)
#define RCC_AHB2ENR REGISTER(RCC + 0x4Cu)
#define RCC_APB1ENR1 REGISTER(RCC + 0x58u)
#define RCC_APB1ENR2 REGISTER(RCC + 0x5Cu)
#define PWR 0x40007000u
#define PWR_CR1 REGISTER(PWR + 0x00u)
#define PWR_CR2 REGISTER(PWR + 0x04u)
#define FLASH_ACR REGISTER(0x40022000u)
#define ICACHE_CR REGISTER(0x40030400u)
#define GPIOG 0x42021800u

#define CR_PLLON (1u << 24)
#define CR_PLLRDY (1u << 25)
#define SR2_VOSF (1u << 10)

enum { MSI_HZ = 4000000, APB1_HZ = 110000000 };

/* The frequency of APB1. Where the PLL does not start, the internal 4 MHz stay. */
static uint32_t start_clocks(void)
{
    RCC_APB1ENR1 |= 1u << 28;   /* PWR */
    PWR_CR1 &= ~(3u << 9);      /* voltage range 0 */
    tte_wait_until(PWR + 0x14u, SR2_VOSF, 0);
    RCC_PLLCFGR = 1u << 24 | 55u << 8 | 1u; /* 4 MHz * 55 / 2 */
    RCC_CR |= CR_PLLON;
    if (!tte_wait_until(RCC, CR_PLLRDY, CR_PLLRDY)) {
        return MSI_HZ;
    }
    FLASH_ACR = 5; /* wait states */
    ICACHE_CR |= 1;
    RCC_CFGR = 3; /* the PLL */
    tte_wait_until(RCC + 0x08u, 3u << 2, 3u << 2);
    return APB1_HZ;
}

void tte_chip_init(void)
{
    const uint32_t clock_hz = start_clocks();
    PWR_CR2 |= 1u << 9;      /* port G has a supply of its own, which is there */
    RCC_AHB2ENR |= 1u << 6;  /* GPIOG */
    RCC_APB1ENR2 |= 1u << 0; /* LPUART1, from APB1 */
    tte_pin_function(GPIOG, 7, 8);
    tte_pin_function(GPIOG, 8, 8);
    tte_usart_init(clock_hz);
}
