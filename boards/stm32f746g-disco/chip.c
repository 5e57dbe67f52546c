/* SPDX-License-Identifier: Apache-2.0
 *
 * STM32F746: 216 MHz from the crystal of 25 MHz; USART1 at PA9 (TX) and PB7 (RX), which the ST-LINK
 * shows as a serial port. RM0385: chapters 4 (PWR), 5 (RCC), 6 (GPIO); wait states from table 5.
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
#define RCC_APB2ENR REGISTER(RCC + 0x44u)
#define PWR 0x40007000u
#define PWR_CR1 REGISTER(PWR + 0x00u)
#define FLASH_ACR REGISTER(0x40023C00u)
#define GPIOA 0x40020000u
#define GPIOB 0x40020400u

#define CR_HSEON (1u << 16)
#define CR_HSERDY (1u << 17)
#define CR_PLLON (1u << 24)
#define CR_PLLRDY (1u << 25)
#define CR1_ODEN (1u << 16) /* over-drive, which 216 MHz need; CSR1 has its flags at the same bits */
#define CR1_ODSWEN (1u << 17)

enum { HSI_HZ = 16000000, APB2_HZ = 108000000 };

/* The frequency of APB2. Where crystal or PLL do not start, the internal 16 MHz stay. */
static uint32_t start_clocks(void)
{
    RCC_APB1ENR |= 1u << 28; /* PWR */
    PWR_CR1 |= 3u << 14;     /* voltage scale 1 */
    RCC_CR |= CR_HSEON;
    if (!tte_wait_until(RCC, CR_HSERDY, CR_HSERDY)) {
        return HSI_HZ;
    }
    RCC_PLLCFGR = 9u << 24 | 1u << 22 | 432u << 6 | 25u; /* 25 MHz / 25 * 432 / 2, USB / 9 */
    RCC_CR |= CR_PLLON;
    if (!tte_wait_until(RCC, CR_PLLRDY, CR_PLLRDY)) {
        return HSI_HZ;
    }
    PWR_CR1 |= CR1_ODEN;
    tte_wait_until(PWR + 0x04u, CR1_ODEN, CR1_ODEN);
    PWR_CR1 |= CR1_ODSWEN;
    tte_wait_until(PWR + 0x04u, CR1_ODSWEN, CR1_ODSWEN);
    FLASH_ACR = 1u << 8 | 7u;       /* prefetch, 7 wait states */
    RCC_CFGR = 4u << 13 | 5u << 10; /* APB2 / 2, APB1 / 4 */
    RCC_CFGR |= 2u;                 /* the PLL */
    tte_wait_until(RCC + 0x08u, 3u << 2, 2u << 2);
    return APB2_HZ;
}

void tte_chip_init(void)
{
    const uint32_t clock_hz = start_clocks();
    RCC_AHB1ENR |= 3u << 0; /* GPIOA, GPIOB */
    RCC_APB2ENR |= 1u << 4; /* USART1 */
    tte_pin_function(GPIOA, 9, 7);
    tte_pin_function(GPIOB, 7, 7);
    tte_usart_init(clock_hz);
}
