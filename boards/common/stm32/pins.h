/* SPDX-License-Identifier: Apache-2.0
 *
 * Pins of any STM32 since the F4: a port's registers lie alike in all of them.
 */
#ifndef TTE_STM32_PINS_H
#define TTE_STM32_PINS_H

#include "device.h"

/* Gives a pin to a peripheral, with a pull-up, so that a line that is not connected is idle. */
static inline void tte_pin_function(uint32_t port, uint32_t pin, uint32_t function)
{
    const uint32_t moder = port, ospeedr = port + 0x08u, pupdr = port + 0x0Cu;
    const uint32_t afr = port + 0x20u + pin / 8u * 4u;
    REGISTER(afr) = (REGISTER(afr) & ~(15u << pin % 8u * 4u)) | function << pin % 8u * 4u;
    REGISTER(ospeedr) = (REGISTER(ospeedr) & ~(3u << 2u * pin)) | 2u << 2u * pin;
    REGISTER(pupdr) = (REGISTER(pupdr) & ~(3u << 2u * pin)) | 1u << 2u * pin;
    REGISTER(moder) = (REGISTER(moder) & ~(3u << 2u * pin)) | 2u << 2u * pin;
}

#endif
