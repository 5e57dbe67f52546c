/* SPDX-License-Identifier: Apache-2.0
 *
 * A depthwise convolution with a square kernel over planes of int16, channel after channel, four
 * neighbouring outputs at a time:
 *   acc[o] = bias + sum over kernel rows r and taps t of weight[r][t] * x[r][o * stride + t]
 *   y = clamp(round(acc * multiplier / 2^32) + zero point), a mask bit where it is not clamped
 * or, for gradients, no bias, square kernels turned round, and y is an int16.
 * tte_windows_3x3_1_int8 has 3x3 taps and stride 1, _masked_int8 makes mask bits. Of a stride of 2
 * tte_windows_3x3_2_grad makes the input gradients: a convolution for each parity of row and column.
 * tte_windows.h has the layouts, tests/shim/tte_windows.c says the same in C.
 *
 * Weights are widened once a channel. The first tap of 3 and of 7 is the upper half of a word, of 5
 * the lower, so that a map whose border is half a kernel begins at a word. SMLAD multiplies pairs of
 * taps, SMLABT and SMLATB the odd ones.
 */
        .syntax unified
        .thumb

@ The frame is the tte_windows struct and the widened weights.
        .equ    X_NEXT, 0
        .equ    BIAS, 4
        .equ    MULTIPLIER, 8
        .equ    ZERO_POINT, 12
        .equ    ROW_END, 16
        .equ    TO, 20
        .equ    STEP, 24
        .equ    X_STEP, 28
        .equ    Y_STEP, 32
        .equ    ROW, 36
        .equ    END, 40
        .equ    AT, 44
        .equ    ROW_BYTES, 48
        .equ    BITS, 52
        .equ    BIT, 56
        .equ    X, 60
        .equ    PLANE_BYTES, 64
        .equ    Y, 68
        .equ    Y_BYTES, 72
        .equ    WEIGHT, 76
        .equ    WEIGHT_STEP, 80
        .equ    BIASES, 84
        .equ    MULTIPLIERS, 88
        .equ    CHANNELS, 92
        .equ    MASK, 96
        .equ    BETWEEN, 100
        .equ    PAIRS, 104

        .equ    INT8, 0
        .equ    MASKED_INT8, 1
        .equ    GRAD, 2
        .equ    GRAD_2, 3

@ ---- one row of a window ---------------------------------------------------------------------
@ acc = r4..r7, x = r2, r3, row = r0. In the first row a4..a6 are r7, which holds the bias.

