/* SPDX-License-Identifier: Apache-2.0
 *
 * The second stage of the RP2040's boot (datasheet 2.8.1.3): the boot ROM copies these first 256 bytes
 * of flash into SRAM, checks the CRC in the last four and jumps to the first. It makes flash readable
 * at 0x10000000 with the serial read 03h, which every chip knows, at a quarter of the system clock,
 * and starts the program behind it. Registers of the SSI: datasheet 4.10.13.
 *
 * boot2.c holds what this assembles to.
 */
        .syntax unified
        .cpu    cortex-m0plus
        .thumb
        .text

        .equ    SSI, 0x18000000         @ CTRLR0 at 0, CTRLR1 4, SSIENR 8, BAUDR 0x14
        .equ    SPI_CTRLR0, 0x180000F4
        .equ    VTOR, 0xE000ED08
        .equ    PROGRAM, 0x10000100

        ldr     r3, =SSI
        movs    r0, #0
        str     r0, [r3, #8]            @ off, to be set up
        movs    r1, #4
        str     r1, [r3, #0x14]
        ldr     r1, =0x001F0300         @ frames of 32 bits, after a command a read
        str     r1, [r3]
        str     r0, [r3, #4]            @ one frame at a time
        ldr     r1, =0x03000218         @ the command 03h of 8 bits, an address of 24
        ldr     r2, =SPI_CTRLR0
        str     r1, [r2]
        movs    r0, #1
        str     r0, [r3, #8]

        ldr     r0, =PROGRAM
        ldr     r1, =VTOR
        str     r0, [r1]
        ldr     r1, [r0]
        ldr     r2, [r0, #4]
        msr     msp, r1
        bx      r2
        .pool
