/* SPDX-License-Identifier: Apache-2.0
 *
 * STM32H753: 400 MHz from the 8 MHz that the ST-LINK gives; USART3 at PD8 (TX) and PD9 (RX), which
 * the ST-LINK shows as a serial port. RM0433: chapters 6 (PWR), 8 (RCC), 11 (GPIO); wait states from
 * table 17.
 */
#include "chip.h"

#include "device.h"
#include "flash_h7.h"
#include "pins.h"
#include "usart.h"

#define RCC 0x58024400u
#define RCC_CR REGISTER(RCC + 0x00u)
#define RCC_CFGR REGISTER(RCC + 0x10u)
#define RCC_D1CFGR REGISTER(RCC + 0x18u)
#define RCC_D2CFGR REGISTER(RCC + 0x1Cu)
#define RCC_D3CFGR REGISTER(RCC + 0x20u)
#define RCC_PLLCKSELR REGISTER(RCC + 0x28u)
#define RCC_PLLCFGR REGISTER(RCC + 0x2Cu)
#define RCC_PLL1DIVR REGISTER(RCC + 0x30u)
#define RCC_AHB4ENR REGISTER(RCC + 0xE0u)
#define RCC_APB1LENR REGISTER(RCC + 0xE8u)
#define PWR 0x58024800u
#define PWR_CR3 REGISTER(PWR + 0x0Cu)
#define PWR_D3CR REGISTER(PWR + 0x18u)
#define FLASH_ACR REGISTER(0x52002000u)
#define GPIOD 0x58020C00u

#define CR_HSEON (1u << 16)
#define CR_HSERDY (1u << 17)
#define CR_HSEBYP (1u << 18)
#define CR_PLL1ON (1u << 24)
#define CR_PLL1RDY (1u << 25)
#define ACTVOSRDY (1u << 13)
#define VOSRDY (1u << 13)

enum { HSI_HZ = 64000000, APB1_HZ = 100000000 };

/* The frequency of APB1. Where clock or PLL do not start, the internal 64 MHz stay. */
static uint32_t start_clocks(void)
{
    PWR_CR3 = (PWR_CR3 & ~7u) | 1u << 1; /* the LDO supplies the core: written once after power-on */
    tte_wait_until(PWR + 0x04u, ACTVOSRDY, ACTVOSRDY);
    PWR_D3CR |= 3u << 14; /* voltage scale 1 */
    tte_wait_until(PWR + 0x18u, VOSRDY, VOSRDY);
    RCC_CR |= CR_HSEBYP;
    RCC_CR |= CR_HSEON;
    if (!tte_wait_until(RCC, CR_HSERDY, CR_HSERDY)) {
        return HSI_HZ;
    }
    RCC_PLLCKSELR = 4u << 4 | 2u;                 /* 8 MHz / 4 */
    RCC_PLLCFGR = 1u << 16 | 1u << 2;             /* output P; an input of 2 to 4 MHz, wide VCO */
    RCC_PLL1DIVR = (2u - 1u) << 9 | (400u - 1u);  /* * 400 / 2 */
    RCC_CR |= CR_PLL1ON;
    if (!tte_wait_until(RCC, CR_PLL1RDY, CR_PLL1RDY)) {
        return HSI_HZ;
    }
    FLASH_ACR = 2u << 4 | 2u;    /* 2 wait states at 200 MHz */
    RCC_D1CFGR = 4u << 4 | 8u;   /* AXI and AHB: 400 MHz / 2; APB3 / 2 */
    RCC_D2CFGR = 4u << 8 | 4u << 4; /* APB2 / 2, APB1 / 2 */
    RCC_D3CFGR = 4u << 4;        /* APB4 / 2 */
    RCC_CFGR = 3u;               /* the PLL */
    tte_wait_until(RCC + 0x10u, 7u << 3, 3u << 3);
    return APB1_HZ;
}

void tte_chip_init(void)
{
    const uint32_t clock_hz = start_clocks();
    RCC_AHB4ENR |= 1u << 3;   /* GPIOD */
    RCC_APB1LENR |= 1u << 18; /* USART3, from APB1 */
    tte_pin_function(GPIOD, 8, 7);
    tte_pin_function(GPIOD, 9, 7);
    tte_usart_init(clock_hz);
    tte_flash_heal();
}
