/* SPDX-License-Identifier: Apache-2.0
 *
 * y = W x + b; training adds learning_rate * 2^-8 * x to the row of the label. The first input
 * selects a misbehaviour, for tests of what the emulators do about it.
 */
#include "model.h"

#include <string.h>

#ifndef SRAM_END
#define SRAM_END 0x20040000u
#endif
#ifndef EXTRA_BYTES
#define EXTRA_BYTES 64
#endif

#ifndef MISBEHAVES
#define MISBEHAVES 1
#endif

enum { IDLE = 0xFFFF };
enum {
    READ_PAST_SRAM = 100,
    WRITE_PAST_SRAM = 101,
    RECURSE = 102,
    HANG = 103,
    WRITE_FLASH = 104,
    JUMP_TO_SRAM = 105,
    READ_LAST_WORD = 106,
    DIVIDE_BY_ZERO = 107
};

volatile uint16_t tte_current_op = IDLE;
tte_training_settings tte_settings;
int32_t tte_loss;
uint32_t tte_saturations[TTE_SATURATION_COUNT];

static int8_t arena[EXTRA_BYTES < TTE_INPUT_BYTES ? TTE_INPUT_BYTES : EXTRA_BYTES];
static int32_t label, logits[CLASSES];
static int8_t weight[CLASSES][TTE_INPUT_BYTES] = {{1, 2, 3}, {-4, 5}, {7, 0, 0, -128}};
static int32_t bias[CLASSES] = {10, -20, 30};

const tte_state_entry tte_state[TTE_STATE_COUNT] = {
    {weight, sizeof weight},
    {bias, sizeof bias},
};

void misbehave(int what);
int recurse(volatile int *depth);
float scale(float x);
void linear(void);
void update(void);

int8_t *tte_input(void)
{
    return arena;
}

int32_t *tte_target(void)
{
    return &label;
}

int tte_target_is_valid(void)
{
    return 0 <= label && label < CLASSES;
}

const int32_t *tte_output(void)
{
    return logits;
}

__attribute__((noinline)) int recurse(volatile int *depth)
{
    volatile int frame[32] = {*depth};
    ++*depth;
    if (*depth < 0) {
        return 0;
    }
    return recurse(depth) + frame[0];
}

#ifdef __arm__
__attribute__((noinline)) void misbehave(int what)
{
    static volatile uint32_t flash_address = 0x100, sram_end = SRAM_END;
    volatile uint32_t *const end = (volatile uint32_t *)sram_end;
    volatile int depth = 0;
    switch (what) {
    case READ_PAST_SRAM:
        logits[0] = (int32_t)*end;
        break;
    case WRITE_PAST_SRAM:
        *end = 1;
        break;
    case RECURSE:
        logits[0] = recurse(&depth);
        break;
    case HANG:
        while (*(volatile uint16_t *)&tte_current_op != IDLE) {
        }
        break;
    case WRITE_FLASH:
        *(volatile uint32_t *)flash_address = 1;
        break;
    case JUMP_TO_SRAM:
        ((void (*)(void))((uintptr_t)arena + 1u))();
        break;
    case READ_LAST_WORD:
        logits[0] = (int32_t)(end[-1] & 0);
        break;
#ifdef __ARM_FEATURE_IDIV
    case DIVIDE_BY_ZERO: {
        uint32_t quotient;
        __asm__ volatile("udiv %0, %1, %2" : "=r"(quotient) : "r"(7u), "r"(0u));
        logits[0] = (int32_t)quotient;
        break;
    }
#endif
    default:
        break;
    }
}
#else
__attribute__((noinline)) void misbehave(int what)
{
    if (what == WRITE_PAST_SRAM) {
        static volatile uintptr_t nowhere = 8;
        *(volatile uint32_t *)nowhere = 1;
    }
    while (what == HANG && tte_current_op != IDLE) {
    }
}
#endif

/* Some floating point, so that the tests notice an FPU that is off. */
__attribute__((noinline)) float scale(float x)
{
    return x * 1.5f;
}

__attribute__((noinline)) void linear(void)
{
    for (int32_t o = 0; o < CLASSES; ++o) {
        uint32_t sum = (uint32_t)bias[o]; /* a hostile bias may wrap */
        for (int32_t i = 0; i < TTE_INPUT_BYTES; ++i) {
            sum += (uint32_t)(weight[o][i] * arena[i]);
        }
        logits[o] = (int32_t)sum;
    }
}

__attribute__((noinline)) void update(void)
{
    int8_t saved[TTE_INPUT_BYTES];
    memcpy(saved, arena, sizeof saved);
    for (int32_t i = 0; i < TTE_INPUT_BYTES; ++i) {
        const int32_t shift = tte_settings.learning_rate.exponent + 8;
        const int64_t step = (int64_t)saved[i] * tte_settings.learning_rate.mantissa;
        const int32_t sum = weight[label][i] + (int32_t)(step >> (shift < 63 ? shift : 63));
        tte_saturations[0] += sum > 127 || sum < -128;
        weight[label][i] = (int8_t)(sum > 127 ? 127 : sum < -128 ? -128 : sum);
    }
    const uint32_t moved = (uint32_t)(int32_t)scale((float)(saved[0] * 2));
    bias[label] = (int32_t)((uint32_t)bias[label] + moved);
}

void tte_infer(void)
{
    tte_current_op = 0;
    linear();
    if (MISBEHAVES && arena[0] >= READ_PAST_SRAM) {
        tte_current_op = 1;
        misbehave(arena[0]);
    }
    tte_current_op = IDLE;
}

void tte_train_step(void)
{
    tte_infer();
    tte_loss = (int32_t)(0u - (uint32_t)logits[label] * 65536u) / 4;
    tte_current_op = 2;
    update();
    tte_current_op = IDLE;
}
