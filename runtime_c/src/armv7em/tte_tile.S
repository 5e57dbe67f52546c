/* SPDX-License-Identifier: Apache-2.0
 *
 * The inner product of 2 rows of weights and 4 rows of x, tile after tile of x:
 *   sum[row][column] = start[row] + sum over k of weight[k][row] * x[tile][k][column]
 * as int32, or as int8 after requantize() with the full range; and what widens int8 rows for it.
 * tte_tile.h has the layouts and the prototypes, tests/shim/tte_tile.c says the same in C.
 *
 * Eight sums, two words of weights, two of x and two pointers are all 14 registers: 11
 * instructions for 16 products, and 3 for the loop every 128.
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

@ Two k of 2 x 4 products.
        .macro  pair
        ldrd    r12, lr, [r1], #8
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

@ The frame: first the arguments r1, r2 and r3, then where the loop is entered.
        .equ    WEIGHT, 0
        .equ    WEIGHT_END, 4
        .equ    OUTPUT, 8
        .equ    ENTRY, 12
        .equ    OUTPUT_END, 16 + 36
        .equ    OUT_C, 16 + 40

@ One turn is 8 pairs; the first leaves out those that there are too many.
        .macro  enter
        push    {r4-r11, lr}
        sub     sp, sp, #16
        strd    r1, r2, [sp, #WEIGHT]
        str     r3, [sp, #OUTPUT]
        subs    r2, r1, r2              @ -(32 + 8 * pairs)
        asrs    r2, r2, #3
        adds    r2, r2, #4
        and     r2, r2, #7
        movs    r3, #PAIR_BYTES
        adr     r12, 2f
        mla     r2, r2, r3, r12
        adds    r2, r2, #1              @ Thumb
        str     r2, [sp, #ENTRY]
        .endm

@ r4-r7, r8-r11 = the sums of the next tile; r1 = behind the weights.
        .macro  multiply
1:      ldr     r1, [sp, #WEIGHT]
        ldm     r1!, {r4-r11}
        ldr     pc, [sp, #ENTRY]
        .p2align 2
2:      .rept   8
        pair
        .endr
        ldr     r2, [sp, #WEIGHT_END]
        cmp     r1, r2
        bne     2b
        .endm

@ void tte_tile_2x4(x, weight, weight_end, sums, sums_end)
        function tte_tile_2x4
        enter
        multiply
        ldr     r2, [sp, #OUTPUT]
        ldr     r3, [sp, #OUTPUT_END]
        stm     r2!, {r4-r11}
        str     r2, [sp, #OUTPUT]
        cmp     r2, r3
        bne     1b
        add     sp, sp, #16
        pop     {r4-r11, pc}
        .size   tte_tile_2x4, . - tte_tile_2x4

@ void tte_tile_2x4_int8(x, weight, weight_end, y, y_end, out_c)
@ Behind the weights: multipliers of the two rows, output zero point.
        function tte_tile_2x4_int8
        enter
        multiply
        ldm     r1, {r2, r3, r12}
        .irp    r, 4, 5, 6, 7
        smmlar  r\r, r\r, r2, r12
        .endr
        .irp    r, 8, 9, 10, 11
        smmlar  r\r, r\r, r3, r12
        .endr
        .irp    r, 4, 5, 6, 7, 8, 9, 10, 11
        ssat    r\r, #8, r\r
        .endr
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
        bne     1b
        add     sp, sp, #16
        pop     {r4-r11, pc}
        .size   tte_tile_2x4_int8, . - tte_tile_2x4_int8

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
        ldr     r4, [sp]
        cmp     r12, r4
        bne     1b
        pop     {r3-r11, pc}
        .size   tte_widen_quads_4, . - tte_widen_quads_4

@ void tte_widen_quads_2(const int8_t *row_0, const int8_t *row_1, pairs, pairs_end)
        function tte_widen_quads_2
        push    {r4-r9}
1:      ldr     r8, [r0], #4
        ldr     r9, [r1], #4
        sxtb16  r4, r8
        sxtb16  r5, r9
        sxtb16  r6, r8, ror #8
        sxtb16  r7, r9, ror #8
        stm     r2!, {r4-r7}
        cmp     r2, r3
        bne     1b
        pop     {r4-r9}
        bx      lr
        .size   tte_widen_quads_2, . - tte_widen_quads_2

@ void tte_widen_quads_columns_2(const int8_t *column, row_elems, pairs, pairs_end)
        function tte_widen_quads_columns_2
        push    {r4-r9}
        add     r9, r1, r1, lsl #1
1:      ldrh    r4, [r0]
        ldrh    r6, [r0, r1]
        ldrh    r5, [r0, r1, lsl #1]
        ldrh    r7, [r0, r9]
        add     r0, r0, r1, lsl #2
        pkhbt   r5, r4, r5, lsl #16
        pkhbt   r7, r6, r7, lsl #16
        sxtb16  r4, r5
        sxtb16  r5, r5, ror #8
        sxtb16  r6, r7
        sxtb16  r7, r7, ror #8
        stm     r2!, {r4-r7}
        cmp     r2, r3
        bne     1b
        pop     {r4-r9}
        bx      lr
        .size   tte_widen_quads_columns_2, . - tte_widen_quads_columns_2

@ void tte_widen_quads_columns_4(const int8_t *column, row_elems, offset, tile, tile_end)
        function tte_widen_quads_columns_4
        push    {r4-r11, lr}
        add     lr, r1, r1, lsl #1
1:      ldr     r4, [r0]
        ldr     r8, [r0, r1]
        ldr     r6, [r0, r1, lsl #1]
        ldr     r10, [r0, lr]
        add     r0, r0, r1, lsl #2
        pkhbt   r5, r4, r6, lsl #16
        pkhtb   r7, r6, r4, asr #16
        pkhbt   r9, r8, r10, lsl #16
        pkhtb   r11, r10, r8, asr #16
        sxtab16 r4, r2, r5
        sxtab16 r5, r2, r5, ror #8
        sxtab16 r6, r2, r7
        sxtab16 r7, r2, r7, ror #8
        sxtab16 r8, r2, r9
        sxtab16 r9, r2, r9, ror #8
        sxtab16 r10, r2, r11
        sxtab16 r11, r2, r11, ror #8
        stm     r3!, {r4-r11}
        ldr     r4, [sp, #36]
        cmp     r3, r4
        bne     1b
        pop     {r4-r11, pc}
        .size   tte_widen_quads_columns_4, . - tte_widen_quads_columns_4
