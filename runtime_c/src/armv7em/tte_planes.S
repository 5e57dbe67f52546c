/* SPDX-License-Identifier: Apache-2.0
 *
 * Channels of an NHWC map to planes of int16, less the zero point. Four channels of a pixel are a
 * word: four of these are turned round by PKHBT, PKHTB and SXTAB16 into two words for each plane,
 * 1.5 instructions an element. tte_planes.h has the layouts, tests/shim/tte_planes.c says the same
 * in C.
 */
        .syntax unified
        .thumb

        .macro  function name
        .section .text.\name, "ax", %progbits
        .p2align 2
        .global \name
        .thumb_func
        .type   \name, %function
\name:
        .endm

@ The next four pixels of channels from r0 on. \split: pixels 1 and 2 for each other.
        .macro  load_pixels load, step, triple, split
        \load   r8, [r0]
        .if     \split
        \load   r9, [r0, \step, lsl #1]
        \load   r10, [r0, \step]
        .else
        \load   r9, [r0, \step]
        \load   r10, [r0, \step, lsl #1]
        .endif
        \load   r11, [r0, \triple]
        add     r0, r0, \step, lsl #2
        .endm

        .macro  copy_channel split
        push    {r4-r11, lr}
        ldm     r0, {r0, r1, r2, r3, r4, r5, r6, r7, r12}
        @ r2 = channels, r4 = zero point, r5 = columns, r6 = rows
        add     r3, r2, r2, lsl #1
1:      subs    lr, r5, #4
        blt     3f
2:      load_pixels ldrsb, r2, r3, \split
        .irp    r, 8, 9, 10, 11
        sub     r\r, r\r, r4
        strh    r\r, [r1], #2
        .endr
        subs    lr, lr, #4
        bge     2b
3:      adds    lr, lr, #4
        beq     5f
        .if     \split
        .irp    to, 0, 4, 2
        ldrsb   r8, [r0]
        add     r0, r0, r2
        sub     r8, r8, r4
        strh    r8, [r1, #\to]
        subs    lr, lr, #1
        beq     4f
        .endr
4:      adds    r1, r1, #8
        .else
4:      ldrsb   r8, [r0]
        add     r0, r0, r2
        sub     r8, r8, r4
        strh    r8, [r1], #2
        subs    lr, lr, #1
        bne     4b
        .endif
5:      add     r0, r0, r7
        add     r1, r1, r12
        subs    r6, r6, #1
        bne     1b
        pop     {r4-r11, pc}
        .endm

        .equ    END, 0          @ of the row's multiple of four pixels
        .equ    TAIL, 4         @ pixels behind it
        .equ    PITCH, 8        @ from a row of x to the next
        .equ    FRAME, 24       @ and how far x, the planes and the rows have to go
        .macro  copy_four_channels split
        push    {r4-r11, lr}
        sub     sp, sp, #FRAME
        ldm     r0, {r0, r1, r5, r6, r7, r8, r9, r10, r11}
        @ r5 = channels, r6 = bytes of a plane, r7 = zero point, r8 = columns, r9 = rows
        add     r2, r1, r6
        add     r3, r1, r6, lsl #1
        add     r4, r2, r6, lsl #1
        rsb     r7, r7, #0
        pkhbt   r7, r7, r7, lsl #16
        bic     r12, r8, #3
        mla     r12, r12, r5, r0
        mla     r6, r8, r5, r10
        and     r8, r8, #3
        strd    r12, r8, [sp, #END]
        strd    r6, r10, [sp, #PITCH]
        strd    r11, r9, [sp, #16]
        add     r6, r5, r5, lsl #1
1:      load_pixels ldr, r5, r6, \split
        pkhbt   r12, r8, r9, lsl #16    @ channels 0, 1 of two pixels
        pkhtb   r8, r9, r8, asr #16     @ channels 2, 3 of these
        pkhbt   r9, r10, r11, lsl #16
        pkhtb   r10, r11, r10, asr #16
        sxtab16 r11, r7, r12, ror #8
        sxtab16 lr, r7, r9, ror #8
        strd    r11, lr, [r2], #8
        sxtab16 r12, r7, r12
        sxtab16 r9, r7, r9
        strd    r12, r9, [r1], #8
        sxtab16 r11, r7, r8, ror #8
        sxtab16 lr, r7, r10, ror #8
        strd    r11, lr, [r4], #8
        sxtab16 r8, r7, r8
        sxtab16 r10, r7, r10
        strd    r8, r10, [r3], #8
        ldr     r12, [sp, #END]
        cmp     r0, r12
        bne     1b
        ldm     sp, {r8-r12, lr}
        cmp     r9, #0
        bne     4f
2:      add     r8, r8, r10
        add     r0, r0, r11
        add     r1, r1, r12
        add     r2, r2, r12
        add     r3, r3, r12
        add     r4, r4, r12
        subs    lr, lr, #1
        str     r8, [sp, #END]
        str     lr, [sp, #20]
        bne     1b
        add     sp, sp, #FRAME
        pop     {r4-r11, pc}
@ The last one to three pixels of a row.
4:
        .if     \split
        .irp    to, 0, 4, 2
        ldr     r8, [r0]
        add     r0, r0, r5
        sxtab16 r10, r7, r8
        sxtab16 r11, r7, r8, ror #8
        strh    r10, [r1, #\to]
        strh    r11, [r2, #\to]
        lsr     r10, r10, #16
        lsr     r11, r11, #16
        strh    r10, [r3, #\to]
        strh    r11, [r4, #\to]
        subs    r9, r9, #1
        beq     5f
        .endr
5:      .irp    r, 1, 2, 3, 4
        adds    r\r, r\r, #8
        .endr
        .else
        ldr     r8, [r0]
        add     r0, r0, r5
        sxtab16 r10, r7, r8
        sxtab16 r11, r7, r8, ror #8
        strh    r10, [r1], #2
        strh    r11, [r2], #2
        lsr     r10, r10, #16
        lsr     r11, r11, #16
        strh    r10, [r3], #2
        strh    r11, [r4], #2
        subs    r9, r9, #1
        bne     4b
        .endif
        ldm     sp, {r8-r12, lr}
        b       2b
        .endm

@ void tte_copy_channel(const tte_copy *copy)
        function tte_copy_channel
        copy_channel 0
        .size   tte_copy_channel, . - tte_copy_channel

@ void tte_copy_four_channels(const tte_copy *copy)
        function tte_copy_four_channels
        copy_four_channels 0
        .size   tte_copy_four_channels, . - tte_copy_four_channels

@ The same for a stride of 2: tte_taps.h.
        function tte_taps_split_channel
        copy_channel 1
        .size   tte_taps_split_channel, . - tte_taps_split_channel

        function tte_taps_split_four_channels
        copy_four_channels 1
        .size   tte_taps_split_four_channels, . - tte_taps_split_four_channels

@ void tte_clear_words(void *to, uint32_t words)
        function tte_clear_words
        push    {r4-r8, lr}
        movs    r2, #0
        .irp    r, 3, 4, 5, 6, 7, 8, 12
        mov     r\r, r2
        .endr
        subs    r1, r1, #8
        blt     2f
1:      stm     r0!, {r2-r8, r12}
        subs    r1, r1, #8
        bge     1b
2:      adds    r1, r1, #8
        beq     4f
3:      str     r2, [r0], #4
        subs    r1, r1, #1
        bne     3b
4:      pop     {r4-r8, pc}
        .size   tte_clear_words, . - tte_clear_words

@ void tte_move_words(void *to, const void *from, uint32_t words)
        function tte_move_words
        push    {r4-r10, lr}
        subs    r2, r2, #8
        blt     2f
1:      ldm     r1!, {r3-r10}
        stm     r0!, {r3-r10}
        subs    r2, r2, #8
        bge     1b
2:      adds    r2, r2, #8
        beq     4f
3:      ldr     r3, [r1], #4
        str     r3, [r0], #4
        subs    r2, r2, #1
        bne     3b
4:      pop     {r4-r10, pc}
        .size   tte_move_words, . - tte_move_words
