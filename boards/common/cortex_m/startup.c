/* SPDX-License-Identifier: Apache-2.0
 *
 * Start-up of an Armv6-M, v7-M or v8-M core: vector table, .data and .bss, stack paint, MPU, caches,
 * fault report.
 *
 * The stack lies at the bottom of its memory and the MPU admits flash, the SRAM limit, the storage
 * and the peripherals, nothing else. So an overflowing stack leaves memory downwards and faults
 * instead of running into data, and any access past the budget faults instead of being lucky.
 * The report is written from a stack of its own, for the first one may be what broke.
 */
#include "board.h"
#include "model.h"
#include "tte_port.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define SCB_VTOR REGISTER(0xE000ED08u)
#define SCB_SHCSR REGISTER(0xE000ED24u) /* bits 16-18: memory, bus and usage faults on */
#define SCB_CCR REGISTER(0xE000ED14u)   /* bit 4: division by zero traps */
#define SCB_CFSR REGISTER(0xE000ED28u)
#define SCB_MMFAR REGISTER(0xE000ED34u)
#define SCB_BFAR REGISTER(0xE000ED38u)
#define SCB_CPACR REGISTER(0xE000ED88u) /* bits 20-23: full access to the FPU */
#define MPU_CTRL REGISTER(0xE000ED94u)  /* bit 0: on; bit 2 (default map) stays off */
#define MPU_RNR REGISTER(0xE000ED98u)   /* the region that the next two are of */
#define MPU_RBAR REGISTER(0xE000ED9Cu)
#define MPU_RASR REGISTER(0xE000EDA0u) /* Armv8-M: RLAR */
#define MPU_MAIR0 REGISTER(0xE000EDC0u)
#define SCB_CCSIDR REGISTER(0xE000ED80u) /* of the level 1 data cache: bits 13-27 sets, 3-12 ways */
#define SCB_CSSELR REGISTER(0xE000ED84u)
#define SCB_ICIALLU REGISTER(0xE000EF50u)
#define SCB_DCISW REGISTER(0xE000EF60u) /* bits 30-31 way, 5-13 set */

#define STACK_PAINT 0xC5C5C5C5u

enum { FAULT_STACK_BYTES = 512 };

extern uint32_t tte_stack_bottom[], tte_stack_top[];
extern uint32_t tte_data_start[], tte_data_end[];
extern const uint32_t tte_data_load[];
extern uint32_t tte_bss_start[], tte_bss_end[], tte_sram_end[];

int main(void);
void tte_reset(void);
void tte_port_interrupt(void);
void tte_port_nmi(void);
void tte_fault_report(const uint32_t *frame, uint32_t exc_return);

uint64_t tte_fault_stack[FAULT_STACK_BYTES / sizeof(uint64_t)];

static void protect_memory(void)
{
    static const struct {
        uint32_t rbar, rasr;
    } regions[] = TTE_MPU_REGIONS;
    for (uint32_t i = 0; i < sizeof regions / sizeof regions[0]; ++i) {
        MPU_RNR = i;
        MPU_RBAR = regions[i].rbar;
        MPU_RASR = regions[i].rasr;
    }
#ifdef TTE_MPU_MAIR0
    MPU_MAIR0 = TTE_MPU_MAIR0;
#endif
    MPU_CTRL = 1u;
    __asm__ volatile("dsb\n isb" ::: "memory");
}

#ifdef TTE_HAS_CACHES
/* Both caches hold anything after power-on. */
static void start_caches(void)
{
    SCB_CSSELR = 0;
    __asm__ volatile("dsb" ::: "memory");
    const uint32_t last_set = SCB_CCSIDR >> 13 & 0x7FFFu, last_way = SCB_CCSIDR >> 3 & 0x3FFu;
    for (uint32_t set = 0; set <= last_set; ++set) {
        for (uint32_t way = 0; way <= last_way; ++way) {
            SCB_DCISW = way << 30 | set << 5;
        }
    }
    SCB_ICIALLU = 0;
    __asm__ volatile("dsb\n isb" ::: "memory");
    SCB_CCR |= 3u << 16;
    __asm__ volatile("dsb\n isb" ::: "memory");
}
#endif

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
#if __ARM_ARCH >= 7
    const uint32_t cfsr = SCB_CFSR;
#else
    const uint32_t cfsr = 0;
#endif
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

/* A board whose NMI tells of a flash error has a handler of its own. */
__attribute__((weak, alias("fault"))) void tte_port_nmi(void);

/* Reset, then NMI, hard, memory, bus and usage fault, SVCall, debug, PendSV, SysTick; then the one
 * interrupt that is ever enabled. Whatever else arrives is a fault too. */
__attribute__((section(".vectors"), used)) static const vector vectors[] = {
    {.stack = tte_stack_top}, {.code = tte_reset}, {.code = tte_port_nmi}, {.code = fault},
    {.code = fault},          {.code = fault},     {.code = fault},        {.code = 0},
    {.code = 0},              {.code = 0},         {.code = 0},            {.code = fault},
    {.code = fault},          {.code = 0},         {.code = fault},        {.code = fault},
#ifdef TTE_UART_IRQ
    [16 + TTE_UART_IRQ] = {.code = tte_port_interrupt},
#endif
};

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
    for (uint32_t *word = tte_bss_start; word < tte_sram_end; ++word) {
        *word = 0; /* spare memory too: SRAM with ECC wants to be written before it is read */
    }
    paint_stack();
    SCB_VTOR = (uint32_t)(uintptr_t)vectors;
#if __ARM_ARCH >= 7
    SCB_SHCSR |= 7u << 16;
    SCB_CCR |= 1u << 4;
#endif
    protect_memory();
#ifdef TTE_HAS_CACHES
    start_caches();
#endif
    tte_port_exit(main());
}
