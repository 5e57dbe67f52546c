/* SPDX-License-Identifier: Apache-2.0
 *
 * The flash of emulated boards: memory with the ways of NOR flash. An erasure sets all bits, a write
 * only clears some.
 */
#include "board.h"
#include "tte_port.h"

const tte_port_flash tte_port_storage = TTE_STORAGE;

static volatile uint32_t *storage_word(uint32_t offset)
{
    return (volatile uint32_t *)((uintptr_t)tte_port_storage.data + offset);
}

int tte_port_flash_erase(uint32_t sector)
{
    if (sector >= tte_port_storage.sectors) {
        return 1;
    }
    for (uint32_t i = 0; i < tte_port_storage.sector_bytes; i += 4) {
        *storage_word(sector * tte_port_storage.sector_bytes + i) = 0xFFFFFFFFu;
    }
    return 0;
}

int tte_port_flash_write(uint32_t offset, const void *data, uint32_t bytes)
{
    const uint32_t *word = data;
    const uint32_t size = tte_port_storage.sectors * tte_port_storage.sector_bytes;
    if ((offset | bytes) % tte_port_storage.unit_bytes || offset > size || bytes > size - offset) {
        return 1;
    }
    for (uint32_t i = 0; i < bytes; i += 4) {
        *storage_word(offset + i) &= *word++;
    }
    return 0;
}
