/* SPDX-License-Identifier: Apache-2.0
 *
 * Sums of a depthwise weight gradient, for one kernel row after the other:
 *   sum[tap] = sum over rows and gradients g of a block: gradient[g] * x[g + tap]
 * Four gradients are three pairs: SMLAD multiplies (0, 1) and (2, 3) with inputs from an even
 * element on; from an odd one on SMLABT gradient 0, SMLADX (2, 1), SMLATB gradient 3. tte_taps.h has
 * the layouts, tests/shim/tte_taps.c says the same in C.
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

@ The next four gradients: r11, r12 and lr, which is (2, 1)
        .macro  load_gradients
        ldrd    r11, r12, [r1], #8
        pkhbt   lr, r12, r11
        .endm

@ \sum += the products of gradients with word number \word of the inputs, where gradient 0 belongs
@ to element \tap
        .macro  product tap, word, x, sum
        .if     \tap == 2 * \word
        smlad   \sum, r11, \x, \sum
        .endif
        .if     \tap == 2 * \word - 2
        smlad   \sum, r12, \x, \sum
        .endif
        .if     \tap == 2 * \word + 1
        smlabt  \sum, r11, \x, \sum
        .endif
        .if     \tap == 2 * \word - 1
        smladx  \sum, lr, \x, \sum
        .endif
        .if     \tap == 2 * \word - 3
        smlatb  \sum, r12, \x, \sum
        .endif
        .endm

@ The same for neighbouring taps.
        .macro  taps_3 first, word, x
        product \first, \word, \x, r4
        product (\first + 1), \word, \x, r5
        product (\first + 2), \word, \x, r6
        .endm

        .macro  taps_5 first, word, x
        taps_3  \first, \word, \x
        product (\first + 3), \word, \x, r7
        product (\first + 4), \word, \x, r8
        .endm

        .macro  taps_7 first, word, x
        taps_5  \first, \word, \x
        product (\first + 5), \word, \x, r9
        product (\first + 6), \word, \x, r10
        .endm

@ ---- 3 taps: pointers stay in registers ------------------------------------------------------

@ void tte_taps_near_3(planes, rows, end, sums, step)
@ r10 = planes, r2 = rows, r9 = end of the gradients
        function tte_taps_near_3
        push    {r2, r4-r11, lr}
        mov     r10, r0
        mov     r2, r1
1:      ldm     r2!, {r0, r1, r9}
        add     r0, r0, r10
        add     r1, r1, r10
        add     r9, r9, r1
        movs    r4, #0
        movs    r5, #0
        movs    r6, #0
2:      ldrd    r7, r8, [r0], #8
        load_gradients
        taps_3  -1, 0, r7
        taps_3  -1, 1, r8
        cmp     r1, r9
        bne     2b
        ldr     r0, [sp]
        stm     r3!, {r4-r6}
        cmp     r2, r0
        bne     1b
        pop     {r2, r4-r11, pc}
        .size   tte_taps_near_3, . - tte_taps_near_3

@ void tte_taps_3(planes, rows, end, sums, step)
@ The frame is the arguments. r2 = end of the gradients, r3 = step
        function tte_taps_3
        push    {r0-r11, lr}
        ldr     r3, [sp, #52]
        subs    r3, r3, #16
1:      ldm     r1!, {r7-r9}
        ldr     r10, [sp]
        str     r1, [sp, #4]
        add     r0, r7, r10
        add     r1, r8, r10
        add     r2, r9, r1
        movs    r4, #0
        movs    r5, #0
        movs    r6, #0
2:      ldm     r0!, {r7-r10}
        load_gradients
        taps_3  1, 0, r7
        taps_3  1, 1, r8
        taps_3  1, 2, r9
        taps_3  1, 3, r10
        ldrd    r7, r8, [r0]
        load_gradients
        taps_3  1, 0, r9
        taps_3  1, 1, r10
        taps_3  1, 2, r7
        taps_3  1, 3, r8
        add     r0, r0, r3
        cmp     r1, r2
        bne     2b
        ldr     r7, [sp, #12]
        ldrd    r1, r2, [sp, #4]
        stm     r7!, {r4-r6}
        str     r7, [sp, #12]
        cmp     r1, r2
        bne     1b
        add     sp, sp, #16
        pop     {r4-r11, pc}
        .size   tte_taps_3, . - tte_taps_3

@ ---- more taps -------------------------------------------------------------------------------

@ The frame: seven zeros, and the arguments.
        .equ    STEP, 28
        .equ    END, 32                 @ of the gradients
        .equ    PLANES, 36
        .equ    ROWS, 40
        .equ    SUMS, 48

        .macro  begin less
        push    {r0-r11, lr}
        ldr     r11, [sp, #52]
        .if     \less
        sub     r11, r11, #\less
        .endif
        movs    r4, #0
        .irp    r, 5, 6, 7, 8, 9, 10
        mov     r\r, r4
        .endr
        push    {r4-r12}
        .endm

@ The next kernel row: r1 = rows
        .macro  begin_row last
        ldm     r1!, {r2, r3, r11}
        ldr     r12, [sp, #PLANES]
        str     r1, [sp, #ROWS]
        add     r0, r2, r12
        add     r1, r3, r12
        add     r11, r11, r1
        str     r11, [sp, #END]
        ldm     sp, {r4-r\last}
        .endm

        .macro  end_row begin, last
        ldr     r3, [sp, #SUMS]
        ldrd    r1, r2, [sp, #ROWS]
        stm     r3!, {r4-r\last}
        str     r3, [sp, #SUMS]
        cmp     r1, r2
        bne     \begin
        add     sp, sp, #52
        pop     {r4-r11, pc}
        .endm

        .macro  near taps, last, first
        begin   0
1:      begin_row \last
2:      ldrd    r2, r3, [r0], #8
        load_gradients
        \taps   \first, 0, r2
        \taps   \first, 1, r3
        ldr     r2, [sp, #END]
        cmp     r1, r2
        bne     2b
        end_row 1b, \last
        .endm

        function tte_taps_near_5
        near    taps_5, 8, -2
        .size   tte_taps_near_5, . - tte_taps_near_5

        function tte_taps_near_7
        near    taps_7, 10, -3
        .size   tte_taps_near_7, . - tte_taps_near_7

@ Even columns have taps 1, 3 and 5, odd ones the others.
        .macro  even_taps word, x
        product -1, \word, \x, r5
        product 0, \word, \x, r7
        product 1, \word, \x, r9
        .endm

        .macro  odd_taps word, x
        product -2, \word, \x, r4
        product -1, \word, \x, r6
        product 0, \word, \x, r8
        product 1, \word, \x, r10
        .endm

        function tte_taps_near_7_2
        begin   0
1:      begin_row 10
2:      ldrd    r2, r3, [r0], #8
        load_gradients
        even_taps 0, r2
        even_taps 1, r3
        ldrd    r2, r3, [r0], #8
        odd_taps 0, r2
        odd_taps 1, r3
        ldr     r2, [sp, #END]
        cmp     r1, r2
        bne     2b
        end_row 1b, 10
        .size   tte_taps_near_7_2, . - tte_taps_near_7_2

        function tte_taps_5
        begin   16
1:      begin_row 8
2:      ldm     r0!, {r2, r3, r9, r10}
        load_gradients
        taps_5  0, 0, r2
        taps_5  0, 1, r3
        taps_5  0, 2, r9
        taps_5  0, 3, r10
        ldrd    r2, r3, [r0]
        load_gradients
        taps_5  0, 0, r9
        taps_5  0, 1, r10
        taps_5  0, 2, r2
        taps_5  0, 3, r3
        ldrd    r2, r3, [sp, #STEP]
        add     r0, r0, r2
        cmp     r1, r3
        bne     2b
        end_row 1b, 8
        .size   tte_taps_5, . - tte_taps_5

@ Four gradients; their first tap's word is \place bytes from r0 on.
        .macro  four_7 place
        ldrd    r2, r3, [r0, #\place]
        load_gradients
        taps_7  1, 0, r2
        taps_7  1, 1, r3
        ldrd    r2, r3, [r0, #\place + 8]
        taps_7  1, 2, r2
        taps_7  1, 3, r3
        ldrd    r2, r3, [r0, #\place + 16]
        taps_7  1, 4, r2
        taps_7  1, 5, r3
        .endm

        function tte_taps_7
        begin   0
1:      begin_row 10
2:      four_7  0
        four_7  8
        ldrd    r2, r3, [sp, #STEP]
        add     r0, r0, r2
        cmp     r1, r3
        bne     2b
        end_row 1b, 10
        .size   tte_taps_7, . - tte_taps_7
