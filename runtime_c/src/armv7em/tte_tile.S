/* SPDX-License-Identifier: Apache-2.0
 *
 * The inner product of 2 rows of weights and 4 rows of x, tile after tile of x:
 *   sum[row][column] = start[row] + sum over k of weight[k][row] * x[tile][k][column]
 * as int32, or as int8 after requantize() with the full range; gradients of 4 columns of weights; and
 * what widens int8 rows and columns for it. tte_tile.h has the layouts and the prototypes,
 * tests/shim/tte_tile.c says the same in C.
 *
 * Eight sums, two words of weights, two of x and two pointers are all 14 registers: 11
 * instructions for 16 products, and 3 for the loop every 256 or, in plain sums and gradients, 512.
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

@ Two k of 2 x 4 products; the next weights of the two rows are so many bytes on.
        .macro  pair weights_step=8
        ldrd    r12, lr, [r1], #\weights_step
        ldrd    r2, r3, [r0], #8
        smlad   r4, r12, r2, r4
        smlad   r8, lr, r2, r8
        smlad   r5, r12, r3, r5
        smlad   r9, lr, r3, r9
        ldrd    r2, r3, [r0], #8
        smlad   r6, r12, r2, r6
        smlad   r10, lr, r2, r10
        smlad   r7, r12, r3, r7
        smlad   r11, lr, r3, r11
        .endm

        .equ    PAIR_BYTES, 44

@ The frame: first the arguments r1, r2 and r3, then room for r0 or, with sums, their end, and where
@ the loop is entered; behind the saved registers the other arguments.
        .equ    WEIGHT, 0
        .equ    WEIGHT_END, 4
        .equ    OUTPUT, 8
        .equ    NEXT, 12
        .equ    ENTRY, 16
        .equ    FRAME, 20
        .equ    OUTPUT_END, FRAME + 36
        .equ    OUT_C, FRAME + 40
        .equ    MASK, FRAME + 44
        .equ    BIT, FRAME + 48

@ One turn is so many pairs; the first leaves out those that there are too many.
        .macro  enter pairs=16
        push    {r4-r11, lr}
        sub     sp, sp, #FRAME
        strd    r1, r2, [sp, #WEIGHT]
        str     r3, [sp, #OUTPUT]
        subs    r2, r1, r2              @ -(32 + 8 * pairs)
        asrs    r2, r2, #3
        adds    r2, r2, #4
        and     r2, r2, #\pairs - 1
        movs    r3, #PAIR_BYTES
        adr     r12, 2f
        mla     r2, r2, r3, r12
        adds    r2, r2, #1              @ Thumb
        str     r2, [sp, #ENTRY]
        .endm

@ r4-r7, r8-r11 = the sums of the next tile; r1 = behind the weights.
        .macro  multiply pairs=16
1:      ldr     r1, [sp, #WEIGHT]
        ldm     r1!, {r4-r11}
        ldr     pc, [sp, #ENTRY]
        .p2align 2
2:      .rept   \pairs
        pair
        .endr
        ldr     r2, [sp, #WEIGHT_END]
        cmp     r1, r2
        bne     2b
        .endm

        .macro  leave
        add     sp, sp, #FRAME
        pop     {r4-r11, pc}
        .endm

@ void tte_tile_2x4(x, weight, weight_end, sums, sums_end)
        function tte_tile_2x4
        enter   32
        ldr     r2, [sp, #OUTPUT_END]
        str     r2, [sp, #NEXT]
        multiply 32
        ldrd    r2, r3, [sp, #OUTPUT]
        stm     r2!, {r4-r11}
        str     r2, [sp, #OUTPUT]
        cmp     r2, r3
        bne     1b
        leave
        .size   tte_tile_2x4, . - tte_tile_2x4

@ Four pixels of two int8 to r1 on, r3 apart.
        .macro  store
        bfi     r4, r8, #8, #8
        bfi     r5, r9, #8, #8
        bfi     r6, r10, #8, #8
        bfi     r7, r11, #8, #8
        ldr     r1, [sp, #OUTPUT]
        ldrd    r2, r3, [sp, #OUTPUT_END]
        strh    r4, [r1]
        strh    r5, [r1, r3]
        add     r1, r1, r3, lsl #1
        strh    r6, [r1]
        strh    r7, [r1, r3]
        add     r1, r1, r3, lsl #1
        str     r1, [sp, #OUTPUT]
        cmp     r1, r2
        .endm

@ The multipliers of the two rows and the output zero point lie behind the weights.
        .macro  requantize
        ldm     r1, {r2, r3, r12}
        .irp    r, 4, 5, 6, 7
        smmlar  r\r, r\r, r2, r12
        .endr
        .irp    r, 8, 9, 10, 11
        smmlar  r\r, r\r, r3, r12
        .endr
        .endm

@ void tte_tile_2x4_int8(x, weight, weight_end, y, y_end, out_c)
        function tte_tile_2x4_int8
        enter
        multiply
        requantize
        .irp    r, 4, 5, 6, 7, 8, 9, 10, 11
        ssat    r\r, #8, r\r
        .endr
        store
        bne     1b
        leave
        .size   tte_tile_2x4_int8, . - tte_tile_2x4_int8

@ \a, \b clamped to r1; the bits of the mask at r2 where they are not.
        .macro  activate a, b
        ldrb    r12, [r2]
        ssat    lr, #8, \a
        cmp     lr, \a
        it      eq
        orreq   r12, r12, r3
        ssat    \a, #8, \b
        cmp     \a, \b
        it      eq
        orreq   r12, r12, r3, lsl #1
        strb    r12, [r2]
        add     r2, r2, r0, lsr #3
        bfi     lr, \a, #8, #8
        strh    lr, [r1]
        add     r1, r1, r0
        .endm

@ void tte_tile_2x4_masked_int8(x, weight, weight_end, y, y_end, out_c, mask, bit)
        function tte_tile_2x4_masked_int8
        enter
        multiply
        requantize
        str     r0, [sp, #NEXT]
        ldr     r0, [sp, #OUT_C]
        ldr     r1, [sp, #OUTPUT]
        ldrd    r2, r3, [sp, #MASK]
        activate r4, r8
        activate r5, r9
        activate r6, r10
        activate r7, r11
        ldr     r0, [sp, #NEXT]
        ldr     r3, [sp, #OUTPUT_END]
        str     r1, [sp, #OUTPUT]
        str     r2, [sp, #MASK]
        cmp     r1, r3
        bne     1b
        leave
        .size   tte_tile_2x4_masked_int8, . - tte_tile_2x4_masked_int8

@ ---- gradients: four columns of weights -------------------------------------------------------
@ A tile of x meets the first two columns, then the other two, so that at last four channels of a
@ pixel are a word. Until the last step a gradient is stored 127 above what it is: USAT clamps that
@ to 0 .. 255 and leaves in the Q flag whether it had to, UQADD8 1 clamps to 1 .. 255, and USADA8
@ sees by the sum of the differences, which are 1 for all but 255, whether that was needed. SEL takes
@ a byte where the mask bit, one of the GE flags, is 1.

        .equ    PLAIN, 0
        .equ    ADDED, 1
        .equ    ONLY_SUMS, 2

@ The frame: zeros that the sums start with; four pixels of each column before they are clamped, and
@ of the first two columns after that; the tte_grad_tiles struct; the four multipliers, where the loop
@ is entered, the third column, and two registers of the modes that are not plain.
        .equ    VALUES, 32
        .equ    CLAMPED, 96
        .equ    TILES, 112
        .equ    X, TILES
        .equ    COLUMNS, TILES + 4
        .equ    COLUMNS_END, TILES + 8
        .equ    COUNTED, TILES + 12
        .equ    TO, TILES + 16
        .equ    STEP, TILES + 20
        .equ    TO_END, TILES + 24
        .equ    BITS, TILES + 28
        .equ    BITS_STEP, TILES + 32
        .equ    BITS_SHIFT, TILES + 36
        .equ    MODE, TILES + 40
        .equ    PRE_SHIFT, TILES + 44
        .equ    ADDENDS, TILES + 52
        .equ    ADDEND_FACTORS, TILES + 56
        .equ    SUMS, TILES + 60
        .equ    FACTORS, TILES + 64
        .equ    START, TILES + 80
        .equ    THIRD, TILES + 84
        .equ    BACK, TILES + 88
        .equ    COLUMN, TILES + 92
        .equ    GRAD_FRAME, TILES + 96

@ r4..r11, gradients of two columns, from their sums and the columns' multipliers at \from.
        .macro  round_grads from:vararg
        ldrd    r2, r3, [\from]
        mov     r12, #127
        .irp    r, 4, 5, 6, 7
        smmlar  r\r, r\r, r2, r12
        .endr
        .irp    r, 8, 9, 10, 11
        smmlar  r\r, r\r, r3, r12
        .endr
        .endm

        .macro  requantise_grads factors, otherwise
        ldr     r2, [sp, #MODE]
        cmp     r2, #PLAIN
        bne     \otherwise
        round_grads sp, #\factors
        .endm

@ Keeps r4..r11; r4..r7 = four pixels of two columns, clamped.
        .macro  clamp_grads values
        add     r2, sp, #\values
        stm     r2, {r4-r11}
        .irp    r, 4, 5, 6, 7, 8, 9, 10, 11
        usat    r\r, #8, r\r
        .endr
        orr     r4, r4, r8, lsl #8
        orr     r5, r5, r9, lsl #8
        orr     r6, r6, r10, lsl #8
        orr     r7, r7, r11, lsl #8
        .endm

@ Gradients of column number r3 from its sums and its addends, shifted left by pre_shift; rounded
@ once.
        .macro  add_scaled a, b, c, d
        ldr     r0, [sp, #ADDENDS]
        ldr     r1, [sp, #ADDEND_FACTORS]
        add     r2, sp, #FACTORS
        add     r0, r0, r3
        ldr     r2, [r2, r3, lsl #2]
        ldr     r3, [r1, r3, lsl #2]
        ldr     r1, [sp, #PRE_SHIFT]
        ldrsb   lr, [r0]
        round_scaled \a
        ldr     r12, [sp, #STEP]
        ldrsb   lr, [r0, r12]
        add     r0, r0, r12, lsl #1
        round_scaled \b
        ldrsb   lr, [r0]
        round_scaled \c
        ldr     r12, [sp, #STEP]
        ldrsb   lr, [r0, r12]
        round_scaled \d
        .endm

@ \sum * r2 + lr * r3, both shifted left by r1.
        .macro  round_scaled sum
        lsl     lr, lr, r1
        lsl     \sum, \sum, r1
        smull   r12, lr, lr, r3
        smlal   r12, lr, \sum, r2
        add     \sum, lr, r12, lsr #31
        add     \sum, \sum, #127
        .endm

@ void tte_tile_4x4_grad(const tte_grad_tiles *tiles)
        function tte_tile_4x4_grad
        push    {r4-r11, lr}
        sub     sp, sp, #GRAD_FRAME
        add     r9, sp, #TILES
        ldm     r0!, {r1-r8}
        stm     r9!, {r1-r8}
        add     r10, r2, #8
        subs    r11, r2, r3             @ -16 * pairs
        ldm     r0, {r1-r8}
        stm     r9!, {r1-r8}
        ldm     r5, {r1-r4}             @ multipliers
        asrs    r11, r11, #4
        and     r11, r11, #31           @ left out in the first turn
        movs    r6, #PAIR_BYTES
        adr     r5, 2f
        mla     r5, r11, r6, r5
        adds    r5, r5, #1              @ Thumb
        mov     r6, r10
        stm     r9, {r1-r6}
        movs    r4, #0
        movs    r5, #0
        .irp    at, 0, 8, 16, 24
        strd    r4, r5, [sp, #\at]
        .endr
        msr     APSR_nzcvq, r4
@ The next tile.
1:      ldr     r0, [sp, #X]
        ldr     r1, [sp, #COLUMNS]
        ldm     sp, {r4-r11}
        ldr     pc, [sp, #START]
        .p2align 2
2:      .rept   32
        pair    16
        .endr
        ldr     r2, [sp, #COLUMNS_END]
        cmp     r1, r2
        blo     2b
        bne     4f
@ Two columns, and on to the others, which end 8 bytes later.
        requantise_grads FACTORS, 7f
3:      clamp_grads VALUES
        strd    r4, r5, [sp, #CLAMPED]
        strd    r6, r7, [sp, #CLAMPED + 8]
        ldr     r0, [sp, #X]
        ldr     r1, [sp, #THIRD]
        ldm     sp, {r4-r11}
        ldr     pc, [sp, #START]
@ r4..r7 = four columns of a pixel each, in the end.
4:      str     r0, [sp, #X]
        requantise_grads FACTORS + 8, 8f
5:      clamp_grads VALUES + 32
        ldrd    r0, r1, [sp, #CLAMPED]
        ldrd    r2, r3, [sp, #CLAMPED + 8]
        orr     r4, r0, r4, lsl #16
        orr     r5, r1, r5, lsl #16
        orr     r6, r2, r6, lsl #16
        orr     r7, r3, r7, lsl #16
        mov     r8, #0x01010101
        mvn     r12, #15
        uqadd8  r0, r4, r8
        uqadd8  r1, r5, r8
        uqadd8  r2, r6, r8
        uqadd8  r3, r7, r8
        usada8  r12, r0, r4, r12
        usada8  r12, r1, r5, r12
        usada8  r12, r2, r6, r12
        usada8  r12, r3, r7, r12
        .irp    r, 0, 1, 2, 3
        eor     r\r, r\r, #0x80808080
        .endr
@ The mask.
        ldrd    r4, r5, [sp, #BITS]
        ldr     r6, [sp, #BITS_SHIFT]
        movs    r7, #0
        ldrb    r8, [r4]
        ldrb    r9, [r4, r5]
        add     r4, r4, r5, lsl #1
        ldrb    r10, [r4]
        ldrb    r11, [r4, r5]
        add     r4, r4, r5, lsl #1
        str     r4, [sp, #BITS]
        .irp    r, 8, 9, 10, 11
        lsl     r\r, r\r, r6
        .endr
        msr     APSR_g, r8
        sel     r0, r0, r7
        msr     APSR_g, r9
        sel     r1, r1, r7
        msr     APSR_g, r10
        sel     r2, r2, r7
        msr     APSR_g, r11
        sel     r3, r3, r7
        ldrd    r8, r9, [sp, #TO]
        str     r0, [r8]
        str     r1, [r8, r9]
        add     r8, r8, r9, lsl #1
        str     r2, [r8]
        str     r3, [r8, r9]
        add     r8, r8, r9, lsl #1
        str     r8, [sp, #TO]
        mrs     r0, APSR
        and     r0, r0, #1 << 27
        orrs    r0, r0, r12
        bne     9f
6:      ldr     r1, [sp, #TO_END]
        cmp     r8, r1
        bne     1b
        add     sp, sp, #GRAD_FRAME
        pop     {r4-r11, pc}
@ What the other modes do to the sums of two columns, of number r3 and the next one.
7:      movs    r3, #0
        bl      10f
        b       3b
8:      movs    r3, #2
        bl      10f
        ldr     r0, [sp, #ADDENDS]
        ldr     r1, [sp, #STEP]
        ldr     r2, [sp, #SUMS]
        add     r0, r0, r1, lsl #2
        adds    r2, r2, #64
        str     r0, [sp, #ADDENDS]
        str     r2, [sp, #SUMS]
        ldr     r0, [sp, #MODE]
        cmp     r0, #ONLY_SUMS
        bne     5b
        ldr     r8, [sp, #TO]
        add     r8, r8, r1, lsl #2
        str     r8, [sp, #TO]
        b       6b
10:     strd    lr, r3, [sp, #BACK]
        cmp     r2, #ADDED
        beq     12f
@ lr = the sums so far of these columns
        ldr     lr, [sp, #SUMS]
        add     lr, lr, r3, lsl #4
        ldm     lr, {r0, r1, r3, r12}
        add     r4, r4, r0
        add     r5, r5, r1
        add     r6, r6, r3
        add     r7, r7, r12
        add     r0, lr, #16
        ldm     r0, {r0, r1, r3, r12}
        add     r8, r8, r0
        add     r9, r9, r1
        add     r10, r10, r3
        add     r11, r11, r12
        cmp     r2, #ONLY_SUMS
        bne     13f
        stm     lr, {r4-r11}
        ldr     pc, [sp, #BACK]
12:     add_scaled r4, r5, r6, r7
        ldr     r3, [sp, #COLUMN]
        adds    r3, r3, #1
        add_scaled r8, r9, r10, r11
        ldr     pc, [sp, #BACK]
13:     ldr     r3, [sp, #COLUMN]
        add     r2, sp, #FACTORS
        add     r2, r2, r3, lsl #2
        round_grads r2
        ldr     pc, [sp, #BACK]
@ Counts what does not fit of the tile; r4, r5 = mask behind it, its step; r6 = shift, r7 = 0
9:      msr     APSR_nzcvq, r7
        sub     r4, r4, r5, lsl #2
        ldr     r0, [sp, #COUNTED]
        ldr     r1, [r0]
        add     r2, sp, #VALUES
        add     r7, r2, #16
11:     ldrb    r9, [r4]
        add     r4, r4, r5
        lsl     r9, r9, r6
        .irp    column, 0, 1, 2, 3
        ldr     r10, [r2, #16 * \column]
        cmp     r10, #254
        ubfx    r10, r9, #16 + \column, #1
        it      hi
        addhi   r1, r1, r10
        .endr
        adds    r2, r2, #4
        cmp     r2, r7
        bne     11b
        str     r1, [r0]
        b       6b
        .size   tte_tile_4x4_grad, . - tte_tile_4x4_grad

@ Four words of int8 in r4..r7 to pairs at r12; the offset is in lr.
        .macro  widen_words
        sxtab16 r8, lr, r4
        sxtab16 r9, lr, r5
        sxtab16 r10, lr, r6
        sxtab16 r11, lr, r7
        stm     r12!, {r8-r11}
        sxtab16 r4, lr, r4, ror #8
        sxtab16 r5, lr, r5, ror #8
        sxtab16 r6, lr, r6, ror #8
        sxtab16 r7, lr, r7, ror #8
        stm     r12!, {r4-r7}
        .endm

@ void tte_widen_quads_4(const int8_t *const rows[4], offset, tile, tile_end)
        function tte_widen_quads_4
        push    {r4-r11, lr}
        mov     r12, r2
        mov     lr, r1
        push    {r3}
        ldm     r0, {r0-r3}
1:      ldr     r4, [r0], #4
        ldr     r5, [r1], #4
        ldr     r6, [r2], #4
        ldr     r7, [r3], #4
        widen_words
        ldr     r4, [sp]
        cmp     r12, r4
        bne     1b
        pop     {r3-r11, pc}
        .size   tte_widen_quads_4, . - tte_widen_quads_4

@ Four times \body, which has so many wide instructions and writes 2^\log2_bytes bytes from r2 on to
@ r3; the first turn leaves out those that there are too many.
        .macro  by_fours body, instructions, log2_bytes
        subs    r4, r2, r3
        asrs    r4, r4, #\log2_bytes
        and     r4, r4, #3
        movs    r5, #4 * \instructions
        adr     r6, 1f
        mla     r6, r4, r5, r6
        adds    r6, r6, #1              @ Thumb
        bx      r6
        .p2align 2
1:      .rept   4
        \body
        .endr
        cmp     r2, r3
        bne     1b
        .endm

        .macro  quad_of_rows
        ldr     r8, [r0], #4
        ldr     r9, [r1], #4
        sxtb16  r4, r8
        sxtb16  r5, r9
        sxtb16  r6, r8, ror #8
        sxtb16  r7, r9, ror #8
        stm.w   r2!, {r4-r7}
        .endm

@ void tte_widen_quads_2(const int8_t *row_0, const int8_t *row_1, pairs, pairs_end)
        function tte_widen_quads_2
        push    {r4-r9}
        by_fours quad_of_rows, 7, 4
        pop     {r4-r9}
        bx      lr
        .size   tte_widen_quads_2, . - tte_widen_quads_2

        .macro  quad_of_columns
        ldrh.w  r4, [r0]
        ldrh.w  r6, [r0, r1]
        ldrh.w  r5, [r0, r1, lsl #1]
        ldrh.w  r7, [r0, r9]
        add.w   r0, r0, r1, lsl #2
        pkhbt   r5, r4, r5, lsl #16
        pkhbt   r7, r6, r7, lsl #16
        sxtb16  r4, r5
        sxtb16  r5, r5, ror #8
        sxtb16  r6, r7
        sxtb16  r7, r7, ror #8
        stm.w   r2!, {r4-r7}
        .endm

@ void tte_widen_quads_columns_2(const int8_t *column, row_elems, pairs, pairs_end)
        function tte_widen_quads_columns_2
        push    {r4-r9}
        add     r9, r1, r1, lsl #1
        by_fours quad_of_columns, 12, 4
        pop     {r4-r9}
        bx      lr
        .size   tte_widen_quads_columns_2, . - tte_widen_quads_columns_2

@ Four rows of four columns; r1 is from a row to the next, r12 three times that, lr the offset.
        .macro  quad_of_four_columns
        ldr.w   r4, [r0]
        ldr     r8, [r0, r1]
        ldr     r6, [r0, r1, lsl #1]
        ldr     r10, [r0, r12]
        add.w   r0, r0, r1, lsl #2
        pkhbt   r5, r4, r6, lsl #16     @ columns 0, 1 of rows 0, 2
        pkhtb   r7, r6, r4, asr #16     @ columns 2, 3 of these
        pkhbt   r9, r8, r10, lsl #16
        pkhtb   r11, r10, r8, asr #16
        sxtab16 r4, lr, r5
        sxtab16 r5, lr, r5, ror #8
        sxtab16 r6, lr, r7
        sxtab16 r7, lr, r7, ror #8
        sxtab16 r8, lr, r9
        sxtab16 r9, lr, r9, ror #8
        sxtab16 r10, lr, r11
        sxtab16 r11, lr, r11, ror #8
        stm     r2!, {r4-r11}
        .endm

@ void tte_widen_quads_columns_4(const int8_t *column, row_elems, tile, tile_end, offset)
        function tte_widen_quads_columns_4
        push    {r4-r11, lr}
        ldr     lr, [sp, #36]
        add     r12, r1, r1, lsl #1
        by_fours quad_of_four_columns, 18, 5
        pop     {r4-r11, pc}
        .size   tte_widen_quads_columns_4, . - tte_widen_quads_columns_4

@ void tte_widen_quads_column(const int8_t *column, row_elems, tile, tile_end)
        function tte_widen_quads_column
        push    {r4-r7}
        add     r12, r1, r1, lsl #1
1:      ldrsb   r4, [r0]
        ldrsb   r5, [r0, r1]
        ldrsb   r6, [r0, r1, lsl #1]
        ldrsb   r7, [r0, r12]
        add     r0, r0, r1, lsl #2
        pkhbt   r4, r4, r6, lsl #16
        pkhbt   r5, r5, r7, lsl #16
        str     r4, [r2]
        str     r5, [r2, #16]
        adds    r2, r2, #32
        cmp     r2, r3
        bne     1b
        pop     {r4-r7}
        bx      lr
        .size   tte_widen_quads_column, . - tte_widen_quads_column

@ void tte_widen_tiles(x, row_elems, count, offset, tile, tiles_end)
@ The frame: end of the tile, its bytes, from behind four rows to the next ones.
        function tte_widen_tiles
        push    {r4-r11, lr}
        sub     sp, sp, #12
        mov     lr, r3
        ldr     r12, [sp, #12 + 36]
        lsl     r4, r2, #3
        rsb     r5, r2, r1, lsl #2
        strd    r4, r5, [sp, #4]
        add     r2, r0, r1, lsl #1
        add     r3, r2, r1
        add     r1, r0, r1
1:      ldr     r4, [sp, #4]
        add     r4, r4, r12
        str     r4, [sp]
2:      ldr     r4, [r0], #4
        ldr     r5, [r1], #4
        ldr     r6, [r2], #4
        ldr     r7, [r3], #4
        widen_words
        ldr     r4, [sp]
        cmp     r12, r4
        bne     2b
        ldr     r5, [sp, #8]
        ldr     r6, [sp, #12 + 40]
        add     r0, r0, r5
        add     r1, r1, r5
        add     r2, r2, r5
        add     r3, r3, r5
        cmp     r12, r6
        bne     1b
        add     sp, sp, #12
        pop     {r4-r11, pc}
        .size   tte_widen_tiles, . - tte_widen_tiles

@ Bytes \at on of four windows 6 bytes apart, from \row.
        .macro  windows_word row, at
        ldr     r4, [\row, #\at]
        ldr     r5, [\row, #\at + 6]
        ldr     r6, [\row, #\at + 12]
        ldr     r7, [\row, #\at + 18]
        widen_words
        .endm

@ The last \size bits of a row of the windows and the first ones of the next.
        .macro  windows_seam load, row, at, next, size
        \load  r4, [\row, #\at]
        \load  r5, [\row, #\at + 6]
        \load  r6, [\row, #\at + 12]
        \load  r7, [\row, #\at + 18]
        ldr     r8, [\next]
        ldr     r9, [\next, #6]
        ldr     r10, [\next, #12]
        ldr     r11, [\next, #18]
        orr     r4, r4, r8, lsl #\size
        orr     r5, r5, r9, lsl #\size
        orr     r6, r6, r10, lsl #\size
        orr     r7, r7, r11, lsl #\size
        widen_words
        .endm

@ void tte_widen_rgb_windows(x, row_elems, offset, tile, tiles_end)
        function tte_widen_rgb_windows
        push    {r4-r11, lr}
        mov     r12, r3
        mov     lr, r2
        add     r2, r0, r1, lsl #1
        add     r1, r0, r1
        ldr     r3, [sp, #36]
1:      windows_word r0, 0
        windows_word r0, 4
        windows_seam ldrb, r0, 8, r1, 8
        windows_word r1, 3
        windows_seam ldrh, r1, 7, r2, 16
        windows_word r2, 2
        windows_word r2, 6
        adds    r0, r0, #24
        adds    r1, r1, #24
        adds    r2, r2, #24
        cmp     r12, r3
        bne     1b
        pop     {r4-r11, pc}
        .size   tte_widen_rgb_windows, . - tte_widen_rgb_windows

@ r0 = to, r1 = from, r2 = step, r12 = three of them, r3 = count, r4 = rows, r5, r6 = skips
        .macro  collect load, store, two, four
        push    {r4-r11, lr}
        ldm     r2, {r2-r6}
        add     r12, r2, r2, lsl #1
1:      subs    r7, r3, #4
        blt     3f
        \four
3:      lsls    r7, r3, #31             @ carry: two more, negative: one
        bcc     4f
        \load   r8, [r1]
        \load   r9, [r1, r2]
        add     r1, r1, r2, lsl #1
        \two
4:      bpl     5f
        \load   r8, [r1]
        add     r1, r1, r2
        \store
5:      add     r0, r0, r5
        add     r1, r1, r6
        subs    r4, r4, #1
        bne     1b
        pop     {r4-r11, pc}
        .endm

        .macro  load_four load
        \load   r8, [r1]
        \load   r9, [r1, r2]
        \load   r10, [r1, r2, lsl #1]
        \load   r11, [r1, r12]
        add     r1, r1, r2, lsl #2
        .endm

        .macro  four_words
2:      load_four ldr
        stm     r0!, {r8-r11}
        subs    r7, r7, #4
        bge     2b
        .endm

        .macro  four_bytes
        cmp     r2, #1
        beq     6f
2:      load_four ldrb
        orr     r8, r8, r9, lsl #8
        orr     r10, r10, r11, lsl #8
        orr     r8, r8, r10, lsl #16
        str     r8, [r0], #4
        subs    r7, r7, #4
        bge     2b
        b       3f
6:      ldr     r8, [r1], #4
        str     r8, [r0], #4
        subs    r7, r7, #4
        bge     6b
        .endm

        .macro  store_bytes
        strb    r8, [r0], #1
        strb    r9, [r0], #1
        .endm

@ void tte_collect_words(to, from, grid)
        function tte_collect_words
        collect ldr, "str r8, [r0], #4", "stm r0!, {r8, r9}", four_words
        .size   tte_collect_words, . - tte_collect_words

@ void tte_collect_bytes(to, from, grid)
        function tte_collect_bytes
        collect ldrb, "strb r8, [r0], #1", store_bytes, four_bytes
        .size   tte_collect_bytes, . - tte_collect_bytes
