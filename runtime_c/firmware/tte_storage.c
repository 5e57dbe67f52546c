/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes into units of flash.
 */
#include "tte_storage.h"

#include "tte_frame.h"
#include "tte_port.h"

uint32_t tte_storage_units(uint32_t bytes)
{
    const uint32_t mask = tte_port_storage.unit_bytes - 1;
    return (bytes + mask) & ~mask;
}

int tte_storage_erase(uint32_t first, uint32_t sectors)
{
    int failed = 0;
    for (uint32_t i = 0; i < sectors && !failed; ++i) {
        failed = tte_port_flash_erase(first + i);
    }
    return failed;
}

void tte_storage_begin(tte_storage_writer *writer, uint32_t offset)
{
    writer->offset = offset;
    writer->fill = 0;
    writer->crc = 0;
    writer->failed = 0;
}

static void put_byte(tte_storage_writer *writer, uint8_t byte)
{
    ((uint8_t *)writer->unit)[writer->fill++] = byte;
    if (writer->fill == tte_port_storage.unit_bytes) {
        if (!writer->failed) {
            writer->failed = tte_port_flash_write(writer->offset, writer->unit, writer->fill);
        }
        writer->offset += writer->fill;
        writer->fill = 0;
    }
}

void tte_storage_put(tte_storage_writer *writer, const void *data, uint32_t bytes)
{
    const uint8_t *byte = data;
    writer->crc = tte_crc32(writer->crc, data, bytes);
    for (uint32_t i = 0; i < bytes; ++i) {
        put_byte(writer, byte[i]);
    }
}

void tte_storage_pad(tte_storage_writer *writer)
{
    while (writer->fill) {
        put_byte(writer, 0xFF);
    }
}
