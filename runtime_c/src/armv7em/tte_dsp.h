/* SPDX-License-Identifier: Apache-2.0
 *
 * The instructions of Armv7E-M that C has no operator for, and what the fast kernels share.
 * Off the target each is a few lines of C with the same bits, so that the tests can run the
 * kernels under sanitizers. A "pair" is two int16 in a word, the first in the lower half; an int8
 * word of elements 0, 1, 2, 3 widens to the pairs (0, 2) and (1, 3).
 * Source: Armv7-M Architecture Reference Manual, chapter A7.7.
 */
#ifndef TTE_DSP_H
#define TTE_DSP_H

#include <string.h>

#include "tte_requant.h"

/* A function whose code and stack are not part of its caller's. */
#define TTE_APART __attribute__((noinline))

/* Four int8 of any alignment. */
static inline uint32_t tte_load_4(const int8_t *p)
{
    uint32_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

/* The first `count` of four int8, 1..4; the others are 0. */
static inline uint32_t tte_load_up_to_4(const int8_t *p, int32_t count)
{
    uint32_t word = 0;
    for (int32_t i = 0; i < count; i++) {
        word |= (uint32_t)(uint8_t)p[i] << (8 * i);
    }
    return word;
}

#if defined(__ARM_FEATURE_DSP)

/* pair + elements (0, 2) of an int8 word, half by half. */
static inline uint32_t tte_sxtab16(uint32_t pair, uint32_t word)
{
    uint32_t result;
    __asm__("sxtab16 %0, %1, %2" : "=r"(result) : "r"(pair), "r"(word));
    return result;
}

/* pair + elements (1, 3) of an int8 word, half by half. */
static inline uint32_t tte_sxtab16_ror8(uint32_t pair, uint32_t word)
{
    uint32_t result;
    __asm__("sxtab16 %0, %1, %2, ror #8" : "=r"(result) : "r"(pair), "r"(word));
    return result;
}

/* Elements (0, 2) of an int8 word. */
static inline uint32_t tte_sxtb16(uint32_t word)
{
    uint32_t result;
    __asm__("sxtb16 %0, %1" : "=r"(result) : "r"(word));
    return result;
}

/* Elements (1, 3) of an int8 word. */
static inline uint32_t tte_sxtb16_ror8(uint32_t word)
{
    uint32_t result;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(result) : "r"(word));
    return result;
}

/* The lower halves of two words. */
static inline uint32_t tte_pkhbt(uint32_t low, uint32_t high)
{
    uint32_t result;
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(result) : "r"(low), "r"(high));
    return result;
}

/* sum + the products of two pairs. */
static inline int32_t tte_smlad(uint32_t a, uint32_t b, int32_t sum)
{
    int32_t result;
    __asm__("smlad %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

/* sum + a * b; wraps. C would do, but compilers put the additions in another order. */
static inline int32_t tte_mla(int32_t a, int32_t b, int32_t sum)
{
    int32_t result;
    __asm__("mla %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

/* round(a * b / 2^32): tte_requantize() without a shift. */
static inline int32_t tte_smmulr(int32_t a, int32_t b)
{
    int32_t result;
    __asm__("smmulr %0, %1, %2" : "=r"(result) : "r"(a), "r"(b));
    return result;
}

/* offset + round(a * b / 2^32) */
static inline int32_t tte_smmlar(int32_t a, int32_t b, int32_t offset)
{
    int32_t result;
    __asm__("smmlar %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(offset));
    return result;
}

/* clamp(value, -128, 127) */
static inline int32_t tte_ssat8(int32_t value)
{
    int32_t result;
    __asm__("ssat %0, #8, %1" : "=r"(result) : "r"(value));
    return result;
}

#else

static inline int32_t tte_low(uint32_t pair)
{
    return (int16_t)(uint16_t)pair;
}

static inline int32_t tte_high(uint32_t pair)
{
    return (int16_t)(uint16_t)(pair >> 16);
}

static inline uint32_t tte_pkhbt(uint32_t low, uint32_t high)
{
    return (low & 0xFFFFu) | high << 16;
}

static inline uint32_t tte_sxtb16(uint32_t word)
{
    return tte_pkhbt((uint32_t)(int8_t)(uint8_t)word, (uint32_t)(int8_t)(uint8_t)(word >> 16));
}

static inline uint32_t tte_sxtb16_ror8(uint32_t word)
{
    return tte_sxtb16(word >> 8 | word << 24);
}

static inline uint32_t tte_sxtab16(uint32_t pair, uint32_t word)
{
    const uint32_t wide = tte_sxtb16(word);
    return tte_pkhbt(pair + wide, (pair >> 16) + (wide >> 16));
}

static inline uint32_t tte_sxtab16_ror8(uint32_t pair, uint32_t word)
{
    return tte_sxtab16(pair, word >> 8 | word << 24);
}

static inline int32_t tte_smlad(uint32_t a, uint32_t b, int32_t sum)
{
    const uint32_t products =
        (uint32_t)(tte_low(a) * tte_low(b)) + (uint32_t)(tte_high(a) * tte_high(b));
    return (int32_t)((uint32_t)sum + products);
}

static inline int32_t tte_mla(int32_t a, int32_t b, int32_t sum)
{
    return (int32_t)((uint32_t)sum + (uint32_t)a * (uint32_t)b);
}

static inline int32_t tte_smmulr(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b + ((int64_t)1 << 31)) >> 32);
}

static inline int32_t tte_smmlar(int32_t a, int32_t b, int32_t offset)
{
    return (int32_t)((uint32_t)offset + (uint32_t)tte_smmulr(a, b));
}

static inline int32_t tte_ssat8(int32_t value)
{
    return tte_clamp(value, -128, 127);
}

#endif

/* Whether SMMLAR and SSAT are all of the activation. */
static inline int tte_is_plain(const tte_requant *requant)
{
    return requant->pre_shift == 0 && requant->act_min == -128 && requant->act_max == 127;
}

/* A value twice. */
static inline uint32_t tte_both(int32_t value)
{
    return tte_pkhbt((uint32_t)value, (uint32_t)value);
}

#endif
