/* SPDX-License-Identifier: Apache-2.0
 *
 * Sums of one channel's windows, four neighbouring outputs at a time, row after row:
 *   sums[o] = start + sum over kernel rows r and taps t of weight[r][t] * x[r][o * stride + t]
 * tte_rows_3_1 has 3 taps a row and stride 1, and so on; the kernel's rows are counted at run time
 * except in tte_rows_3x3_*, whose weights stay in registers. The functions that end in _int8 store
 * activations of the full range in place of the sums. tte_rows.h has the layouts,
 * tests/shim/tte_rows.c says the same in C.
 *
 * x is a plane of int16 and read in pairs: SMLAD where both halves belong to the window, SMLABT,
 * SMLATB and SMLABB where one does. Stride 1 has the weights in pairs from both parities.
 */
        .syntax unified
        .thumb

@ The frame is the tte_rows struct, or tte_rows_int8.
        .equ    X, 0
        .equ    WEIGHT, 4
        .equ    WEIGHT_END, 8
        .equ    ROW_BYTES, 12
        .equ    START, 16
        .equ    SUMS, 20
        .equ    ROW_END, 24
        .equ    X_STEP, 28
        .equ    SUMS_STEP, 32
        .equ    SUMS_END, 36
        .equ    MULTIPLIER, 40
        .equ    ZERO_POINT, 44
        .equ    OUT_C, 48

