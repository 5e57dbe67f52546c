/* SPDX-License-Identifier: Apache-2.0
 *
 * Start-up of an Armv7-M core: vector table, .data and .bss, stack paint, MPU, fault report.
 *
 * The stack lies at the bottom of SRAM and the MPU admits flash, the SRAM limit and the
 * peripherals, nothing else. So an overflowing stack leaves SRAM downwards and faults instead of
 * running into data, and any access past the memory budget faults instead of being lucky.
 * The report is written from a stack of its own, for the first one may be what broke.
 */
#include "board.h"
#include "model.h"
#include "tte_port.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define SCB_SHCSR REGISTER(0xE000ED24u) /* bits 16-18: memory, bus and usage faults on */
#define SCB_CCR REGISTER(0xE000ED14u)   /* bit 4: division by zero traps */
#define SCB_CFSR REGISTER(0xE000ED28u)
#define SCB_MMFAR REGISTER(0xE000ED34u)
#define SCB_BFAR REGISTER(0xE000ED38u)
#define SCB_CPACR REGISTER(0xE000ED88u) /* bits 20-23: full access to the FPU */
#define MPU_CTRL REGISTER(0xE000ED94u)  /* bit 0: on; bit 2 (default map) stays off */
#define MPU_RBAR REGISTER(0xE000ED9Cu)  /* base | bit 4: the region's number is in bits 0-3 */
#define MPU_RASR REGISTER(0xE000EDA0u)

#define STACK_PAINT 0xC5C5C5C5u

enum { FAULT_STACK_BYTES = 512 };

extern uint32_t tte_stack_bottom[], tte_stack_top[];
extern uint32_t tte_data_start[], tte_data_end[];
extern const uint32_t tte_data_load[];
extern uint32_t tte_bss_start[], tte_bss_end[], tte_sram_end[];

int main(void);
void tte_reset(void);
void tte_fault_report(const uint32_t *frame, uint32_t exc_return);

uint64_t tte_fault_stack[FAULT_STACK_BYTES / sizeof(uint64_t)];

static void protect_memory(void)
{
    static const struct {
        uint32_t rbar, rasr;
    } regions[] = TTE_MPU_REGIONS;
    for (uint32_t i = 0; i < sizeof regions / sizeof regions[0]; ++i) {
        MPU_RBAR = regions[i].rbar | 1u << 4 | i;
        MPU_RASR = regions[i].rasr;
    }
    MPU_CTRL = 1u;
    __asm__ volatile("dsb\n isb" ::: "memory");
}

/* Volatile, so that no compiler makes a memset of it and paints its own stack frame. */
static void paint_stack(void)
{
    uint32_t *stack_pointer;
    __asm__ volatile("mov %0, sp" : "=r"(stack_pointer));
    for (volatile uint32_t *word = tte_stack_bottom; word < stack_pointer - 8; ++word) {
        *word = STACK_PAINT;
    }
}

uint32_t tte_port_stack_bytes(void)
{
    const volatile uint32_t *word = tte_stack_bottom;
    while (word < tte_stack_top && *word == STACK_PAINT) {
        ++word;
    }
    return (uint32_t)((uintptr_t)tte_stack_top - (uintptr_t)word);
}

void *tte_port_spare(uint32_t *bytes)
{
    *bytes = (uint32_t)((uintptr_t)tte_sram_end - (uintptr_t)tte_bss_end) & ~7u;
    return tte_bss_end;
}

void tte_reset(void)
{
#ifdef __ARM_FP
    SCB_CPACR |= 0xFu << 20;
    __asm__ volatile("dsb\n isb" ::: "memory");
#endif
    const uint32_t *load = tte_data_load;
    for (uint32_t *word = tte_data_start; word < tte_data_end; ++word) {
        *word = *load++;
    }
    for (uint32_t *word = tte_bss_start; word < tte_bss_end; ++word) {
        *word = 0;
    }
    paint_stack();
    SCB_SHCSR |= 7u << 16;
    SCB_CCR |= 1u << 4;
    protect_memory();
    tte_port_exit(main());
}

static char *put_text(char *out, const char *text)
{
    while (*text) {
        *out++ = *text++;
    }
    return out;
}

__attribute__((noinline)) static char *put_hex(char *out, const char *name, uint32_t value)
{
    out = put_text(put_text(out, name), "0x");
    for (int shift = 28; shift >= 0; shift -= 4) {
        *out++ = "0123456789abcdef"[value >> shift & 15u];
    }
    return out;
}

/* One line: "!FAULT exc= pc= lr= sp= cfsr= addr= op=", all in hexadecimal; pc and lr are 0 where
 * the core could not save them, addr is 0 where there is none. Exit status 100 + exception. */
__attribute__((used)) void tte_fault_report(const uint32_t *frame, uint32_t exc_return)
{
    enum { STACKING_FAILED = 0x3030, MMFAR_VALID = 0x80, BFAR_VALID = 0x8000 };
    uint32_t exception;
    __asm__ volatile("mrs %0, ipsr" : "=r"(exception));
    const uint32_t cfsr = SCB_CFSR;
    const int saved = !(cfsr & STACKING_FAILED) && frame >= tte_stack_bottom;
    const uint32_t address = cfsr & MMFAR_VALID ? SCB_MMFAR : cfsr & BFAR_VALID ? SCB_BFAR : 0u;
    const uint32_t frame_bytes = exc_return & 0x10u ? 0x20u : 0x68u; /* without or with FPU */
    char line[128];
    char *out = put_hex(line, "!FAULT exc=", exception);
    out = put_hex(out, " pc=", saved ? frame[6] : 0u);
    out = put_hex(out, " lr=", saved ? frame[5] : 0u);
    out = put_hex(out, " sp=", (uint32_t)(uintptr_t)frame + frame_bytes);
    out = put_hex(out, " cfsr=", cfsr);
    out = put_hex(out, " addr=", address);
    out = put_hex(out, " op=", tte_current_op);
    *put_text(out, "\n") = '\0';
    tte_port_report(line);
    tte_port_exit(100 + (int)exception);
}

__attribute__((naked)) static void fault(void)
{
    __asm__ volatile("mrs r0, msp\n"
                     "mov r1, lr\n"
                     "ldr r2, 1f\n"
                     "msr msp, r2\n"
                     "ldr r2, 2f\n"
                     "bx r2\n"
                     ".balign 4\n"
                     "1: .word tte_fault_stack + %c0\n"
                     "2: .word tte_fault_report\n" ::"i"(FAULT_STACK_BYTES));
}

typedef union {
    uint32_t *stack;
    void (*code)(void);
} vector;

/* Reset, then NMI, hard, memory, bus and usage fault, SVCall, debug, PendSV, SysTick: no
 * interrupt is ever enabled, so whatever else arrives is a fault too. */
__attribute__((section(".vectors"), used)) static const vector vectors[16] = {
    {.stack = tte_stack_top}, {.code = tte_reset}, {.code = fault}, {.code = fault},
    {.code = fault},          {.code = fault},     {.code = fault}, {.code = 0},
    {.code = 0},              {.code = 0},         {.code = 0},     {.code = fault},
    {.code = fault},          {.code = 0},         {.code = fault}, {.code = fault},
};
