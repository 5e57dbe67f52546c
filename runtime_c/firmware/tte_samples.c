/* SPDX-License-Identifier: Apache-2.0
 *
 * Records of one size: target, input, then a seal in a unit of its own (flash only): the CRC-32 of
 * model id, target and input, and its complement. A record that power failed in, or that another
 * model left, has no such seal and is passed over.
 */
#include "tte_samples.h"

#include "model.h"
#include "tte_frame.h"
#include "tte_port.h"
#include "tte_protocol.h"
#include "tte_storage.h"

#include <string.h>

enum { CONTENT_BYTES = TTE_TARGET_BYTES + TTE_INPUT_BYTES, SEAL_BYTES = 8 };

static const uint8_t model_id[TTE_MODEL_ID_BYTES] = TTE_MODEL_ID;

static uint32_t used;   /* records from the front that are taken, sound or not */
static uint32_t sound;  /* of these, samples */
static uint32_t cursor; /* the record that tte_samples_next() looks at first */

static uint32_t flash_offset(void)
{
    return tte_port_storage.checkpoint_sectors * tte_port_storage.sector_bytes;
}

static uint32_t flash_bytes(void)
{
    return (tte_port_storage.sectors - tte_port_storage.checkpoint_sectors) *
           tte_port_storage.sector_bytes;
}

static uint32_t content_bytes(void)
{
    return flash_bytes() ? tte_storage_units(CONTENT_BYTES) : (CONTENT_BYTES + 7u) & ~7u;
}

static uint32_t record_bytes(void)
{
    return content_bytes() + (flash_bytes() ? tte_storage_units(SEAL_BYTES) : 0);
}

static uint8_t *spare(uint32_t index)
{
    uint32_t bytes;
    return (uint8_t *)tte_port_spare(&bytes) + index * record_bytes();
}

static const uint8_t *record(uint32_t index)
{
    return flash_bytes() ? tte_port_storage.data + flash_offset() + index * record_bytes()
                         : spare(index);
}

static uint32_t model_crc(void)
{
    return tte_crc32(0, model_id, sizeof model_id);
}

static int is_sound(uint32_t index)
{
    if (!flash_bytes()) {
        return 1;
    }
    const uint8_t *start = record(index);
    const uint32_t crc = tte_crc32(model_crc(), start, CONTENT_BYTES);
    return tte_get_word(start + content_bytes()) == crc &&
           tte_get_word(start + content_bytes() + 4) == ~crc;
}

static int is_blank(uint32_t index)
{
    const uint8_t *start = record(index);
    for (uint32_t i = 0; i < record_bytes(); ++i) {
        if (start[i] != 0xFF) {
            return 0;
        }
    }
    return 1;
}

void tte_samples_init(void)
{
    used = sound = cursor = 0;
    if (!flash_bytes()) {
        return;
    }
    for (uint32_t i = 0; i < tte_samples_capacity(); ++i) {
        if (!is_blank(i)) {
            used = i + 1;
            sound += (uint32_t)is_sound(i);
        }
    }
}

uint32_t tte_samples_capacity(void)
{
    uint32_t bytes = flash_bytes();
    if (!bytes) {
        (void)tte_port_spare(&bytes);
    }
    return bytes / record_bytes();
}

uint32_t tte_samples_count(void)
{
    return sound;
}

uint8_t tte_samples_store(void)
{
    if (used >= tte_samples_capacity()) {
        return tte_samples_capacity() ? TTE_FULL : TTE_NO_STORAGE;
    }
    const uint32_t index = used++;
    if (flash_bytes()) {
        tte_storage_writer writer;
        uint8_t seal[SEAL_BYTES];
        tte_storage_begin(&writer, flash_offset() + index * record_bytes());
        writer.crc = model_crc();
        tte_storage_put(&writer, tte_target(), TTE_TARGET_BYTES);
        tte_storage_put(&writer, tte_input(), TTE_INPUT_BYTES);
        tte_storage_pad(&writer);
        tte_put_word(seal, writer.crc);
        tte_put_word(seal + 4, ~writer.crc);
        tte_storage_put(&writer, seal, sizeof seal);
        tte_storage_pad(&writer);
        if (writer.failed || !is_sound(index)) {
            return TTE_FLASH_FAILED;
        }
    } else {
        memcpy(spare(index), tte_target(), TTE_TARGET_BYTES);
        memcpy(spare(index) + TTE_TARGET_BYTES, tte_input(), TTE_INPUT_BYTES);
    }
    sound++;
    return TTE_OK;
}

uint8_t tte_samples_clear(void)
{
    used = sound = cursor = 0;
    if (tte_storage_erase(tte_port_storage.checkpoint_sectors,
                          tte_port_storage.sectors - tte_port_storage.checkpoint_sectors)) {
        return TTE_FLASH_FAILED;
    }
    return TTE_OK;
}

int tte_samples_next(void)
{
    if (!sound) {
        return 0;
    }
    for (uint32_t looked = 0; looked < used; ++looked) {
        const uint32_t index = cursor < used ? cursor : 0;
        cursor = index + 1;
        if (is_sound(index)) {
            memcpy(tte_target(), record(index), TTE_TARGET_BYTES);
            memcpy(tte_input(), record(index) + TTE_TARGET_BYTES, TTE_INPUT_BYTES);
            return 1;
        }
    }
    return 0;
}