@ w01, w12
        .macro  row_3_1 a4, a5, a6, w01, w12
        ldrd    r2, r3, [r0]
        smlabt  r4, \w01, r2, \a4
        smlad   r5, \w01, r3, \a5
        smlabt  r6, \w01, r3, \a6
        smlad   r4, \w12, r3, r4
        ldrd    r2, r3, [r0, #8]
        smlatb  r5, \w12, r2, r5
        smlad   r6, \w12, r2, r6
        smlad   r7, \w01, r2, r7
        smlatb  r7, \w12, r3, r7
        .endm

        .macro  row_3_2 a4, a5, a6, w01, w12
        ldrd    r2, r3, [r0]
        smlabt  r4, \w01, r2, \a4
        smlabt  r5, \w01, r3, \a5
        smlad   r4, \w12, r3, r4
        ldrd    r2, r3, [r0, #8]
        smlabt  r6, \w01, r2, \a6
        smlad   r5, \w12, r2, r5
        smlabt  r7, \w01, r3, r7
        smlad   r6, \w12, r3, r6
        ldr     r2, [r0, #16]
        smlad   r7, \w12, r2, r7
        .endm

@ r8 = w01, r9 = w23, r10 = w12, r11 = w34
        .macro  row_5_1 a4, a5, a6
        ldrd    r2, r3, [r0]
        smlad   r4, r8, r2, \a4
        smlabt  r5, r8, r2, \a5
        smlad   r6, r8, r3, \a6
        smlabt  r7, r8, r3, r7
        smlad   r4, r9, r3, r4
        smlad   r5, r10, r3, r5
        ldrd    r2, r3, [r0, #8]
        smlatb  r4, r11, r2, r4
        smlad   r5, r11, r2, r5
        smlad   r6, r9, r2, r6
        smlad   r7, r10, r2, r7
        smlatb  r6, r11, r3, r6
        smlad   r7, r11, r3, r7
        .endm

@ r8 = w01, r9 = w23, r10 = w4
        .macro  row_5_2 a4, a5, a6
        ldrd    r2, r3, [r0]
        smlad   r4, r8, r2, \a4
        smlad   r5, r8, r3, \a5
        smlad   r4, r9, r3, r4
        ldrd    r2, r3, [r0, #8]
        smlad   r6, r8, r2, \a6
        smlad   r7, r8, r3, r7
        smlabb  r4, r10, r2, r4
        smlad   r5, r9, r2, r5
        smlabb  r5, r10, r3, r5
        smlad   r6, r9, r3, r6
        ldrd    r2, r3, [r0, #16]
        smlabb  r6, r10, r2, r6
        smlad   r7, r9, r2, r7
        smlabb  r7, r10, r3, r7
        .endm

@ r8 = w01, r9 = w23, r10 = w45, r11 = w12, r12 = w34, lr = w56
        .macro  row_7_1 a4, a5, a6
        ldrd    r2, r3, [r0]
        smlabt  r4, r8, r2, \a4
        smlad   r5, r8, r3, \a5
        smlabt  r6, r8, r3, \a6
        smlad   r4, r11, r3, r4
        ldrd    r2, r3, [r0, #8]
        smlad   r7, r8, r2, r7
        smlad   r4, r12, r2, r4
        smlad   r5, r9, r2, r5
        smlad   r6, r11, r2, r6
        smlad   r4, lr, r3, r4
        smlad   r5, r10, r3, r5
        smlad   r6, r12, r3, r6
        smlad   r7, r9, r3, r7
        ldrd    r2, r3, [r0, #16]
        smlatb  r5, lr, r2, r5
        smlad   r6, lr, r2, r6
        smlad   r7, r10, r2, r7
        smlatb  r7, lr, r3, r7
        .endm

@ r8 = w0, r9 = w12, r10 = w34, r11 = w56
        .macro  row_7_2 a4, a5, a6
        ldrd    r2, r3, [r0]
        smlabt  r4, r8, r2, \a4
        smlabt  r5, r8, r3, \a5
        smlad   r4, r9, r3, r4
        ldrd    r2, r3, [r0, #8]
        smlabt  r6, r8, r2, \a6
        smlabt  r7, r8, r3, r7
        smlad   r4, r10, r2, r4
        smlad   r5, r9, r2, r5
        smlad   r4, r11, r3, r4
        smlad   r5, r10, r3, r5
        smlad   r6, r9, r3, r6
        ldrd    r2, r3, [r0, #16]
        smlad   r5, r11, r2, r5
        smlad   r6, r10, r2, r6
        smlad   r7, r9, r2, r7
        smlad   r6, r11, r3, r6
        smlad   r7, r10, r3, r7
        ldr     r2, [r0, #24]
        smlad   r7, r11, r2, r7
        .endm

@ ---- the weights of a channel, from r1 --------------------------------------------------------

@ Four weights from \word on as pairs: \even = w0, w2; \odd = w1, w3
        .macro  widen word, even, odd
        sxtb16  \even, \word
        sxtb16  \odd, \word, ror #8
        .endm

@ All of 3x3, to r8..r12, lr.
        .macro  weights_3x3
        ldr     r2, [r1]
        ldr     r3, [r1, #4]
        ldrsb   r4, [r1, #8]
        widen   r2, r5, r6
        widen   r3, r7, r3
        pkhbt   r8, r5, r6, lsl #16     @ w01
        pkhbt   r9, r6, r5              @ w12
        lsr     r6, r6, #16
        pkhbt   r10, r6, r7, lsl #16    @ w34
        pkhbt   r11, r7, r3, lsl #16    @ w45
        pkhtb   r12, r3, r7, asr #16    @ w67
        lsr     r3, r3, #16
        pkhbt   lr, r3, r4, lsl #16     @ w78
        .endm

@ One row, to r2 on.
        .macro  weights_5_1
        ldr     r3, [r1], #1
        ldr     r4, [r1], #4
        widen   r3, r5, r6
        sxtb16  r7, r4, ror #8          @ w2, w4
        pkhbt   r8, r5, r6, lsl #16
        pkhtb   r9, r6, r5, asr #16
        pkhbt   r10, r6, r5
        pkhtb   r11, r7, r6, asr #16
        stm     r2!, {r8-r11}
        .endm

        .macro  weights_5_2
        ldr     r3, [r1], #4
        ldrsb   r10, [r1], #1
        widen   r3, r5, r6
        pkhbt   r8, r5, r6, lsl #16
        pkhtb   r9, r6, r5, asr #16
        stm     r2!, {r8-r10}
        .endm

        .macro  weights_7_1
        ldr     r3, [r1], #3
        ldr     r4, [r1], #4
        widen   r3, r5, r6
        widen   r4, r7, r3              @ w3, w5; w4, w6
        pkhbt   r8, r5, r6, lsl #16
        pkhtb   r9, r6, r5, asr #16
        pkhbt   r10, r3, r7
        pkhbt   r11, r6, r5
        pkhbt   r12, r7, r3, lsl #16
        pkhtb   lr, r3, r7, asr #16
        stm     r2!, {r8-r12, lr}
        .endm

        .macro  weights_7_2
        ldr     r3, [r1], #3
        ldr     r4, [r1], #4
        widen   r3, r8, r6
        widen   r4, r7, r3
        pkhbt   r9, r6, r8
        pkhbt   r10, r7, r3, lsl #16
        pkhtb   r11, r3, r7, asr #16
        stm     r2!, {r8-r11}
        .endm

@ The same from the last weight to the first: a convolution's taps turned round.
        .macro  turned_3x3
        ldr     r2, [r1]
        ldr     r3, [r1, #4]
        ldrsb   r4, [r1, #8]
        widen   r2, r5, r6
        widen   r3, r7, r3
        pkhbt   r8, r4, r3              @ w87
        pkhtb   r9, r7, r3, asr #16     @ w76
        pkhbt   r10, r3, r7, lsl #16    @ w54
        pkhbt   r11, r7, r6             @ w43
        pkhbt   lr, r6, r5, lsl #16     @ w10
        lsr     r5, r5, #16
        pkhbt   r12, r5, r6, lsl #16    @ w21
        .endm

        .macro  turned_5
        ldr     r3, [r1], #1
        ldr     r4, [r1], #-6
        widen   r3, r5, r6
        sxtb16  r7, r4, ror #8
        pkhtb   r8, r6, r7, asr #16
        pkhbt   r9, r7, r6, lsl #16
        pkhtb   r10, r5, r6, asr #16
        pkhbt   r11, r6, r5, lsl #16
        stm     r2!, {r8-r11}
        .endm

        .macro  turned_7
        ldr     r3, [r1], #3
        ldr     r4, [r1], #-10
        widen   r3, r5, r6
        widen   r4, r7, r3
        pkhtb   r8, r7, r3, asr #16
        pkhbt   r9, r3, r7, lsl #16
        pkhbt   r12, r7, r5
        pkhbt   lr, r6, r5, lsl #16
        lsr     r5, r5, #16
        pkhbt   r10, r5, r6, lsl #16
        lsr     r7, r7, #16
        pkhbt   r11, r7, r3, lsl #16
        stm     r2!, {r8-r12, lr}
        .endm

@ ---- four outputs ----------------------------------------------------------------------------

@ To r2 on, STEP apart.
        .macro  store a, b, c, d, step
        ldrd    r2, \step, [sp, #TO]
        strb    \a, [r2]
        strb    \b, [r2, \step]
        add     r2, r2, \step, lsl #1
        strb    \c, [r2]
        strb    \d, [r2, \step]
        add     r2, r2, \step, lsl #1
        .endm

        .macro  finish_int8
        ldrd    r2, r3, [sp, #MULTIPLIER]
        .irp    r, 4, 5, 6, 7
        smmlar  r\r, r\r, r2, r3
        .endr
        .irp    r, 4, 5, 6, 7
        ssat    r\r, #8, r\r
        .endr
        store   r4, r5, r6, r7, r3
        .endm

@ r2 |= the channel's bit of \pixel if \value is not clamped; \to = clamped
        .macro  activate to, value, pixel
        ssat    \to, #8, \value
        cmp     \to, \value
        it      eq
        orreq   r2, r2, r1, lsl #8 * \pixel
        .endm

        .macro  finish_masked_int8
        ldrd    r2, r3, [sp, #MULTIPLIER]
        .irp    r, 4, 5, 6, 7
        smmlar  r\r, r\r, r2, r3
        .endr
        str     r0, [sp, #AT]
        ldrd    r0, r1, [sp, #BITS]
        ldr     r2, [r0]
        activate r3, r4, 0
        activate r4, r5, 1
        activate r5, r6, 2
        activate r6, r7, 3
        str     r2, [r0], #4
        str     r0, [sp, #BITS]
        store   r3, r4, r5, r6, r7
        ldrd    r0, r1, [sp, #AT]
        .endm

@ r4 = the first two, r6 = the others
        .macro  requantise_grad
        ldrd    r2, r3, [sp, #MULTIPLIER]
        .irp    r, 4, 5, 6, 7
        smmlar  r\r, r\r, r2, r3
        .endr
        pkhbt   r4, r4, r5, lsl #16
        pkhbt   r6, r6, r7, lsl #16
        .endm

        .macro  finish_grad
        requantise_grad
        ldrd    r2, r3, [sp, #TO]
        strd    r4, r6, [r2]
        add     r2, r2, r3
        .endm

@ ---- input gradients of stride 2 -----------------------------------------------------------------
@ Four gradients become two rows of eight: in each the columns 0, 2, 4, 6 and then 1, 3, 5, 7 are a
@ convolution of stride 1. r0 = x, r1 = weights, lr = the size of a row of x.

@ acc = r4..r7; x = r2, r3, r8, r9, whose first element is not in use.
@ r10 = w10, r11 = w21
        .macro  row_3_grad a4, a5, a6
        smlatt  r4, r10, r2, \a4
        smladx  r5, r10, r3, \a5
        smlatt  r6, r10, r3, \a6
        smladx  r7, r10, r8, r7
        smladx  r4, r11, r3, r4
        smlabb  r5, r11, r8, r5
        smladx  r6, r11, r8, r6
        smlabb  r7, r11, r9, r7
        .endm

@ r10 = w10, r11 = w12, r12 = w32
        .macro  row_4_grad a4, a5, a6
        smlatt  r4, r10, r2, \a4
        smladx  r5, r10, r3, \a5
        smlatt  r6, r10, r3, \a6
        smladx  r7, r10, r8, r7
        smlad   r4, r11, r3, r4
        smlad   r6, r11, r8, r6
        smlabb  r4, r12, r8, r4
        smladx  r5, r12, r8, r5
        smlabb  r6, r12, r9, r6
        smladx  r7, r12, r9, r7
        .endm

@ r0 comes back.
        .macro  part_grad row, rows, registers:vararg
        movs    r7, #0
        ldm     r1!, {\registers}
        ldm     r0, {r2, r3, r8, r9}
        \row    r7, r7, r7
        .rept   \rows-1
        add     r0, r0, lr
        ldm     r1!, {\registers}
        ldm     r0, {r2, r3, r8, r9}
        \row    r4, r5, r6
        .endr
        .if     (\rows & 1) == 0
        sub     r0, r0, lr
        .endif
        .if     \rows > 2
        sub     r0, r0, lr, lsl #1
        .endif
        requantise_grad
        .endm

@ Eight neighbours: r5, r7, r8, r9.
        .macro  row_of_8 odd, rows, registers:vararg
        part_grad row_3_grad, \rows, r10, r11
        strd    r4, r6, [sp, #BITS]
        part_grad \odd, \rows, \registers
        ldrd    r2, r3, [sp, #BITS]
        pkhbt   r5, r2, r4, lsl #16
        pkhtb   r7, r4, r2, asr #16
        pkhbt   r8, r3, r6, lsl #16
        pkhtb   r9, r6, r3, asr #16
        .endm

@ The row with more taps, the other one.
        .macro  two_rows_of_8 odd, rows, registers:vararg
        ldr     r1, [sp, #PAIRS]
        row_of_8 \odd, \rows, \registers
        ldr     r2, [sp, #TO]
        ldr     r3, [sp, #BETWEEN]
        strd    r5, r7, [r2]
        strd    r8, r9, [r2, #32]
        add     r0, r0, r3
        row_of_8 \odd, (\rows-1), \registers
        ldrd    r2, r3, [sp, #TO]
        add     r3, r3, r2
        strd    r5, r7, [r3]
        strd    r8, r9, [r3, #32]
        adds    r2, r2, #64
        .endm

        .macro  weights_2_grad
        str     r1, [sp, #PAIRS]
        ldr     lr, [sp, #ROW_BYTES]
        .endm

        .macro  windows_3x3_2_grad
        two_rows_of_8 row_3_grad, 2, r10, r11
        .endm

        .macro  windows_5x5_2_grad
        two_rows_of_8 row_3_grad, 3, r10, r11
        .endm

        .macro  windows_7x7_2_grad
        two_rows_of_8 row_4_grad, 4, r10-r12
        .endm

@ ---- functions -------------------------------------------------------------------------------

@ void name(const tte_windows *windows): weights of a channel are made by \weights, the sums of four
@ outputs, whose window ends up in r0's last row, by \windows.
        .macro  function name, weights, windows, mode, pairs
        .section .text.\name, "ax", %progbits
        .p2align 2
        .global \name
        .thumb_func
        .type   \name, %function
\name:
        push    {r4-r11, lr}
        sub     sp, sp, #PAIRS + 4 * \pairs
        mov     r9, sp
        .rept   3
        ldm     r0!, {r1-r8}
        stm     r9!, {r1-r8}
        .endr
        ldm     r0, {r1, r2}
        stm     r9, {r1, r2}
@ The next channel.
1:      ldrd    r1, r2, [sp, #BIASES]
        .if     \mode >= GRAD
        movs    r3, #0
        .else
        ldr     r3, [r1], #4
        .endif
        ldr     r4, [r2], #4
        strd    r1, r2, [sp, #BIASES]
        strd    r3, r4, [sp, #BIAS]
        ldrd    r2, r3, [sp, #Y]
        ldr     r4, [sp, #ROW]
        add     r3, r3, r2
        add     r4, r4, r2
        str     r3, [sp, #END]
        strd    r4, r2, [sp, #ROW_END]
        .if     \mode >= GRAD
        add     r2, r2, #8
        .else
        add     r2, r2, #1
        .endif
        str     r2, [sp, #Y]
        .if     \mode == MASKED_INT8
        ldr     r2, [sp, #MASK]
        str     r2, [sp, #BITS]
        .endif
        ldrd    r1, r2, [sp, #WEIGHT]
        add     r2, r2, r1
        str     r2, [sp, #WEIGHT]
        \weights
        ldrd    r0, r1, [sp, #X]
        ldr     r2, [sp, #X_NEXT]
        add     r1, r1, r0
        str     r1, [sp, #X]
        sub     r0, r0, r2
        ldr     r1, [sp, #ROW_BYTES]
@ The next four outputs.
2:      ldrd    r3, r7, [sp, #X_NEXT]
        add     r0, r0, r3
        \windows
        .if     \mode == INT8
        finish_int8
        .elseif \mode == MASKED_INT8
        finish_masked_int8
        .elseif \mode == GRAD
        finish_grad
        .endif
        ldr     r3, [sp, #ROW_END]
        str     r2, [sp, #TO]
        cmp     r2, r3
        bne     2b
@ The next row.
        ldrd    r4, r5, [sp, #X_STEP]
        ldrd    r6, r7, [sp, #ROW]
        add     r0, r0, r4
        add     r2, r2, r5
        add     r3, r2, r6
        strd    r3, r2, [sp, #ROW_END]
        cmp     r2, r7
        bne     2b
        .if     \mode == MASKED_INT8
        ldr     r2, [sp, #BIT]
        lsls    r2, r2, #1
        str     r2, [sp, #BIT]
        .endif
        ldr     r2, [sp, #CHANNELS]
        subs    r2, r2, #1
        str     r2, [sp, #CHANNELS]
        bne     1b
        add     sp, sp, #PAIRS + 4 * \pairs
        pop     {r4-r11, pc}
        .size   \name, . - \name
        .endm

        .macro  windows_3x3_1
        row_3_1 r7, r7, r7, r8, r9
        add     r0, r0, r1
        row_3_1 r4, r5, r6, r10, r11
        add     r0, r0, r1
        row_3_1 r4, r5, r6, r12, lr
        .endm

        .macro  windows_3x3_2
        row_3_2 r7, r7, r7, r8, r9
        add     r0, r0, r1
        row_3_2 r4, r5, r6, r10, r11
        add     r0, r0, r1
        row_3_2 r4, r5, r6, r12, lr
        .endm

@ The size of a row is in r12, where the weights leave it.
        .macro  windows_rows row, more, registers:vararg
        add     r1, sp, #PAIRS
        ldm     r1!, {\registers}
        \row    r7, r7, r7
        .rept   \more
        ldm     r1!, {\registers}
        add     r0, r0, r12
        \row    r4, r5, r6
        .endr
        .endm

        .macro  windows_5x5_1
        windows_rows row_5_1, 4, r8-r11
        .endm

        .macro  windows_5x5_2
        windows_rows row_5_2, 4, r8-r10
        .endm

        .macro  windows_7x7_1
        add     r1, sp, #PAIRS
        ldm     r1!, {r8-r12, lr}
        row_7_1 r7, r7, r7
        .rept   6
        ldr     r2, [sp, #ROW_BYTES]
        ldm     r1!, {r8-r12, lr}
        add     r0, r0, r2
        row_7_1 r4, r5, r6
        .endr
        .endm

        .macro  windows_7x7_2
        windows_rows row_7_2, 6, r8-r11
        .endm

        .macro  weights_rows row, count
        add     r2, sp, #PAIRS
        .rept   \count
        \row
        .endr
        .endm

        .macro  weights_5x5_1
        weights_rows weights_5_1, 5
        ldr     r12, [sp, #ROW_BYTES]
        .endm

        .macro  weights_5x5_2
        weights_rows weights_5_2, 5
        ldr     r12, [sp, #ROW_BYTES]
        .endm

        .macro  weights_7x7_1
        weights_rows weights_7_1, 7
        .endm

        .macro  turned_5x5
        adds    r1, r1, #20
        weights_rows turned_5, 5
        ldr     r12, [sp, #ROW_BYTES]
        .endm

        .macro  turned_7x7
        adds    r1, r1, #42
        weights_rows turned_7, 7
        .endm

        .macro  weights_7x7_2
        weights_rows weights_7_2, 7
        ldr     r12, [sp, #ROW_BYTES]
        .endm

        function tte_windows_3x3_1_int8, weights_3x3, windows_3x3_1, INT8, 0
        function tte_windows_3x3_2_int8, weights_3x3, windows_3x3_2, INT8, 0
        function tte_windows_5x5_1_int8, weights_5x5_1, windows_5x5_1, INT8, 20
        function tte_windows_5x5_2_int8, weights_5x5_2, windows_5x5_2, INT8, 16
        function tte_windows_7x7_1_int8, weights_7x7_1, windows_7x7_1, INT8, 42
        function tte_windows_7x7_2_int8, weights_7x7_2, windows_7x7_2, INT8, 28

        function tte_windows_3x3_1_masked_int8, weights_3x3, windows_3x3_1, MASKED_INT8, 0
        function tte_windows_3x3_2_masked_int8, weights_3x3, windows_3x3_2, MASKED_INT8, 0
        function tte_windows_5x5_1_masked_int8, weights_5x5_1, windows_5x5_1, MASKED_INT8, 20
        function tte_windows_5x5_2_masked_int8, weights_5x5_2, windows_5x5_2, MASKED_INT8, 16
        function tte_windows_7x7_1_masked_int8, weights_7x7_1, windows_7x7_1, MASKED_INT8, 42
        function tte_windows_7x7_2_masked_int8, weights_7x7_2, windows_7x7_2, MASKED_INT8, 28

        function tte_windows_3x3_1_grad, turned_3x3, windows_3x3_1, GRAD, 0
        function tte_windows_5x5_1_grad, turned_5x5, windows_5x5_1, GRAD, 20
        function tte_windows_7x7_1_grad, turned_7x7, windows_7x7_1, GRAD, 42
        function tte_windows_3x3_2_grad, weights_2_grad, windows_3x3_2_grad, GRAD_2, 1
        function tte_windows_5x5_2_grad, weights_2_grad, windows_5x5_2_grad, GRAD_2, 1
        function tte_windows_7x7_2_grad, weights_2_grad, windows_7x7_2_grad, GRAD_2, 1
