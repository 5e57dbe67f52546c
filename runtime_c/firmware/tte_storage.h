/* SPDX-License-Identifier: Apache-2.0
 *
 * A stream of bytes into the storage flash, in whole units: nothing is read back before a unit is
 * full, and a unit is written once.
 */
#ifndef TTE_STORAGE_H
#define TTE_STORAGE_H

#include <stdint.h>

enum { TTE_LARGEST_UNIT_BYTES = 256 };

typedef struct {
    uint32_t offset; /* of the unit that is being filled */
    uint32_t fill;
    uint32_t crc; /* of all bytes that were put, without the padding */
    int failed;
    uint32_t unit[TTE_LARGEST_UNIT_BYTES / sizeof(uint32_t)];
} tte_storage_writer;

/* `bytes` rounded up to whole units. */
uint32_t tte_storage_units(uint32_t bytes);

/* Erases `sectors` sectors from `first` on. Not 0: it failed. */
int tte_storage_erase(uint32_t first, uint32_t sectors);

void tte_storage_begin(tte_storage_writer *writer, uint32_t offset);
void tte_storage_put(tte_storage_writer *writer, const void *data, uint32_t bytes);

/* Fills the last unit with ones and writes it. */
void tte_storage_pad(tte_storage_writer *writer);

#endif