@ acc = r4..r7, x = r2, r3; weights from r8 on.
        .macro  row_3_1 w0=r8, w1=r9, x4=r10
        ldrd    r2, r3, [r0]
        ldr     \x4, [r0, #8]
        smlad   r4, \w0, r2, r4
        smlabt  r5, \w0, r2, r5
        smlatb  r4, \w1, r3, r4
        smlad   r5, \w1, r3, r5
        smlad   r6, \w0, r3, r6
        smlabt  r7, \w0, r3, r7
        smlatb  r6, \w1, \x4, r6
        smlad   r7, \w1, \x4, r7
        .endm

        .macro  row_3_2 w0=r8, w1=r9, x4=r10
        ldrd    r2, r3, [r0]
        smlad   r4, \w0, r2, r4
        smlabb  r4, \w1, r3, r4
        smlad   r5, \w0, r3, r5
        ldrd    r2, r3, [r0, #8]
        ldr     \x4, [r0, #16]
        smlabb  r5, \w1, r2, r5
        smlad   r6, \w0, r2, r6
        smlabb  r6, \w1, r3, r6
        smlad   r7, \w0, r3, r7
        smlabb  r7, \w1, \x4, r7
        .endm

        .macro  row_5_1
        ldrd    r2, r3, [r0]
        smlad   r4, r8, r2, r4
        smlabt  r5, r8, r2, r5
        smlad   r4, r9, r3, r4
        smlad   r5, r10, r3, r5
        smlad   r6, r8, r3, r6
        smlabt  r7, r8, r3, r7
        ldrd    r2, r3, [r0, #8]
        smlatb  r4, r11, r2, r4
        smlad   r5, r11, r2, r5
        smlad   r6, r9, r2, r6
        smlad   r7, r10, r2, r7
        smlatb  r6, r11, r3, r6
        smlad   r7, r11, r3, r7
        .endm

        .macro  row_5_2
        ldrd    r2, r3, [r0]
        smlad   r4, r8, r2, r4
        smlad   r4, r9, r3, r4
        smlad   r5, r8, r3, r5
        ldrd    r2, r3, [r0, #8]
        smlabb  r4, r10, r2, r4
        smlad   r5, r9, r2, r5
        smlad   r6, r8, r2, r6
        smlabb  r5, r10, r3, r5
        smlad   r6, r9, r3, r6
        smlad   r7, r8, r3, r7
        ldrd    r2, r3, [r0, #16]
        smlabb  r6, r10, r2, r6
        smlad   r7, r9, r2, r7
        smlabb  r7, r10, r3, r7
        .endm

        .macro  row_7_1
        ldrd    r2, r3, [r0]
        smlad   r4, r8, r2, r4
        smlabt  r5, r8, r2, r5
        smlad   r4, r9, r3, r4
        smlad   r5, r11, r3, r5
        smlad   r6, r8, r3, r6
        smlabt  r7, r8, r3, r7
        ldrd    r2, r3, [r0, #8]
        smlad   r4, r10, r2, r4
        smlad   r5, r12, r2, r5
        smlad   r6, r9, r2, r6
        smlad   r7, r11, r2, r7
        smlatb  r4, lr, r3, r4
        smlad   r5, lr, r3, r5
        smlad   r6, r10, r3, r6
        smlad   r7, r12, r3, r7
        ldr     r2, [r0, #16]
        smlatb  r6, lr, r2, r6
        smlad   r7, lr, r2, r7
        .endm

        .macro  row_7_2
        ldrd    r2, r3, [r0]
        smlad   r4, r8, r2, r4
        smlad   r4, r9, r3, r4
        smlad   r5, r8, r3, r5
        ldrd    r2, r3, [r0, #8]
        smlad   r4, r10, r2, r4
        smlad   r5, r9, r2, r5
        smlad   r6, r8, r2, r6
        smlabb  r4, r11, r3, r4
        smlad   r5, r10, r3, r5
        smlad   r6, r9, r3, r6
        smlad   r7, r8, r3, r7
        ldrd    r2, r3, [r0, #16]
        smlabb  r5, r11, r2, r5
        smlad   r6, r10, r2, r6
        smlad   r7, r9, r2, r7
        smlabb  r6, r11, r3, r6
        smlad   r7, r10, r3, r7
        ldr     r2, [r0, #24]
        smlabb  r7, r11, r2, r7
        .endm

@ void name(const tte_rows *rows), void name(const tte_rows_int8 *rows)
        .macro  begin name, int8
        .section .text.\name, "ax", %progbits
        .p2align 2
        .global \name
        .thumb_func
        .type   \name, %function
\name:
        push    {r4-r11, lr}
        .if     \int8
        ldrd    r1, r2, [r0, #MULTIPLIER]
        ldr     r3, [r0, #OUT_C]
        push    {r1-r3}
        .endif
        ldm     r0, {r1-r10}
        push    {r1-r10}
        .endm

        .macro  start_sums
        ldr     r4, [sp, #START]
        mov     r5, r4
        mov     r6, r4
        mov     r7, r4
        .endm

@ Four activations, out_c apart, to r2 on.
        .macro  store_int8
        ldrd    r0, r1, [sp, #MULTIPLIER]
        .irp    r, 4, 5, 6, 7
        smmlar  r\r, r\r, r0, r1
        .endr
        .irp    r, 4, 5, 6, 7
        ssat    r\r, #8, r\r
        .endr
        ldr     r0, [sp, #OUT_C]
        strb    r4, [r2]
        strb    r5, [r2, r0]
        add     r2, r2, r0, lsl #1
        strb    r6, [r2]
        strb    r7, [r2, r0]
        add     r2, r2, r0, lsl #1
        .endm

@ Stores four outputs; x moves on by as many, and at the end of a row to the next one.
        .macro  finish name, stride, again, int8
        ldr     r0, [sp, #X]
        ldrd    r2, r3, [sp, #SUMS]
        adds    r0, r0, #8 * \stride
        str     r0, [sp, #X]
        .if     \int8
        store_int8
        .else
        stm     r2!, {r4-r7}
        .endif
        str     r2, [sp, #SUMS]
        cmp     r2, r3
        bne     \again
        ldr     r0, [sp, #X]
        ldrd    r4, r5, [sp, #X_STEP]
        ldr     r6, [sp, #SUMS_END]
        add     r0, r0, r4
        add     r3, r3, r5
        str     r0, [sp, #X]
        str     r3, [sp, #ROW_END]
        cmp     r2, r6
        bne     \again
        add     sp, sp, #40 + 12 * \int8
        pop     {r4-r11, pc}
        .size   \name, . - \name
        .endm

@ Three rows whose weights are resident.
        .macro  function_3x3 name, stride, int8
        begin   \name, \int8
        ldr     r1, [sp, #WEIGHT]
        ldm     r1, {r8-r12, lr}
1:      ldr     r0, [sp, #X]
        start_sums
        row_3_\stride r8, r9, r1
        ldr     r1, [sp, #ROW_BYTES]
        add     r0, r0, r1
        row_3_\stride r10, r11, r1
        ldr     r1, [sp, #ROW_BYTES]
        add     r0, r0, r1
        row_3_\stride r12, lr, r1
        finish  \name, \stride, 1b, \int8
        .endm

@ Weights up to r11 leave two registers for the loop over the rows.
        .macro  function name, taps, stride, last, int8
        begin   \name, \int8
        ldrd    r12, lr, [sp, #WEIGHT_END]
1:      ldrd    r0, r1, [sp, #X]
        start_sums
2:      ldm     r1!, {r8-\last}
        row_\taps\()_\stride
        add     r0, r0, lr
        cmp     r1, r12
        bne     2b
        finish  \name, \stride, 1b, \int8
        .endm

@ Weights up to lr do not.
        .macro  function_7_1 name, int8
        begin   \name, \int8
1:      ldrd    r0, r1, [sp, #X]
        start_sums
2:      ldm     r1!, {r8-r12, lr}
        row_7_1
        ldrd    r2, r3, [sp, #WEIGHT_END]
        add     r0, r0, r3
        cmp     r1, r2
        bne     2b
        finish  \name, 1, 1b, \int8
        .endm

        function_3x3 tte_rows_3x3_1, 1, 0
        function_3x3 tte_rows_3x3_2, 2, 0
        function tte_rows_3_1, 3, 1, r9, 0
        function tte_rows_3_2, 3, 2, r9, 0
        function tte_rows_5_1, 5, 1, r11, 0
        function tte_rows_5_2, 5, 2, r10, 0
        function_7_1 tte_rows_7_1, 0
        function tte_rows_7_2, 7, 2, r11, 0

        function_3x3 tte_rows_3x3_1_int8, 1, 1
        function_3x3 tte_rows_3x3_2_int8, 2, 1
        function tte_rows_3_1_int8, 3, 1, r9, 1
        function tte_rows_3_2_int8, 3, 2, r9, 1
        function tte_rows_5_1_int8, 5, 1, r11, 1
        function tte_rows_5_2_int8, 5, 2, r10, 1
        function_7_1 tte_rows_7_1_int8, 1
        function tte_rows_7_2_int8, 7, 2, r11, 1

@ void tte_copy_rows(x, to, cols, rows, channels, x_step, to_step)
        .section .text.tte_copy_rows, "ax", %progbits
        .p2align 2
        .global tte_copy_rows
        .thumb_func
        .type   tte_copy_rows, %function
tte_copy_rows:
        push    {r4-r11, lr}
        ldr     r4, [sp, #36]           @ channels
        add     r6, r4, r4, lsl #1
1:      subs    r7, r2, #4
        blt     3f
2:      ldrsb   r8, [r0]
        ldrsb   r9, [r0, r4]
        ldrsb   r10, [r0, r4, lsl #1]
        ldrsb   r11, [r0, r6]
        add     r0, r0, r4, lsl #2
        strh    r8, [r1], #2
        strh    r9, [r1], #2
        strh    r10, [r1], #2
        strh    r11, [r1], #2
        subs    r7, r7, #4
        bge     2b
3:      adds    r7, r7, #4
        beq     5f
4:      ldrsb   r8, [r0]
        add     r0, r0, r4
        strh    r8, [r1], #2
        subs    r7, r7, #1
        bne     4b
5:      ldrd    r8, r9, [sp, #40]
        add     r0, r0, r8
        add     r1, r1, r9
        subs    r3, r3, #1
        bne     1b
        pop     {r4-r11, pc}
        .size   tte_copy_rows, . - tte_copy_rows
