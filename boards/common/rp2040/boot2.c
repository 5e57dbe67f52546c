/* SPDX-License-Identifier: Apache-2.0
 *
 * The first 256 bytes of flash: what boot2.S assembles to, and in the last word its CRC-32 as the boot
 * ROM computes it. A test assembles and computes it again.
 */
#include <stdint.h>

__attribute__((section(".boot2"), used)) static const uint32_t boot2[64] = {
    0x20004b0au, 0x21046098u, 0x49096159u, 0x60586019u, 0x4a094908u, 0x20016011u, 0x48086098u,
    0x60084908u, 0x68426801u, 0x8808f381u, 0x00004710u, 0x18000000u, 0x001f0300u, 0x03000218u,
    0x180000f4u, 0x10000100u, 0xe000ed08u,
    [63] = 0x4eccbddfu,
};
