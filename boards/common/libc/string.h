/* SPDX-License-Identifier: Apache-2.0
 *
 * What the runtime uses of string.h, for compilers that bring the functions but no C library
 * headers for a bare target (zig, clang).
 */
#ifndef TTE_LIBC_STRING_H
#define TTE_LIBC_STRING_H

#include <stddef.h>

void *memcpy(void *restrict destination, const void *restrict source, size_t bytes);
void *memmove(void *destination, const void *source, size_t bytes);
void *memset(void *destination, int value, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

#endif
