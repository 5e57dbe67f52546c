/* SPDX-License-Identifier: Apache-2.0
 *
 * What becomes of sums: gradients in a map,
 *   to[i * step] = clamp(round(sums[i] * multiplier / 2^32), -127, 127), 0 where the mask bit is 0
 * the last part of that for four channels at once, or a step of the weights,
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

@ void tte_store_grads(const tte_grad_map *map)
@ Four pixels of four channels at a time, two by two. What is stored is 127 above the gradient:
@ USAT16 clamps to 0 .. 255 and leaves in the Q flag whether that was needed, UQADD8 1 clamps to
@ 1 .. 255, and USADA8 sees by the sum of the differences, which are 1 for all but 255, whether that
@ was needed. SEL takes a byte where the mask bit, one of the GE flags, is 1.
        .equ    END, 0                  @ of the row's fours, less 28
        .equ    LEFT, 4                 @ rows
        .equ    TAIL, 8                 @ pixels of a row behind its fours
        .equ    PIXEL_STEPS, 12         @ of gradients and mask, from behind a row to the next
        .equ    COUNTED, 20             @ saturations
        .equ    ROW_BYTES, 24

@ The words of four channels, \first .. : two pixels of each; r3 is the first one's place.
        .macro  store_2 first
        ldr     r8, [r0, #\first + 8]
        ldr     r9, [r0, #\first + 16]
        ldr     r10, [r0, #\first + 24]
        ldr     r7, [r0, #\first]!
        .irp    r, 7, 8, 9, 10
        usat16  r\r, #8, r\r
        .endr
        pkhbt   r2, r7, r9, lsl #16
        pkhtb   r9, r9, r7, asr #16
        pkhbt   r7, r8, r10, lsl #16
        pkhtb   r10, r10, r8, asr #16
        orr     r2, r2, r7, lsl #8
        orr     r9, r9, r10, lsl #8
        uqadd8  r7, r2, r11
        uqadd8  r8, r9, r11
        usada8  r12, r7, r2, r12
        usada8  r12, r8, r9, r12
        ldrb    r2, [r5]
        ldrb    r9, [r5, r6]
        add     r5, r5, r6, lsl #1
        .irp    r, 7, 8
        eor     r\r, r\r, #0x80808080
        .endr
        lsl     r2, r2, lr
        msr     APSR_g, r2
        sel     r7, r7, r1
        lsl     r9, r9, lr
        msr     APSR_g, r9
        sel     r8, r8, r1
        str     r7, [r3]
        str     r8, [r3, r4]
        add     r3, r3, r4, lsl #1
        .endm

@ r9 += what does not fit of the pixel at r7, whose mask byte is r10.
        .macro  count_pixel
        lsl     r10, r10, lr
        .irp    channel, 0, 1, 2, 3
        ldrh    r12, [r7, #8 * \channel]
        cmp     r12, #254
        ubfx    r12, r10, #16 + \channel, #1
        it      hi
        addhi   r9, r9, r12
        .endr
        .endm

        function tte_store_grads
        push    {r4-r11, lr}
        ldm     r0!, {r3-r12}
        @ r3 = to, r4 = step, r5 = mask, r6 = its step, r7 = saturations, r8 = fours, r9 = tail,
        @ r10 = rows, r11, r12 = steps of the gradients and the mask
        ldrd    r0, lr, [r0]            @ values, shift
        sub     sp, sp, #28
        strd    r10, r9, [sp, #LEFT]
        strd    r11, r12, [sp, #PIXEL_STEPS]
        lsl     r8, r8, #5
        sub     r0, r0, #28
        strd    r7, r8, [sp, #COUNTED]
        movs    r1, #0
        msr     APSR_nzcvq, r1
        mov     r11, #0x01010101
        add     r2, r0, r8
        str     r2, [sp, #END]
        b       2f
1:      mvn     r12, #15
        store_2 28
        store_2 4
        mrs     r2, APSR
        and     r2, r2, #1 << 27
        orrs    r2, r2, r12
        bne     6f
2:      ldr     r2, [sp, #END]
        cmp     r0, r2
        bne     1b
        ldr     r12, [sp, #TAIL]
        cmp     r12, #0
        bne     4f
@ The next row.
3:      ldrd    r9, r10, [sp, #PIXEL_STEPS]
        ldr     r2, [sp, #ROW_BYTES]
        ldr     r7, [sp, #LEFT]
        add     r3, r3, r9
        add     r5, r5, r10
        add     r2, r2, r0
        subs    r7, r7, #1
        strd    r2, r7, [sp, #END]
        bne     2b
        add     sp, sp, #28
        pop     {r4-r11, pc}
@ The last one to three pixels of a row.
4:      adds    r0, r0, #28
        add     r12, r0, r12, lsl #1
5:      ldrh    r7, [r0]
        ldrh    r8, [r0, #8]
        ldrh    r9, [r0, #16]
        ldrh    r10, [r0, #24]
        ldrb    r2, [r5]
        orr     r7, r7, r9, lsl #16
        orr     r8, r8, r10, lsl #16
        usat16  r7, #8, r7
        usat16  r8, #8, r8
        orr     r7, r7, r8, lsl #8
        uqadd8  r8, r7, r11
        usad8   r9, r8, r7
        eor     r8, r8, #0x80808080
        lsl     r2, r2, lr
        msr     APSR_g, r2
        sel     r8, r8, r1
        str     r8, [r3]
        mrs     r7, APSR
        and     r7, r7, #1 << 27
        eor     r9, r9, #4
        orrs    r7, r7, r9
        bne     8f
9:      adds    r0, r0, #2
        add     r3, r3, r4
        add     r5, r5, r6
        cmp     r0, r12
        bne     5b
        ldr     r12, [sp, #TAIL]
        sub     r0, r0, r12, lsl #1
        adds    r0, r0, #4
        b       3b
@ Counts what does not fit among the last four pixels.
6:      msr     APSR_nzcvq, r1
        ldr     r8, [sp, #COUNTED]
        ldr     r9, [r8]
        sub     r2, r5, r6, lsl #2
        sub     r7, r0, #4
7:      ldrb    r10, [r2]
        add     r2, r2, r6
        count_pixel
        adds    r7, r7, #2
        sub     r12, r7, r0
        cmp     r12, #4
        bne     7b
        str     r9, [r8]
        b       2b
@ The same of one.
8:      msr     APSR_nzcvq, r1
        ldr     r8, [sp, #COUNTED]
        ldr     r9, [r8]
        mov     r7, r0
        ldrb    r10, [r5]
        push    {r12}
        count_pixel
        pop     {r12}
        str     r9, [r8]
        b       9b
        .size   tte_store_grads, . - tte_store_grads

@ Four steps, 256 too high, from their sums.
        .macro  round_steps a, b, c, d
        .irp    r, \a, \b, \c, \d
        smmla   r\r, r\r, r12, lr
        .endr
        .irp    r, \a, \b, \c, \d
        asr     r\r, r\r, r11
        .endr
        .irp    r, \a, \b, \c, \d
        ssat    r\r, #16, r\r
        .endr
        .endm

@ Eight from r3..r10, to r3..r6 in pairs; N where one has been no int16.
        .macro  round_eight
        round_steps 3, 4, 5, 6
        round_steps 7, 8, 9, 10
        pkhbt   r3, r3, r5, lsl #16
        pkhbt   r4, r4, r6, lsl #16
        pkhbt   r5, r7, r9, lsl #16
        pkhbt   r6, r8, r10, lsl #16
        mrs     r7, APSR
        lsls    r7, r7, #4
        .endm

@ Four weights and residuals take their steps: those of weights 0 and 2, and of 1 and 3.
        .macro  take_steps even, odd
        ldr     r7, [r0]
        ldr     r8, [r1]
        and     r9, r11, r7, lsl #8
        sxtab16 r9, r9, r8
        and     r7, r7, #0xFF00FF00
        sxtab16 r7, r7, r8, ror #8
        qsub16  \even, r9, \even
        qsub16  \odd, r7, \odd
        qadd16  \even, \even, r10
        qadd16  \odd, \odd, r10
        lsl     r7, \odd, #8
        sel     r7, \even, r7
        eor     r7, r7, #0x80808080
        str     r7, [r1], #4
        lsr     \even, \even, #8
        sel     \even, \even, \odd
        str     \even, [r0], #4
        .endm

@ r11 = a mask of upper bytes and in the lowest byte the shift, r12 = mantissa, lr = half; at sp:
@ where the last eight sums begin, which are \bytes long.
        .macro  begin_update bytes
        sub     r3, r3, #\bytes
        push    {r3-r11, lr}
        ldr     r4, [sp, #40]
        ldm     r4, {r11, r12, lr}
        orr     r11, r11, #0xFF00FF00
        .endm

@ tte_update_fours(weight, residual, sums, sums_end, move) returns the sums that it stopped at.
@ 256 * weight + residual is an int16, and so is a step and 256; the first less the second is 256
@ too low and saturates at the bottom where it should. 384 more, it does so at the top; its upper
@ byte is the weight then, and its lower byte the residual, but for its top bit. The GE flags remain
@ as they are: SEL takes bytes 0 and 2 of its first operand. SSAT leaves in the Q flag whether a
@ step was no int16. Eight at a time; where one of them is none, four.
        function tte_update_fours
        begin_update 64
        mov     r4, #5 << 16
        msr     APSR_nzcvqg, r4
        b       2f
1:      ldm     r2, {r3-r6}
        ldrd    r7, r8, [r2, #32]
        ldrd    r9, r10, [r2, #40]
        round_eight
        bmi     3f
        ldr     r10, =0x01800180        @ 384, twice
        adds    r2, r2, #64
        take_steps r3, r4
        take_steps r5, r6
2:      ldr     r3, [sp]
        cmp     r2, r3
        bls     1b
        b       4f
3:      mov     r4, #5 << 16
        msr     APSR_nzcvqg, r4
        ldr     r3, [sp]
4:      ldr     r10, =0x01800180
        add     r3, r3, #64
        b       6f
5:      ldm     r2, {r4-r7}
        round_steps 4, 5, 6, 7
        mrs     r8, APSR
        lsls    r8, r8, #4
        bmi     7f
        pkhbt   r4, r4, r6, lsl #16
        pkhbt   r5, r5, r7, lsl #16
        adds    r2, r2, #32
        take_steps r4, r5
6:      cmp     r2, r3
        bne     5b
7:      mov     r0, r2
        pop     {r3-r11, pc}
        .size   tte_update_fours, . - tte_update_fours

@ tte_update_run(weight, residual, sums, sums_end, move): the same for sums that are neighbours. One
@ by one the last, and eight of which a step is no int16.
        function tte_update_run
        begin_update 32
1:      mov     r4, #5 << 16
        msr     APSR_nzcvqg, r4
        b       3f
2:      ldm     r2!, {r3-r10}
        round_eight
        bmi     5f
        ldr     r10, =0x01800180        @ 384, twice
        take_steps r3, r4
        take_steps r5, r6
3:      ldr     r3, [sp]
        cmp     r2, r3
        bls     2b
4:      adds    r3, r3, #32
        cmp     r2, r3
        bne     6f
        pop     {r3-r11, pc}
5:      mov     r3, r2
        subs    r2, r2, #32
6:      ldr     r7, =32639              @ the highest
7:      ldr     r4, [r2], #4
        ldrsb   r5, [r0]
        ldrsb   r6, [r1]
        smmla   r4, r4, r12, lr
        asr     r4, r4, r11
        add     r5, r6, r5, lsl #8
        subs    r5, r5, r4
        ssat    r5, #16, r5             @ 256 too low
        add     r5, r5, #256
        cmp     r5, r7
        it      gt
        movgt   r5, r7
        strb    r5, [r1], #1
        adds    r5, r5, #128
        asrs    r5, r5, #8
        strb    r5, [r0], #1
        cmp     r2, r3
        bne     7b
        ldr     r3, [sp]
        cmp     r2, r3
        bls     1b
        b       4b
        .size   tte_update_run, . - tte_update_run

@ void tte_scale_words(to, from, words, factor)
        function tte_scale_words
        push    {r4-r11, lr}
1:      ldm     r1!, {r4-r11}
        .irp    r, 4, 5, 6, 7, 8, 9, 10, 11
        mul     r\r, r\r, r3
        .endr
        subs    r2, r2, #8
        stm     r0!, {r4-r11}
        bne     1b
        pop     {r4-r11, pc}
        .size   tte_scale_words, . - tte_scale_words
