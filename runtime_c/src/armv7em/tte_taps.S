/* SPDX-License-Identifier: Apache-2.0
 *
 * Sums of a depthwise weight gradient, for one kernel row after the other:
 *   sum[tap] = sum over rows and gradients g of a block: gradient[g] * x[g + tap]
 * Four gradients are three pairs: SMLAD multiplies (0, 1) and (2, 3) with inputs from an even
 * element on; from an odd one on SMLABT gradient 0, SMLADX (2, 1), SMLATB gradient 3. tte_taps.h
 * has the layouts, tests/shim/tte_taps.c says the same in C.
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
        product (\first), \word, \x, r4
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

@ Of stride 2: r2 = word number \word of the even columns, r3 = of the odd ones
        .macro  split_3 first, word
        product (\first + 1), \word, r3, r4
        product (\first + 2), \word, r2, r5
        product (\first + 2), \word, r3, r6
        .endm

        .macro  split_5 first, word
        product (\first + 1), \word, r2, r4
        product (\first + 1), \word, r3, r5
        product (\first + 2), \word, r2, r6
        product (\first + 2), \word, r3, r7
        product (\first + 3), \word, r2, r8
        .endm

        .macro  split_7 first, word
        product (\first), \word, r3, r4
        product (\first + 1), \word, r2, r5
        product (\first + 1), \word, r3, r6
        product (\first + 2), \word, r2, r7
        product (\first + 2), \word, r3, r8
        product (\first + 3), \word, r2, r9
        product (\first + 3), \word, r3, r10
        .endm

@ ---- rows of four ----------------------------------------------------------------------------

@ void tte_taps_near_3(planes, rows, end, sums, blocks)
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

@ The frame: seven zeros, what the block asks for and the arguments.
        .equ    STEP, 28                @ from a pair of rows to the next
        .equ    END, 32                 @ of the gradients
        .equ    BLOCKS, 36
        .equ    BLOCK_BYTES, 40
        .equ    LEFT, 44                @ blocks
        .equ    MORE, 48                @ bytes from the first block to this one
        .equ    PLANES, 52
        .equ    ROWS, 56
        .equ    SUMS, 64
        .equ    FRAME, 68               @ and the saved registers

        .macro  begin
        push    {r0-r11, lr}
        movs    r4, #0
        .irp    r, 5, 6, 7, 8, 9, 10
        mov     r\r, r4
        .endr
        sub     sp, sp, #PLANES
        stm     sp, {r4-r10}
        .endm

        .macro  begin_blocks less
        begin
        ldr     r11, [sp, #FRAME + 36]
        ldm     r11, {r0, r2, r3}
        .if     \less
        subs    r0, r0, #\less
        .endif
        str     r0, [sp, #STEP]
        strd    r2, r3, [sp, #BLOCKS]
        strd    r2, r4, [sp, #LEFT]
        .endm

@ The next kernel row: r1 = rows, r11 becomes the end of its gradients
        .macro  begin_row last
        ldm     r1!, {r2, r3, r11}
        ldr     r12, [sp, #PLANES]
        str     r1, [sp, #ROWS]
        add     r0, r2, r12
        add     r1, r3, r12
        add     r11, r11, r1
        ldm     sp, {r4-r\last}
        .endm

        .macro  end_row begin, last
        ldr     r3, [sp, #SUMS]
        ldrd    r1, r2, [sp, #ROWS]
        stm     r3!, {r4-r\last}
        str     r3, [sp, #SUMS]
        cmp     r1, r2
        bne     \begin
        add     sp, sp, #FRAME
        pop     {r4-r11, pc}
        .endm

        function tte_taps_near_5
        begin
1:      begin_row 8
        mov     r9, r11
2:      ldrd    r2, r3, [r0], #8
        load_gradients
        taps_5  -2, 0, r2
        taps_5  -2, 1, r3
        cmp     r1, r9
        bne     2b
        end_row 1b, 8
        .size   tte_taps_near_5, . - tte_taps_near_5

        function tte_taps_near_7
        begin
1:      begin_row 10
        str     r11, [sp, #END]
2:      ldrd    r2, r3, [r0], #8
        load_gradients
        taps_7  -3, 0, r2
        taps_7  -3, 1, r3
        ldr     r2, [sp, #END]
        cmp     r1, r2
        bne     2b
        end_row 1b, 10
        .size   tte_taps_near_7, . - tte_taps_near_7

@ Every second row.
        .macro  near_split taps, last
        begin
1:      begin_row \last
        .if     \last < 9
        mov     r9, r11
        .else
        str     r11, [sp, #END]
        .endif
2:      ldrd    r2, r3, [r0], #8
        load_gradients
        \taps   -2, 0
        ldrd    r2, r3, [r0], #24
        \taps   -2, 1
        .if     \last < 9
        cmp     r1, r9
        .else
        ldr     r2, [sp, #END]
        cmp     r1, r2
        .endif
        bne     2b
        end_row 1b, \last
        .endm

        function tte_taps_near_3_2
        near_split split_3, 6
        .size   tte_taps_near_3_2, . - tte_taps_near_3_2

        function tte_taps_near_5_2
        near_split split_5, 8
        .size   tte_taps_near_5_2, . - tte_taps_near_5_2

        function tte_taps_near_7_2
        near_split split_7, 10
        .size   tte_taps_near_7_2, . - tte_taps_near_7_2

@ ---- rows of blocks of eight -----------------------------------------------------------------

@ The next block of the kernel row, and Z = 0, or Z = 1 behind the last one. r1 = end of the
@ gradients; r0 = bytes from a block of inputs to the next
        function tte_taps_next_block
        ldr     r2, [sp, #LEFT]
        subs    r2, r2, #1
        beq     1f
        str     r2, [sp, #LEFT]
        ldr     r3, [sp, #MORE]
        add     r3, r3, r0
        str     r3, [sp, #MORE]
        ldr     r2, [sp, #ROWS]
        ldr     r11, [sp, #BLOCK_BYTES]
        ldr     r0, [r2, #-12]
        ldr     r12, [r2, #-4]
        ldr     r2, [sp, #PLANES]
        add     r0, r0, r3
        add     r0, r0, r2
        sub     r12, r11, r12
        add     r1, r1, r12
        ldr     r2, [sp, #END]
        adds    r2, r2, r11
        str     r2, [sp, #END]
        bx      lr
1:      ldr     r3, [sp, #BLOCKS]
        str     r3, [sp, #LEFT]
        str     r2, [sp, #MORE]
        bx      lr
        .size   tte_taps_next_block, . - tte_taps_next_block

        .macro  end_blocks rows, begin, last, bytes
        ldr     r2, [sp, #BLOCKS]
        cmp     r2, #1
        bne     4f
3:      end_row \begin, \last
4:      movs    r0, #\bytes
        bl      tte_taps_next_block
        bne     \rows
        b       3b
        .endm

@ void tte_taps_3(planes, rows, end, sums, blocks)
        function tte_taps_3
        begin_blocks 16
1:      begin_row 6
        str     r11, [sp, #END]
5:      ldrd    r3, r2, [sp, #STEP]
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
        end_blocks 5b, 1b, 6, 16
        .size   tte_taps_3, . - tte_taps_3

        function tte_taps_5
        begin_blocks 16
1:      begin_row 8
        str     r11, [sp, #END]
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
        end_blocks 2b, 1b, 8, 16
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
        begin_blocks 0
1:      begin_row 10
        str     r11, [sp, #END]
2:      four_7  0
        four_7  8
        ldrd    r2, r3, [sp, #STEP]
        add     r0, r0, r2
        cmp     r1, r3
        bne     2b
        end_blocks 2b, 1b, 10, 16
        .size   tte_taps_7, . - tte_taps_7

        .macro  four_split taps, words, place
        load_gradients
        .irp    word, 0, 1, 2, 3
        .if     \word < \words
        ldrd    r2, r3, [r0, #\place + 8 * \word]
        \taps   0, \word
        .endif
        .endr
        .endm

        .macro  split taps, last, words
        begin_blocks 0
1:      begin_row \last
        str     r11, [sp, #END]
2:      four_split \taps, \words, 0
        four_split \taps, \words, 16
        ldrd    r2, r3, [sp, #STEP]
        add     r0, r0, r2
        cmp     r1, r3
        bne     2b
        end_blocks 2b, 1b, \last, 32
        .endm

        function tte_taps_3_2
        split   split_3, 6, 3
        .size   tte_taps_3_2, . - tte_taps_3_2

        function tte_taps_5_2
        split   split_5, 8, 4
        .size   tte_taps_5_2, . - tte_taps_5_2

        function tte_taps_7_2
        split   split_7, 10, 4
        .size   tte_taps_7_2, . - tte_taps_7_2
