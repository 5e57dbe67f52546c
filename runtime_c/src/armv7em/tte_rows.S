/* SPDX-License-Identifier: Apache-2.0
 *
 * Sums of one channel's windows, four neighbouring outputs at a time, row after row:
 *   sums[o] = start + sum over kernel rows r and taps t of weight[r][t] * x[r][o * stride + t]
 * tte_rows_3_1 has 3 taps a row and stride 1, and so on; the kernel's rows are counted at run time.
 * tte_rows.h has the layouts, tests/shim/tte_rows.c says the same in C.
 *
 * x is a plane of int16 and read in pairs: SMLAD where both halves belong to the window, SMLABT,
 * SMLATB and SMLABB where one does. Stride 1 has the weights in pairs from both parities.
 */
        .syntax unified
        .thumb

@ The frame is the tte_rows struct.
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

@ acc = r4..r7, x = r2, r3; weights from r8 on.
        .macro  row_3_1
        ldrd    r2, r3, [r0]
        ldr     r10, [r0, #8]
        smlad   r4, r8, r2, r4
        smlabt  r5, r8, r2, r5
        smlatb  r4, r9, r3, r4
        smlad   r5, r9, r3, r5
        smlad   r6, r8, r3, r6
        smlabt  r7, r8, r3, r7
        smlatb  r6, r9, r10, r6
        smlad   r7, r9, r10, r7
        .endm

        .macro  row_3_2
        ldrd    r2, r3, [r0]
        smlad   r4, r8, r2, r4
        smlabb  r4, r9, r3, r4
        smlad   r5, r8, r3, r5
        ldrd    r2, r3, [r0, #8]
        ldr     r10, [r0, #16]
        smlabb  r5, r9, r2, r5
        smlad   r6, r8, r2, r6
        smlabb  r6, r9, r3, r6
        smlad   r7, r8, r3, r7
        smlabb  r7, r9, r10, r7
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

@ void name(const tte_rows *rows)
        .macro  begin name
        .section .text.\name, "ax", %progbits
        .p2align 2
        .global \name
        .thumb_func
        .type   \name, %function
\name:
        push    {r4-r11, lr}
        ldm     r0, {r1-r10}
        push    {r1-r10}
        .endm

        .macro  start_sums
        ldr     r4, [sp, #START]
        mov     r5, r4
        mov     r6, r4
        mov     r7, r4
        .endm

@ Stores four outputs; x moves on by as many, and at the end of a row to the next one.
        .macro  finish name, stride, again
        ldr     r0, [sp, #X]
        ldrd    r2, r3, [sp, #SUMS]
        adds    r0, r0, #8 * \stride
        str     r0, [sp, #X]
        stm     r2!, {r4-r7}
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
        add     sp, sp, #40
        pop     {r4-r11, pc}
        .size   \name, . - \name
        .endm

@ Weights up to r11 leave two registers for the loop over the rows.
        .macro  function name, taps, stride, last
        begin   \name
        ldrd    r12, lr, [sp, #WEIGHT_END]
1:      ldrd    r0, r1, [sp, #X]
        start_sums
2:      ldm     r1!, {r8-\last}
        row_\taps\()_\stride
        add     r0, r0, lr
        cmp     r1, r12
        bne     2b
        finish  \name, \stride, 1b
        .endm

@ Weights up to lr do not.
        .macro  function_7_1 name
        begin   \name
1:      ldrd    r0, r1, [sp, #X]
        start_sums
2:      ldm     r1!, {r8-r12, lr}
        row_7_1
        ldrd    r2, r3, [sp, #WEIGHT_END]
        add     r0, r0, r3
        cmp     r1, r2
        bne     2b
        finish  \name, 1, 1b
        .endm

        function tte_rows_3_1, 3, 1, r9
        function tte_rows_3_2, 3, 2, r9
        function tte_rows_5_1, 5, 1, r11
        function tte_rows_5_2, 5, 2, r10
        function_7_1 tte_rows_7_1
        function tte_rows_7_2, 7, 2, r11
