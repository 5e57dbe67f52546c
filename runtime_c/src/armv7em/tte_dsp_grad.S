/* SPDX-License-Identifier: Apache-2.0
 *
 * What becomes of sums: gradients in a map,
 *   to[i * step] = clamp(round(sums[i] * multiplier / 2^32), -127, 127), 0 where the mask bit is 0
 * or a step of the weights,
 *   256 * weight[i] + residual[i] -= round(sums[i] * mantissa / 2^(32 + shift)), saturated
 * four at a time. tte_dsp_grad.h has the layouts, tests/shim/tte_dsp_grad.c says the same in C.
 * Rounding half up. Source: docs/numerics.md, sections 2 and 3.
 */
        .syntax unified
        .thumb

@ The frame is the tte_grads struct from `rows` on.
        .equ    ROWS, 0
        .equ    COUNT, 4
        .equ    TO_STEP, 8
        .equ    MASK_ROW_STEP, 12
        .equ    SATURATIONS, 16
        .equ    FRAME, 20

@ \v = one gradient, if the mask byte in \bits has the bit that lr moves to the top
        .macro  select v, bits
        lsl     \bits, \bits, lr
        and     \v, \v, \bits, asr #31
        .endm

        .macro  check v, rare
        add     r9, \v, #127
        cmp     r9, #254
        bhi     \rare
        .endm

@ \v is clamped and counted.
        .macro  saturate v
        add     r9, \v, #127
        cmp     r9, #254
        bls     9f
        ldr     r10, [sp, #SATURATIONS]
        ldr     r9, [r10]
        add     r9, r9, #1
        str     r9, [r10]
        cmp     \v, #0
        ite     lt
        mvnlt   \v, #126
        movge   \v, #127
9:
        .endm

@ All rows. r0 = sums, r1 = to, r2 = step, r3 = mask, r12 = its step, lr = shift, r8 = multiplier
        .macro  finish masked           @ and returns
1:      ldr     r11, [sp, #COUNT]
2:      ldm     r0!, {r4-r7}
        smmulr  r4, r4, r8
        smmulr  r5, r5, r8
        smmulr  r6, r6, r8
        smmulr  r7, r7, r8
        subs    r11, r11, #4
        blt     5f
        .if     \masked
        ldrb    r9, [r3]
        ldrb    r10, [r3, r12]
        add     r3, r3, r12, lsl #1
        select  r4, r9
        select  r5, r10
        ldrb    r9, [r3]
        ldrb    r10, [r3, r12]
        add     r3, r3, r12, lsl #1
        select  r6, r9
        select  r7, r10
        .endif
        check   r4, 4f
        check   r5, 4f
        check   r6, 4f
        check   r7, 4f
3:      strb    r4, [r1]
        strb    r5, [r1, r2]
        add     r1, r1, r2, lsl #1
        strb    r6, [r1]
        strb    r7, [r1, r2]
        add     r1, r1, r2, lsl #1
        cmp     r11, #0
        bgt     2b
@ The next row.
7:      ldrd    r4, r5, [sp, #ROWS]
        ldrd    r6, r7, [sp, #TO_STEP]
        add     r1, r1, r6
        .if     \masked
        add     r3, r3, r7
        .endif
        subs    r4, r4, #1
        str     r4, [sp, #ROWS]
        bne     1b
        add     sp, sp, #FRAME
        pop     {r4-r11, pc}
4:      saturate r4
        saturate r5
        saturate r6
        saturate r7
        b       3b
@ The last 1 to 3 of a row.
5:      adds    r11, r11, #4
6:      .if     \masked
        ldrb    r9, [r3]
        add     r3, r3, r12
        select  r4, r9
        .endif
        saturate r4
        strb    r4, [r1]
        add     r1, r1, r2
        mov     r4, r5
        mov     r5, r6
        subs    r11, r11, #1
        bne     6b
        b       7b
        .endm

        .macro  function name
        .section .text.\name, "ax", %progbits
        .p2align 2
        .global \name
        .thumb_func
        .type   \name, %function
\name:
        .endm

@ void tte_finish_grads(const tte_grads *grads)
        function tte_finish_grads
        push    {r4-r11, lr}
        add     r1, r0, #28
        ldm     r1, {r4-r8}
        sub     sp, sp, #FRAME
        stm     sp, {r4-r8}
        ldm     r0, {r0, r1, r2, r3, r8, r12, lr}
        cmp     r3, #0
        beq     8f
        finish  1
8:      finish  0
        .size   tte_finish_grads, . - tte_finish_grads

@ tte_update_fours(weight, residual, sums, sums_end, move) returns the sums that it stopped at.
@ 256 * weight + residual + 128 is an int16: the weight's byte above the residual's, whose sign bit
@ is turned. At the top it saturates where it should; at the bottom SEL takes the greater. SSAT
@ leaves in the Q flag whether a step was no int16.
        function tte_update_fours
        push    {r4-r12, lr}
        ldr     r4, [sp, #40]
        ldm     r4, {r11, r12, lr}      @ shift, mantissa, half
        movw    r10, #0x8180            @ -127 * 256 + 128, twice
        movt    r10, #0x8180
        movs    r4, #0
        msr     APSR_nzcvq, r4
1:      ldm     r2, {r4-r7}
        .irp    r, 4, 5, 6, 7
        smmla   r\r, r\r, r12, lr
        .endr
        .irp    r, 4, 5, 6, 7
        asr     r\r, r\r, r11
        .endr
        .irp    r, 4, 5, 6, 7
        ssat    r\r, #16, r\r
        .endr
        mrs     r8, APSR
        lsls    r8, r8, #4
        bmi     2f
        pkhbt   r4, r4, r6, lsl #16
        pkhbt   r5, r5, r7, lsl #16
        ldr     r8, [r0]
        ldr     r9, [r1]
        eor     r9, r9, #0x80808080
        uxtb16  r6, r9
        and     r7, r8, #0x00FF00FF
        orr     r6, r6, r7, lsl #8      @ elements 0 and 2
        uxtb16  r7, r9, ror #8
        and     r8, r8, #0xFF00FF00
        orr     r7, r7, r8              @ elements 1 and 3
        qsub16  r6, r6, r4
        qsub16  r7, r7, r5
        ssub16  r4, r6, r10
        sel     r6, r6, r10
        ssub16  r5, r7, r10
        sel     r7, r7, r10
        uxtb16  r4, r6
        uxtb16  r5, r7
        orr     r4, r4, r5, lsl #8
        eor     r4, r4, #0x80808080
        str     r4, [r1], #4
        uxtb16  r6, r6, ror #8
        and     r7, r7, #0xFF00FF00
        orr     r6, r6, r7
        str     r6, [r0], #4
        adds    r2, r2, #32
        cmp     r2, r3
        bne     1b
2:      mov     r0, r2
        pop     {r4-r12, pc}
        .size   tte_update_fours, . - tte_update_fours
